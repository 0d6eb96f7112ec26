"""Requests to the engine's thread, and its steps back into the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from trtllm_simulator.executor import Executor, Request
from trtllm_simulator.sequence import Sampling, Step
from trtllm_simulator.textio import TextIO


@dataclass
class Choice:
    """One text that is asked for, and what has come of it."""

    prompt: list[int]
    sampling: Sampling
    skip_special_tokens: bool = True
    text: str = ""
    tokens: int = 0
    finish: str | None = None
    stop_reason: str | int | None = None
    request: Request | None = None
    times: list[float] = field(default_factory=list)
    """Begin of the work, first token, end."""


class Generation:
    """All choices of one HTTP request."""

    def __init__(self, executor: Executor, text: TextIO, choices: Sequence[Choice]) -> None:
        self.choices = list(choices)
        self.started = time.monotonic()
        self._executor = executor
        self._queue: asyncio.Queue[tuple[int, Step | Exception]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def submit(index: int, choice: Choice) -> Request:
            def sink(step: Step | Exception) -> None:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(self._queue.put_nowait, (index, step))

            return Request(choice.prompt, choice.sampling, text.decoder(skip_special_tokens=choice.skip_special_tokens), sink)

        for index, choice in enumerate(self.choices):
            choice.request = submit(index, choice)
            executor.submit(choice.request)

    async def steps(self) -> AsyncGenerator[tuple[int, Step]]:
        """Steps of all choices as they come. Leaving early ends the requests.

        Raises:
            RuntimeError: the engine failed.
        """
        try:
            while any(choice.finish is None for choice in self.choices):
                index, step = await self._queue.get()
                if isinstance(step, Exception):
                    raise step
                choice = self.choices[index]
                choice.text += step.text
                choice.tokens += 1
                choice.finish, choice.stop_reason = step.finish, step.stop_reason
                if choice.tokens == 1 and choice.request:
                    choice.times = [choice.request.started_at or self.started, time.monotonic()]
                if step.finish:
                    choice.times.append(time.monotonic())
                yield index, step
        finally:
            self.abort()

    async def run(self) -> None:
        """Waits for all choices."""
        async for _ in self.steps():
            pass

    def abort(self) -> None:
        """Ends what is not finished."""
        for choice in self.choices:
            if choice.finish is None and choice.request:
                self._executor.abort(choice.request)

    @property
    def completion_tokens(self) -> int:
        """Generated tokens of all choices."""
        return sum(choice.tokens for choice in self.choices)
