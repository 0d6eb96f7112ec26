"""Starts uvicorn as the real server does: no limit on the time for open requests when it is told to stop."""

from __future__ import annotations

import socket

import uvicorn

from trtllm_simulator import log
from trtllm_simulator.loader import Loaded
from trtllm_simulator.server.app import Server
from trtllm_simulator.versions import Behaviour


class _Server(uvicorn.Server):
    """Says when it listens: uvicorn itself does not where it is given a socket."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            log.info(f"Listening on http://{host}:{port}")


async def serve(behaviour: Behaviour, loaded: Loaded, *, model: str, served_name: str | None, listener: socket.socket) -> None:
    """Serves until SIGTERM or SIGINT."""
    if loaded.text is None:
        raise ValueError("a tokenizer is needed")
    app = Server(behaviour, loaded, loaded.text, model=model, served_name=served_name).app()
    config = uvicorn.Config(app, log_level="info", timeout_keep_alive=5)
    await _Server(config).serve(sockets=[listener])
