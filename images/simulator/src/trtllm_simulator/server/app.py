"""The endpoints of `trtllm-serve`: serve/openai_server.py."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from trtllm_simulator import log
from trtllm_simulator.executor import CppExecutorError, RequestError
from trtllm_simulator.llm_args import TorchLlmArgs
from trtllm_simulator.loader import Loaded
from trtllm_simulator.server import chat, protocol
from trtllm_simulator.server.answers import Answer, ChatCompletion, Completion
from trtllm_simulator.server.generation import Choice, Generation
from trtllm_simulator.server.metrics import Metrics
from trtllm_simulator.textio import TextIO
from trtllm_simulator.versions import Behaviour

_Body = TypeVar("_Body", bound=BaseModel)
_UNAVAILABLE = "LLM is unavailable. Please check the server logs for more details."


class Server:
    """State of one server."""

    def __init__(self, behaviour: Behaviour, loaded: Loaded, text: TextIO, *, model: str, served_name: str | None) -> None:
        self._behaviour, self._executor, self._text = behaviour, loaded.executor, text
        self._faults = loaded.faults.serve
        # Where MODEL is a directory, its last component is the public name.
        self._model = served_name or (Path(model).resolve().name if Path(model).is_dir() else model)
        args = loaded.args
        # The PyTorch backend collects statistics only if it is told to.
        self._stats = not isinstance(args, TorchLlmArgs) or args.enable_iter_perf_stats
        self._metrics = Metrics(behaviour, self._model, loaded.executor, gauges=self._stats) if args.return_perf_metrics else None

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/health", self._health),
            Route("/health_generate", self._health_generate),
            Route("/version", self._version),
            Route("/v1/models", self._models),
            Route("/metrics", self._iteration_stats),
            Route("/v1/completions", self._completions, methods=["POST"]),
            Route("/v1/chat/completions", self._chat_completions, methods=["POST"]),
        ]
        if self._metrics:
            routes.append(Route("/prometheus/metrics", self._prometheus))

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            yield
            self._executor.shutdown()

        return Starlette(routes=routes, lifespan=lifespan)

    async def _health(self, _: Request) -> Response:
        fatal = self._executor.fatal
        if fatal is None or self._faults.health_lies:
            return Response(status_code=200)
        if self._behaviour.health_ends_dead_server and self._faults.crash == "exit":
            log.error(f"Health check detected fatal engine error, initiating server shutdown: {fatal}")
            self._end()
        return PlainTextResponse(_UNAVAILABLE, 503)

    async def _health_generate(self, request: Request) -> Response:
        body = protocol.ChatCompletionRequest(model=self._model, messages=[{"role": "user", "content": "hi"}], max_completion_tokens=1)
        response = await self._answer(request, lambda: self._chat(body), body)
        if response.status_code == 200:
            return PlainTextResponse("Generation health check OK")
        return PlainTextResponse("Health check failed", 500)

    async def _version(self, _: Request) -> Response:
        return JSONResponse({"version": self._behaviour.version, "simulator": True})

    async def _models(self, _: Request) -> Response:
        card = {"id": self._model, "object": "model", "created": int(time.time()), "owned_by": "tensorrt_llm"}
        return JSONResponse({"object": "list", "data": [card]})

    async def _iteration_stats(self, _: Request) -> Response:
        return JSONResponse(self._executor.drain_stats() if self._stats else [])

    async def _prometheus(self, _: Request) -> Response:
        content = self._metrics.render() if self._metrics else b""
        return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _completions(self, request: Request) -> Response:
        return await self._parsed(request, protocol.CompletionRequest, self._completion)

    async def _chat_completions(self, request: Request) -> Response:
        return await self._parsed(request, protocol.ChatCompletionRequest, self._chat)

    async def _parsed(self, request: Request, kind: type[_Body], make: Callable[[_Body], Answer]) -> Response:
        try:
            body = kind.model_validate_json(await request.body())
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False, include_input=False)
            return JSONResponse(protocol.error(str(details), 400), 400)
        if not isinstance(body, protocol.CompletionRequest | protocol.ChatCompletionRequest):
            raise TypeError(kind)
        if refused := body.refused():
            return JSONResponse(protocol.error(refused, 400), 400)
        return await self._answer(request, lambda: make(body), body)

    async def _answer(
        self, request: Request, make: Callable[[], Answer], body: protocol.CompletionRequest | protocol.ChatCompletionRequest
    ) -> Response:
        try:
            answer = make()
            if body.stream:
                return StreamingResponse(self._observed(answer), media_type="text/event-stream")
            if not await _unless_gone(request, answer.generation.run()):
                return Response(status_code=499)
        except (RequestError, ValueError) as error:
            return JSONResponse(protocol.error(str(error), 400), 400)
        except CppExecutorError as error:
            self._engine_died(error)
            return JSONResponse(protocol.error(f"Internal server error: {error}", 500, "InternalServerError"), 500)
        except RuntimeError as error:
            return JSONResponse(protocol.error(str(error), 503, "ServiceUnavailableError"), 503)
        if self._metrics:
            self._metrics.observe(answer.generation)
        return JSONResponse(answer.full())

    async def _observed(self, answer: Answer) -> AsyncIterator[str]:
        try:
            async with aclosing(answer.stream()) as events:
                async for event in events:
                    yield event
        except CppExecutorError as error:
            self._engine_died(error)
            raise
        if self._metrics:
            self._metrics.observe(answer.generation)

    def _completion(self, body: protocol.CompletionRequest) -> Answer:
        prompts = [self._text.encode(p, add_special_tokens=body.add_special_tokens) if isinstance(p, str) else p for p in body.prompts()]
        choices = [self._choice(body, prompt, body.max_tokens, index) for prompt in prompts for index in range(body.n)]
        if body.echo:
            for choice in choices:
                choice.text = self._text.tokenizer.decode(choice.prompt, skip_special_tokens=True)
        return self._make(Completion, body, choices, sum(map(len, prompts)))

    def _chat(self, body: protocol.ChatCompletionRequest) -> Answer:
        messages = [chat.flat(message) for message in body.messages]
        rendered = chat.prompt(self._text, messages, add_generation_prompt=body.add_generation_prompt, template=body.chat_template)
        prompt = self._text.encode(rendered, add_special_tokens=body.add_special_tokens)
        choices = [self._choice(body, prompt, body.tokens, index) for index in range(body.n)]
        return self._make(ChatCompletion, body, choices, len(prompt))

    def _choice(
        self, body: protocol.CompletionRequest | protocol.ChatCompletionRequest, prompt: list[int], max_tokens: int | None, index: int
    ) -> Choice:
        if not prompt:
            raise RequestError("the prompt is empty")
        if max(prompt) >= self._executor.model.config.vocab_size or min(prompt) < 0:
            raise RequestError("Token ID is out of range")
        tokens = self._executor.check(len(prompt), max_tokens)
        return Choice(prompt, body.sampling(tokens, self._text.end_ids, index), body.skip_special_tokens)

    def _make(
        self,
        kind: type[Answer],
        body: protocol.CompletionRequest | protocol.ChatCompletionRequest,
        choices: list[Choice],
        prompt_tokens: int,
    ) -> Answer:
        generation = Generation(self._executor, self._text, choices)
        continuous = bool(body.stream_options and body.stream_options.continuous_usage_stats)
        return kind(self._model, generation, prompt_tokens, stream_usage=body.wants_usage, continuous=continuous)

    def _engine_died(self, error: Exception) -> None:
        log.error("".join(traceback.format_exception(error)).rstrip())
        if self._faults.crash == "exit" and not self._faults.health_lies:
            self._end()

    def _end(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


async def _unless_gone(request: Request, work: Awaitable[None]) -> bool:
    """Waits for the work. False: the client went away first, and the work was stopped."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    running, left = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    tasks: set[asyncio.Future[Any]] = {running, left}
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if not task.done():
            task.cancel()
    if running.done():
        running.result()
        return True
    await asyncio.wait({running})
    return False
