"""A witness: watches a namespace past the fault proxy, so that it sees every version of every object, whoever wrote it, in order."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import aiohttp

from tests.support.faultproxy_loop import LoopThread
from trtllm_operator.kube.resources import BY_KIND, Resource

Json = dict[str, Any]
KINDS = (
    "LLMEngine", "LLMEngineBuild", "LLMService", "Job", "Pod", "PersistentVolumeClaim", "Deployment", "Service", "ConfigMap",
    "PodDisruptionBudget", "NetworkPolicy",
)  # fmt: skip
_RESOURCES = {**{kind: BY_KIND[kind] for kind in KINDS}, "ReplicaSet": Resource("apps/v1", "ReplicaSet", "replicasets")}
_BUFFER = 2**22
_BEGIN_SECONDS = 15.0


@dataclass(frozen=True)
class Seen:
    """One version of one object. Versions of all kinds count in one order."""

    version: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    kind: str
    obj: Json

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, str(self.obj["metadata"]["name"])

    @property
    def uid(self) -> str:
        return str(self.obj["metadata"]["uid"])


class WitnessError(Exception):
    """The witness has missed something, so that it can't be relied on."""


class Witness:
    """A context manager for one namespace."""

    def __init__(self, loop: LoopThread, url: str, token: str, ca: Path, namespace: str) -> None:
        self._loop = loop
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}", "User-Agent": "test-witness"}
        self._tls = ssl.create_default_context(cafile=str(ca))
        self._namespace = namespace
        self._lock = threading.Lock()
        self._seen: list[Seen] = []
        self._now: dict[tuple[str, str], Json] = {}
        self._last = time.monotonic()
        self._tasks: list[Future[None]] = []

    def __enter__(self) -> Self:
        self._loop.run(self._open())
        began = {kind: threading.Event() for kind in _RESOURCES}
        self._tasks = [self._loop.begin(self._watch(kind, event)) for kind, event in began.items()]
        for kind, event in began.items():
            if not event.wait(_BEGIN_SECONDS):
                try:
                    self.check()
                finally:
                    self.__exit__()
                raise WitnessError(f"the watch of {kind} does not begin")
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        self._loop.run(self._session.close())

    async def _open(self) -> None:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=timeout, read_bufsize=_BUFFER)

    async def _watch(self, kind: str, began: threading.Event) -> None:
        resource = _RESOURCES[kind]
        url = self._url + resource.path(self._namespace)
        async with self._session.get(url) as answer:
            first = await answer.json(content_type=None)
            if answer.status != 200:
                raise WitnessError(f"list of {kind}: {first}")
        version = str(first["metadata"]["resourceVersion"])
        for item in first["items"]:
            self._take("ADDED", kind, {"apiVersion": resource.api_version, "kind": kind, **item})  # items of built-in lists don't say it
        while True:
            query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "3000"}
            async with self._session.get(url, params=query) as answer:
                began.set()
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise WitnessError(f"the watch of {kind} ended: {event['object']}")
                    version = event["object"]["metadata"]["resourceVersion"]
                    self._take(event["type"], kind, event["object"])
            await asyncio.sleep(0)

    def _take(self, how: Literal["ADDED", "MODIFIED", "DELETED"], kind: str, obj: Json) -> None:
        obj["metadata"].pop("managedFields", None)
        seen = Seen(int(obj["metadata"]["resourceVersion"]), how, kind, obj)
        with self._lock:
            self._seen.append(seen)
            self._last = time.monotonic()
            if how == "DELETED":
                self._now.pop(seen.key, None)
            else:
                self._now[seen.key] = obj

    def quiet_seconds(self) -> float:
        """How long nothing has changed."""
        self.check()
        return time.monotonic() - self._last

    def check(self) -> None:
        """Raises what ended a watch, if one ended."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    def seen(self, after: int = -1) -> list[Seen]:
        """Everything with a version above this one, in the order in which it happened."""
        self.check()
        with self._lock:
            return sorted((seen for seen in self._seen if seen.version > after), key=lambda seen: seen.version)

    def version(self) -> int:
        """The newest version seen."""
        return max((seen.version for seen in self.seen()), default=0)

    def state(self) -> dict[tuple[str, str], Json]:
        """What there is now."""
        self.check()
        with self._lock:
            return dict(self._now)
