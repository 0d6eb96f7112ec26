"""Reads that no watch can replace, only while something runs or hangs: the progress in the log of a stage's pod, and the newest warning
about what does not start. Where nothing runs, nothing is read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from trtllm_operator.desired.jobs import CONTAINER
from trtllm_operator.kube import reads
from trtllm_operator.kube.client import Client
from trtllm_operator.kube.errors import ApiError
from trtllm_operator.observe import index
from trtllm_operator.observe.hints import HintBook, parse_progress
from trtllm_operator.observe.refs import Obj, Ref, nested, ref_of, uid_of
from trtllm_operator.observe.routes import roots_of
from trtllm_operator.observe.store import Store

_log = logging.getLogger(__name__)

PERIOD = 3.0
_JOB_SECONDS = 5.0  # a Job's first pod is usually there within one
_POD_SECONDS = 10.0
_WARNING_SECONDS = (6.0, 120.0)  # between two looks at the same thing that hangs, first and longest
_READS_PER_LOOK = 24
_TOGETHER = 4
_LINES = 200


class Reads(Protocol):
    """Where hints come from."""

    async def log_tail(self, namespace: str, pod: str) -> str:
        """End of the log of a stage's container. Raises ApiError."""

    async def newest_warning(self, namespace: str, uid: str) -> str | None:
        """Message of the newest Warning event about an object. Raises ApiError."""


class ApiReads:
    """Reads from the API server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def log_tail(self, namespace: str, pod: str) -> str:
        """See `kube.reads.log_tail`."""
        return await reads.log_tail(self._client, namespace, pod, CONTAINER, _LINES)

    async def newest_warning(self, namespace: str, uid: str) -> str | None:
        """See `kube.reads.newest_warning`."""
        return await reads.newest_warning(self._client, namespace, uid)


@dataclass(frozen=True)
class Subject:
    """Something to read about."""

    obj: Obj
    about: Literal["progress", "warning"]


class HintPoller:
    """Keeps the hints and tells the queue when one has changed."""

    def __init__(
        self,
        source: Reads,
        store: Store,
        book: HintBook,
        enqueue: Callable[[Ref], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._source = source
        self._store = store
        self._book = book
        self._enqueue = enqueue
        self._clock = clock
        self._now = now
        self._next: dict[str, tuple[float, float]] = {}

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            await asyncio.sleep(PERIOD)
            try:
                await self.look()
            except Exception:  # noqa: BLE001 - hints are never worth the end of the process
                _log.exception("a look for hints ended with an error")

    async def look(self) -> int:
        """Read what is due; returns the number of reads."""
        subjects = list(self.subjects())
        alive = {uid_of(subject.obj) for subject in subjects}
        self._book.keep(alive)
        self._next = {uid: entry for uid, entry in self._next.items() if uid in alive}
        now = self._clock()
        due = [subject for subject in subjects if self._next.get(uid_of(subject.obj), (0.0, 0.0))[0] <= now]
        due.sort(key=lambda subject: self._next.get(uid_of(subject.obj), (0.0, 0.0))[0])
        due = due[:_READS_PER_LOOK]
        limit = asyncio.Semaphore(_TOGETHER)
        await asyncio.gather(*(self._read(subject, limit) for subject in due))
        return len(due)

    def subjects(self) -> Iterator[Subject]:
        """Pods of stages that run; Jobs that get no pod; pods that do not start."""
        for job in self._store.of_kind("Job"):
            if _finished(job) or nested(job, "spec", "suspend"):
                continue
            pods = [pod for pod in self._store.find(index.owned_by(uid_of(job))) if pod["kind"] == "Pod"]
            if not pods and self._age(job) > _JOB_SECONDS:
                yield Subject(job, "warning")
            yield from (Subject(pod, "progress") for pod in pods if _runs(pod))
        for pod in self._store.of_kind("Pod"):
            if nested(pod, "status", "phase") in (None, "Pending") and self._age(pod) > _POD_SECONDS:
                yield Subject(pod, "warning")

    async def _read(self, subject: Subject, limit: asyncio.Semaphore) -> None:
        ref, uid = ref_of(subject.obj), uid_of(subject.obj)
        try:
            async with limit:
                if subject.about == "progress":
                    progress = parse_progress(await self._source.log_tail(ref.namespace, ref.name))
                    news = progress is not None and self._book.set_progress(uid, progress)
                else:
                    news = self._book.set_warning(uid, await self._source.newest_warning(ref.namespace, uid))
        except ApiError as error:
            _log.debug("no hint about %s: %s", ref, error)
            news = False
        first, longest = (0.0, 0.0) if subject.about == "progress" else _WARNING_SECONDS
        before = self._next.get(uid, (0.0, 0.0))[1]
        interval = first if news or not before else min(longest, before * 2)
        self._next[uid] = (self._clock() + interval, interval)
        if news:
            for key in roots_of(self._store, subject.obj):
                self._enqueue(key)

    def _age(self, obj: Obj) -> float:
        created = obj["metadata"].get("creationTimestamp")
        try:
            return (self._now() - datetime.fromisoformat(str(created))).total_seconds()
        except ValueError:
            return 0.0


def _finished(job: Obj) -> bool:
    found = nested(job, "status", "conditions")
    return any(c.get("type") in ("Complete", "Failed") and c.get("status") == "True" for c in found or () if isinstance(c, dict))


def _runs(pod: Obj) -> bool:
    statuses = nested(pod, "status", "containerStatuses")
    return any(s.get("name") == CONTAINER and nested(s, "state", "running") is not None for s in statuses or () if isinstance(s, dict))
