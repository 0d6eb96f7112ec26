"""A proxy between the operator and a real API server that does what a plan says, and writes down what passes. HTTP on loopback, TLS upstream.

Plans: tests.support.faultproxy_plan. Journal: tests.support.journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web
from yarl import URL

from tests.support.faultproxy_hold import Held
from tests.support.faultproxy_loop import LoopThread
from tests.support.faultproxy_plan import Do, Plan
from tests.support.journal import Journal, Target, target_of

_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "content-length", "accept-encoding"}
_REASONS = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired", 422: "Invalid",
    429: "TooManyRequests", 500: "InternalError", 502: "BadGateway", 503: "ServiceUnavailable", 504: "Timeout",
}  # fmt: skip
_MOST_BYTES = 2**25
_STALE_LISTS = 45
"""About three for each kind: those of the start, and those of the watches."""
_SECONDS = 20.0


def refusal(code: int) -> dict[str, Any]:
    """The API server's own form of an error."""
    message = "injected by the fault proxy"
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": _REASONS[code],
        "code": code,
    }


class FaultProxy:
    """One proxy for one operator. A context manager.

    Attributes:
        journal: what passed.
        killed: set when a plan has killed the operator. Until `revive`, nothing of it is forwarded any more.
        down_seconds: how long the plan wants it to stay away then.
    """

    def __init__(self, loop: LoopThread, url: str, ca: Path, journal: Journal, kill: Callable[[], None]) -> None:
        """`kill` sends SIGKILL to the operator; called in the thread of `loop`."""
        self._loop = loop
        self._url = url
        self._tls = ssl.create_default_context(cafile=str(ca))
        self._kill = kill
        self._plan = Plan()
        self._past_hits = 0
        self._stale: str | None = None
        self._stale_lists = 0
        self._stale_back = 0
        self.journal = journal
        self.killed = threading.Event()
        self.down_seconds = 0.0

    def __enter__(self) -> Self:
        self._loop.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._stop())

    def arm(self, plan: Plan) -> None:
        """From now on do what this plan says."""
        self._past_hits += self._plan.hits
        self._plan = plan

    @property
    def hits(self) -> int:
        """How many requests plans have hit."""
        return self._past_hits + self._plan.hits

    def down(self, seconds: float) -> None:
        """Somebody else ends the operator, for so many seconds."""
        self.down_seconds = seconds
        self._stale_lists = 0
        self.killed.set()

    def revive(self) -> None:
        """A new operator is about to be started."""
        self.journal.life += 1
        self._stale = None
        self.killed.clear()

    def kubeconfig(self, path: Path, token: str) -> Path:
        """Write a kubeconfig that leads through the proxy."""
        name = "fault-proxy"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
            "current-context": name,
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(config, indent=1))
        return path

    async def _start(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, connect=5.0)
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        app = web.Application(client_max_size=_MOST_BYTES)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # A watch ends with its reader. Writes are shielded from that: what has arrived is carried out, as by the API server.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self.killed.is_set():
            return _abort(request)
        target = target_of(request.method, request.raw_path)
        do = self._plan.decide(target, body)
        number = self.journal.number()
        agent = request.headers.get("User-Agent", "")
        self.journal.add("request", number, target=target, agent=agent, fault=str(do or ""))
        if do is not None and (answer := await self._before(request, target, number, do)) is not None:
            return answer
        if target.verb == "watch":
            return await self._watch(request, target, number, do)
        work = asyncio.ensure_future(self._forward(request, target, number, body, do))
        return await (asyncio.shield(work) if target.writes else work)

    async def _before(self, request: web.Request, target: Target, number: int, do: Do) -> web.StreamResponse | None:
        """What is done instead of forwarding; None: forward."""
        match do.action:
            case "kill-before":
                self._end_operator(target, "before", do)
                self.journal.add("response", number, target=target, fault=str(do), forwarded=False)
                return _abort(request)
            case "reset-before":
                self.journal.add("response", number, target=target, fault=str(do), forwarded=False)
                return _abort(request)
            case "status":
                self.journal.add("response", number, target=target, status=do.code, fault=str(do), forwarded=False)
                headers = {} if do.retry_after is None else {"Retry-After": f"{do.retry_after:g}"}
                return web.json_response(refusal(do.code), status=do.code, headers=headers)
            case "slow":
                await asyncio.sleep(do.seconds)
            case _:
                pass  # done to the answer
        return None

    async def _forward(self, request: web.Request, target: Target, number: int, body: bytes, do: Do | None) -> web.StreamResponse:
        fault = str(do or "")
        try:
            stale = self._stale_for(target, do)
            async with asyncio.timeout(_SECONDS * 2), self._upstream(request, body, stale) as answer:
                data = await answer.read()
        except (aiohttp.ClientError, OSError) as error:
            self.journal.add("response", number, target=target, fault=fault, forwarded=False, text=repr(error))
            return _abort(request)
        document = _object(data) if target.writes or answer.status >= 400 else {}  # lists are long, and nobody asks what was in them
        known = document if target.writes and answer.status < 400 else None
        version = str((document.get("metadata") or {}).get("resourceVersion", ""))
        text = str(document.get("message", ""))[:300] if answer.status >= 400 else ""
        self.journal.add(
            "response", number, target=target, status=answer.status, resource_version=version, fault=fault, answer=known, text=text
        )
        if do is not None and do.action == "kill-after":
            self._end_operator(target, "after", do)
            return _abort(request)
        if fault == "reset-after":
            return _abort(request)
        headers = {key: value for key, value in answer.headers.items() if key.lower() not in _HOP}
        if fault == "truncate":
            broken = web.StreamResponse(status=answer.status, headers={**headers, "Content-Length": str(len(data))})
            await broken.prepare(request)
            await broken.write(data[: len(data) // 2])
            return _abort(request)
        return web.Response(status=answer.status, body=data, headers=headers)

    async def _watch(self, request: web.Request, target: Target, number: int, do: Do | None) -> web.StreamResponse:
        fault = str(do or "")
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        if fault == "silent":
            await stream.prepare(request)
            await asyncio.Event().wait()  # until the reader goes
        if fault in ("gone", "error-event"):
            await stream.prepare(request)
            event = {"type": "ERROR", "object": refusal(410 if fault == "gone" else 500)}
            self.journal.add("event", number, target=target, fault=fault)
            await stream.write(json.dumps(event).encode() + b"\n")
            return stream
        try:
            async with self._upstream(request, b"") as answer:
                self.journal.add("response", number, target=target, status=answer.status, fault=fault)
                stream.set_status(answer.status)
                await stream.prepare(request)
                rest = b""
                if fault == "hold" and do is not None:
                    await self._hold(stream, number, target, answer.content, Held(do))
                    return stream
                async for chunk in answer.content.iter_any():
                    if fault == "truncate":
                        await stream.write(chunk[: len(chunk) // 2])
                        return _abort(request)
                    await stream.write(chunk)
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        self._note_event(number, target, line)
        except (aiohttp.ClientError, OSError) as error:
            self.journal.add("note", number, target=target, text=f"watch ended: {error!r}")
            return _abort(request)
        return stream

    async def _hold(self, stream: web.StreamResponse, number: int, target: Target, content: aiohttp.StreamReader, held: Held) -> None:
        """Forward event by event, but for those that are kept back."""
        lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        reading = asyncio.create_task(_read_lines(content, lines))
        try:
            while True:
                try:
                    async with asyncio.timeout_at(held.due):
                        line = await lines.get()
                except TimeoutError:
                    passing = held.release()
                else:
                    if line is None:
                        return
                    passing = held.take(line)
                for event in passing:
                    await stream.write(event)
                    self._note_event(number, target, event)
        finally:
            reading.cancel()

    def _upstream(self, request: web.Request, body: bytes, as_of: str | None = None) -> Any:
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _HOP}
        url = URL(f"{self._url}{request.raw_path}", encoded=True)
        if as_of is not None and "continue" not in url.query:
            url = url.update_query(resourceVersion=as_of, resourceVersionMatch="Exact")
        return self._session.request(request.method, url, headers={**headers, "Accept-Encoding": "identity"}, data=body or None)

    def _stale_for(self, target: Target, do: Do | None) -> str | None:
        """The version as of which a list is answered; None: the newest."""
        if do is not None and do.action == "stale":
            return self._stale_version(do.back or 0)
        if target.verb == "list" and self._stale_lists > 0:
            self._stale_lists -= 1
            return self._stale_version(self._stale_back)
        return None

    def _stale_version(self, back: int) -> str:
        if self._stale is None:
            versions = [entry.resource_version for entry in self.journal.writes() if entry.resource_version]
            self._stale = versions[max(0, len(versions) - 1 - back)] if versions else "1"
        return self._stale

    def _note_event(self, number: int, target: Target, line: bytes) -> None:
        event = _object(line)
        metadata = (event.get("object") or {}).get("metadata") or {}
        where = Target(target.verb, target.resource, str(metadata.get("namespace", "")), str(metadata.get("name", "")))
        version = str(metadata.get("resourceVersion", ""))
        self.journal.add("event", number, target=where, resource_version=version, text=str(event.get("type", "")))

    def _end_operator(self, target: Target, when: str, do: Do) -> None:
        if not self.killed.is_set():
            self.down_seconds = do.seconds
            self._stale_lists, self._stale_back = (_STALE_LISTS, do.back) if do.back is not None else (0, 0)
            self.journal.add("note", text=f"the operator is killed {when} {target}")
            self.killed.set()
            self._kill()


async def _read_lines(content: aiohttp.StreamReader, lines: asyncio.Queue[bytes | None]) -> None:
    """Put each line into a queue, and None at the end, whatever the end was."""
    rest = b""
    try:
        async for chunk in content.iter_any():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                lines.put_nowait(line + b"\n")
    except (aiohttp.ClientError, OSError):
        pass
    finally:
        lines.put_nowait(None)


def _abort(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _object(data: bytes) -> dict[str, Any]:
    """The document without managedFields; empty where it is none."""
    found: Any = None
    with contextlib.suppress(ValueError):
        found = json.loads(data)
    if not isinstance(found, dict):
        return {}
    metadata = found.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("managedFields", None)
    return found
