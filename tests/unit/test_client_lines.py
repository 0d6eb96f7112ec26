"""The client's streams, against a server on loopback; and what importing it does not import."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from trtllm_operator.kube.client import Client
from trtllm_operator.kube.errors import GoneError, UnreachableError

BIG = b'{"x": "' + b"y" * 3_000_000 + b'"}'


async def _answer(request: web.Request) -> web.StreamResponse:
    what = request.query["what"]
    if what == "gone":
        return web.json_response({"message": "too old", "reason": "Expired"}, status=410)
    stream = web.StreamResponse()
    await stream.prepare(request)
    if what == "lines":
        for part in (b'{"a": 1}\n{"b"', b": 2}\n", BIG + b"\n"):
            await stream.write(part)
    if what == "cut":
        await stream.write(b'{"a": 1}\n{"b"')
    if what == "silent":
        await stream.write(b"{}\n")
        await asyncio.Event().wait()
    return stream


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    app = web.Application()
    app.router.add_get("/watch", _answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = Client(Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}"))
    yield client
    await client.close()
    await runner.cleanup()


async def _read(client: Client, what: str, opened: Callable[[], None] = lambda: None, silent: float = 5.0) -> list[bytes]:
    return [line async for line in client.lines("/watch", query={"what": what}, silent_seconds=silent, opened=opened)]


async def test_lines_come_whole_however_they_are_sent(client: Client) -> None:
    opened: list[bool] = []
    assert await _read(client, "lines", lambda: opened.append(True)) == [b'{"a": 1}', b'{"b": 2}', BIG]
    assert opened == [True]


async def test_a_refusal_is_an_error_of_its_kind(client: Client) -> None:
    opened: list[bool] = []
    with pytest.raises(GoneError, match="too old"):
        await _read(client, "gone", lambda: opened.append(True))
    assert opened == []


@pytest.mark.parametrize("what", ["cut", "silent"])
async def test_a_stream_that_breaks_off_or_falls_silent_is_told(client: Client, what: str) -> None:
    with pytest.raises(UnreachableError, match="broke off"):
        await _read(client, what, silent=0.2)


def test_the_official_client_is_imported_without_what_nobody_uses() -> None:
    """It is most of a start, and megabytes. Where a new version of it needs more, this says so."""
    program = (
        "import sys, trtllm_operator.runtime.main, kopf, kubernetes.client\n"
        "unused = {'oauthlib', 'requests_oauthlib', 'websocket', 'kubernetes.dynamic', 'kubernetes.aio.dynamic', 'kubernetes.watch'}\n"
        "print(*sorted(unused & set(sys.modules)))\n"
        "assert kubernetes.client.V1ObjectMeta"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
