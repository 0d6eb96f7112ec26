"""When a write may leave: the right to it is asked again right before its first byte. Against a server on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from trtllm_operator.kube.client import Client
from trtllm_operator.kube.errors import NotLeadingError


@pytest.fixture
async def received() -> list[Any]:
    """The bodies that the server was sent."""
    return []


@pytest.fixture
async def server(received: list[Any]) -> AsyncIterator[Configuration]:
    async def answer(request: web.Request) -> web.StreamResponse:
        received.append(await request.json() if request.can_read_body else None)
        return web.json_response({"is": "answered"})

    app = web.Application()
    app.router.add_route("*", "/object", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    await runner.cleanup()


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE", "PUT"])
async def test_a_write_in_hand_is_not_sent_once_the_lease_is_over(server: Configuration, received: list[Any], method: str) -> None:
    """A process that is stopped, or a loop that is late, between the decision to send and the sending."""
    left = iter([True, False, True, True])
    client = Client(server, may_write=lambda: next(left))
    with pytest.raises(NotLeadingError, match=f"{method} /object: not sent"):
        await client.json(method, "/object", body={"number": 1})
    assert received == []
    assert await client.json(method, "/object", body={"number": 2}) == {"is": "answered"}
    assert received == [{"number": 2}]
    await client.close()


async def test_reading_needs_no_lease(server: Configuration, received: list[Any]) -> None:
    client = Client(server, may_write=lambda: False)
    assert await client.json("GET", "/object") == {"is": "answered"}
    with pytest.raises(NotLeadingError):
        await client.json("PATCH", "/object", body={})
    assert received == [None]
    await client.close()
