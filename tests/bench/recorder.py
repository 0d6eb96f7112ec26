"""A forwarder between the operator and the API server that keeps every request. HTTP on loopback, TLS upstream. Counts are exact here, times are not."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

from tests.bench.bare import MERGE
from tests.cluster.controlplane import ControlPlane
from tests.support.faultproxy_loop import LoopThread
from tests.support.journal import Target, target_of

_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "content-length", "accept-encoding"}
_MOST_BYTES = 2**25
LEASES = "leases"


@dataclass(frozen=True)
class Request:
    """One request and the status of its answer."""

    method: str
    path: str
    """With its query."""
    body: str
    content_type: str
    target: Target
    status: int

    @property
    def what(self) -> tuple[str, ...]:
        """Equal for two writes of the same thing by the same manager, of which one would have been enough."""
        target = self.target
        if target.resource == "events":
            event = json.loads(self.body)
            return ("events", event["regarding"]["uid"], event["reason"], event["note"])
        manager = parse_qs(urlsplit(self.path).query).get("fieldManager", [""])[0]
        return (target.resource, target.namespace, target.name, manager, *(str(owner["uid"]) for owner in self.owners or ()))

    @property
    def owners(self) -> list[dict[str, Any]] | None:
        """All owners of a shared object, where that is what is written: those who join at the same time are one write."""
        if self.target.resource != "llmenginebuilds" or self.content_type != MERGE:
            return None
        found: list[dict[str, Any]] = json.loads(self.body)["metadata"]["ownerReferences"]
        return found


class Recorder:
    """A context manager."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._url, self._token = control_plane.url, control_plane.token
        self._tls = ssl.create_default_context(cafile=str(control_plane.ca))
        self._requests: list[Request] = []
        self._loop = LoopThread()

    def __enter__(self) -> Self:
        self._loop.__enter__()
        self._loop.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._stop())
        self._loop.__exit__()

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig that leads through here."""
        name = "recorder"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": name, "user": {"token": self._token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
            "current-context": name,
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return path

    def mark(self) -> int:
        """A position, for `writes` and `reads`."""
        return len(self._requests)

    def writes(self, mark: int = 0) -> list[Request]:
        """Everything but reads after a position, leader election left out."""
        return [request for request in self._requests[mark:] if request.target.writes and request.target.resource != LEASES]

    def renewals(self, mark: int = 0) -> int:
        """Writes of leader election after a position."""
        return sum(1 for request in self._requests[mark:] if request.target.writes and request.target.resource == LEASES)

    def reads(self, mark: int = 0, *, but: Iterable[str] = ("watch", "list")) -> list[Request]:
        """Reads after a position, without watches and lists."""
        left_out = set(but)
        return [request for request in self._requests[mark:] if request.target.verb in {"get", "list", "watch"} - left_out]

    async def _start(self) -> None:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False)
        app = web.Application(client_max_size=_MOST_BYTES)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = int(self._runner.addresses[0][1])

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        target = target_of(request.method, request.raw_path)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _HOP}
        call = self._session.request(
            request.method,
            URL(f"{self._url}{request.raw_path}", encoded=True),
            headers={**headers, "Accept-Encoding": "identity"},
            data=body or None,
        )
        async with call as answer:
            kind = request.headers.get("Content-Type", "application/json")
            self._requests.append(Request(request.method, request.raw_path, body.decode(), kind, target, answer.status))
            if target.verb == "watch":
                return await self._stream(request, answer)
            known = {key: value for key, value in answer.headers.items() if key.lower() not in _HOP}
            return web.Response(status=answer.status, body=await answer.read(), headers=known)

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        stream = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        try:
            async for chunk in answer.content.iter_any():
                await stream.write(chunk)
        except (aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError):
            if request.transport is not None:
                request.transport.abort()
        return stream


def repeated(writes: Iterable[Request]) -> dict[str, int]:
    """Kinds of writes of which fewer would have been enough, and how many too many."""
    counts = Counter(request.what for request in writes)
    found: Counter[str] = Counter()
    for what, count in counts.items():
        if count > 1:
            found[what[0]] += count - 1
    return dict(found)


def by_resource(requests: Iterable[Request]) -> dict[str, Any]:
    """Counts by verb and resource, for a person."""
    return dict(sorted(Counter(f"{request.target.verb} {request.target.resource}" for request in requests).items()))
