"""Keeps watching one kind: from the version of a list on, through ends and errors, and with a new list after a gap."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

from trtllm_operator.kube.client import Client
from trtllm_operator.kube.errors import ApiError, GoneError
from trtllm_operator.kube.resources import Resource
from trtllm_operator.kube.watches import watch
from trtllm_operator.runtime.handlers import Deliver

_log = logging.getLogger(__name__)

_STREAM_SECONDS = (290, 590)
"""The API server is asked to end a watch after a time of these, so that not all are opened anew together, nor all on one server."""

_FIRST_SECONDS, _LONGEST_SECONDS = 0.25, 10.0
_SHORT_SECONDS = 1.0
"""A stream that ends so soon counts as one that failed."""

List = Callable[[], Awaitable[str]]
"""Takes in a complete list of the kind and returns its resourceVersion. Raises ApiError."""


class Reflector:
    """One kind in one namespace, or in all."""

    def __init__(self, client: Client, resource: Resource, namespace: str | None, version: str, list_anew: List, deliver: Deliver) -> None:
        """`version` is that of a list that was taken in already."""
        self.resource = resource
        self._client = client
        self._namespace = namespace
        self._version = version
        self._list = list_anew
        self._deliver = deliver
        self._open = False
        self._heard = time.monotonic()
        self._said = ""
        self._reading: asyncio.Task[None] | None = None

    def silent_seconds(self) -> float:
        """For how long there has been no open watch."""
        return 0.0 if self._open else time.monotonic() - self._heard

    def restart(self) -> None:
        """End the present watch, and list before the next one."""
        self._version = ""
        if self._reading is not None:
            self._reading.cancel()

    async def run(self) -> None:
        """Watch, until cancelled."""
        delay = _FIRST_SECONDS
        while True:
            started = time.monotonic()
            self._reading = asyncio.create_task(self._once(), name=f"watch of {self.resource.plural}")
            try:
                await asyncio.wait([self._reading])
            finally:
                self._open = False
                self._reading.cancel()
            pause = self._outcome(self._reading)
            if time.monotonic() - started > _SHORT_SECONDS:
                delay = _FIRST_SECONDS
            else:
                pause = max(pause, delay * (0.75 + 0.5 * random.random()))  # noqa: S311 - jitter, no secret
                delay = min(delay * 2, _LONGEST_SECONDS)
            await asyncio.sleep(pause)

    def _opened(self) -> None:
        self._open = True
        self._heard = time.monotonic()

    def _outcome(self, ended: asyncio.Task[None]) -> float:
        """Say what ended it, once; seconds that the API server asked to wait."""
        if ended.cancelled():
            return 0.0
        error = ended.exception()
        text = str(error) if isinstance(error, ApiError) else repr(error)
        if isinstance(error, GoneError):
            self._version = ""
        elif error is not None:
            if text != self._said:
                _log.warning("the watch of %s ended and is opened again: %s", self.resource.plural, text)
            if not isinstance(error, ApiError):
                self._version = ""  # a bug of ours: what it missed is listed
            self._said = text
        return (error.retry_after or 0.0) if isinstance(error, ApiError) else 0.0

    async def _once(self) -> None:
        if not self._version:
            self._version = await self._list()
        seconds = random.randint(*_STREAM_SECONDS)  # noqa: S311
        async for kind, obj in watch(self._client, self.resource, self._namespace, self._version, seconds, self._opened):
            self._heard, self._said = time.monotonic(), ""
            if kind != "BOOKMARK":
                self._deliver(kind, obj)
            self._version = obj["metadata"]["resourceVersion"]
