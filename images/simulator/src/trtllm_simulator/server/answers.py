"""Bodies of answers: whole ones, and the chunks of a stream."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from trtllm_simulator.server import protocol
from trtllm_simulator.server.generation import Choice, Generation


class Answer:
    """An answer to one request. Subclasses say how the two endpoints differ."""

    whole = chunk = ""
    prefix = ""

    def __init__(
        self, model: str, generation: Generation, prompt_tokens: int, *, stream_usage: bool = False, continuous: bool = False
    ) -> None:
        self.generation = generation
        self._prompt_tokens = prompt_tokens
        self._stream_usage, self._continuous = stream_usage, continuous
        self._common = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def full(self) -> dict[str, Any]:
        """The whole answer."""
        choices = [self.choice(index, choice) for index, choice in enumerate(self.generation.choices)]
        return {**self._common, "object": self.whole, "choices": choices, "usage": self._usage()}

    async def stream(self) -> AsyncGenerator[str]:
        """Server-sent events."""
        for opening in self.openings():
            yield self._event(opening)
        async with aclosing(self.generation.steps()) as steps:  # ends the requests at once when the client has gone
            async for index, step in steps:
                if step.text or step.finish:
                    yield self._event([self.delta(index, step.text, step.finish, step.stop_reason)])
        if self._stream_usage:
            yield _sse({**self._common, "object": self.chunk, "choices": [], "usage": self._usage()})
        yield "data: [DONE]\n\n"

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        raise NotImplementedError

    def delta(self, index: int, text: str, finish: str | None, stop_reason: str | int | None) -> dict[str, Any]:
        raise NotImplementedError

    def openings(self) -> list[list[dict[str, Any]]]:
        """Chunks before the first token."""
        return []

    def _usage(self) -> dict[str, Any]:
        return protocol.usage(self._prompt_tokens, self.generation.completion_tokens)

    def _event(self, choices: list[dict[str, Any]]) -> str:
        return _sse({**self._common, "object": self.chunk, "choices": choices, **({"usage": self._usage()} if self._continuous else {})})


class Completion(Answer):
    whole = chunk = "text_completion"
    prefix = "cmpl"

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        return self.delta(index, choice.text, choice.finish, choice.stop_reason)

    def delta(self, index: int, text: str, finish: str | None, stop_reason: str | int | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": finish, "stop_reason": stop_reason}


class ChatCompletion(Answer):
    whole, chunk = "chat.completion", "chat.completion.chunk"
    prefix = "chatcmpl"

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": choice.text, "reasoning_content": None, "tool_calls": []}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": choice.finish, "stop_reason": choice.stop_reason}

    def delta(self, index: int, text: str, finish: str | None, stop_reason: str | int | None) -> dict[str, Any]:
        return {"index": index, "delta": {"content": text}, "logprobs": None, "finish_reason": finish, "stop_reason": stop_reason}

    def openings(self) -> list[list[dict[str, Any]]]:
        return [
            [{"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}]
            for index in range(len(self.generation.choices))
        ]


def _sse(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
