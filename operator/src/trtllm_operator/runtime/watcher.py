"""kopf's watch streams, in a thread with an event loop of their own.

kopf ends its run on some answers of the API server (404 while a CRD is replaced, refused credentials), and at its end it cancels every
task of its event loop that is younger than itself. Here that ends a thread, which is started again; passes never notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import kopf

from trtllm_operator.kube.resources import Resource
from trtllm_operator.runtime.handlers import Began, Deliver, Handlers

_log = logging.getLogger(__name__)

_LONGEST_SECONDS = 10.0  # after an outage, nobody waits longer for the first event
_STOP_SECONDS = 2.0
_CANCEL_SECONDS = 0.1
_SILENT_SECONDS = 60.0
_BATCH = 200  # events taken in between two looks at other work

Told = tuple[str | None, dict[str, Any]] | str
"""An event's type and object, or a kind whose watch began."""


class EndlessBackoffs:
    """Delays before a request is tried again, without end. An object, because kopf iterates it anew for each request."""

    def __init__(self, first: float = 0.5, longest: float = _LONGEST_SECONDS) -> None:
        self._first = first
        self._longest = longest

    def __iter__(self) -> Iterator[float]:
        delay = self._first
        while True:
            yield delay * (0.75 + 0.5 * random.random())  # noqa: S311 - jitter, no secret
            delay = min(delay * 2, self._longest)


class NoEssence(kopf.DiffBaseStorage):
    """kopf copies each object deeply to compare it with what was handled last. Nothing here asks for that."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:  # noqa: ARG002
        """Nothing to compare."""
        return {}

    def fetch(self, *, body: Any) -> Any:  # noqa: ARG002
        """Nothing was handled."""
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        """Nothing is kept."""


def watch_settings(resources: Iterable[Resource]) -> kopf.OperatorSettings:
    """Make kopf a pure reader: no peering, no scanning, no posting, no annotation, no end."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.persistence.finalizer = "trtllm.dev/unused"
    settings.persistence.diffbase_storage = NoEssence()
    settings.networking.error_backoffs = EndlessBackoffs()
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.enforce_retry_after = True
    settings.watching.connect_timeout = 5
    settings.watching.chunk_size = 500
    settings.queueing.idle_timeout = 1
    settings.queueing.exit_timeout = 0.5
    settings.process.ultimate_exiting_timeout = None  # the process ends itself, see runtime.main
    for resource in resources:
        if resource.selector:
            settings.watching.label_selectors[resource.group, resource.version, resource.plural] = resource.selector
    return settings


class Run:
    """One run of kopf in a thread of its own."""

    def __init__(self, resources: Sequence[Resource], namespaces: Sequence[str], tell: Callable[[Told], None]) -> None:
        self.handlers = Handlers(resources, lambda kind, obj: tell((kind, obj)), tell, lambda: self._set(self.ending))
        self.ending = asyncio.Event()
        """It watches nothing any more: one error event in one watch is enough. Its end may come late or never."""
        self.ended = asyncio.Event()
        self.error: Exception | None = None
        self.started = time.monotonic()
        self._settings = watch_settings(resources)
        self._namespaces = namespaces
        self._outer = asyncio.get_running_loop()
        self._inner: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._told_to_stop = threading.Event()
        threading.Thread(target=self._run, name="watches", daemon=True).start()

    def stop(self) -> None:
        """Ask kopf to end."""
        self._told_to_stop.set()
        inner, stop = self._inner, self._stop
        if inner is not None and stop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended just now
                inner.call_soon_threadsafe(stop.set)

    def cancel(self) -> None:
        """Cancel all that runs in it. kopf does not end while a request of it waits for credentials that nobody brings any more."""
        if self._inner is not None:
            with contextlib.suppress(RuntimeError):
                self._inner.call_soon_threadsafe(_cancel_all, self._inner)

    def _run(self) -> None:
        try:
            asyncio.run(self._watch())
        except asyncio.CancelledError:
            pass
        except Exception as error:  # noqa: BLE001 - whatever ended kopf, the supervisor says it and starts another run
            self.error = error
        self._set(self.ended)

    def _set(self, event: asyncio.Event) -> None:
        with contextlib.suppress(RuntimeError):  # the process is at its end
            self._outer.call_soon_threadsafe(event.set)

    async def _watch(self) -> None:
        self._stop = asyncio.Event()
        self._inner = asyncio.get_running_loop()
        # When kopf ends in the middle of a request, its own callbacks trip over each other; what matters is that it ends.
        self._inner.set_exception_handler(lambda _, context: _log.debug("in kopf: %s", context.get("message")))
        if self._told_to_stop.is_set():
            return
        await kopf.operator(
            registry=self.handlers.registry,
            settings=self._settings,
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=self._stop,
        )


class Watcher:
    """Keeps kopf running. `deliver` and `began` are called in the event loop that `run` runs in."""

    def __init__(
        self, resources: Sequence[Resource], namespaces: Sequence[str], deliver: Deliver, began: Began, gave_up: Callable[[], None]
    ) -> None:
        """`gave_up` is called when the watches have ended by themselves, before they are started anew."""
        self._gave_up = gave_up
        self._resources = resources
        self._namespaces = tuple(namespaces)
        self._deliver = deliver
        self._began = began
        self._current: Run | None = None
        self._again = asyncio.Event()
        self._told: deque[Told] = deque()
        self._scheduled = False
        self._lock = threading.Lock()

    async def run(self) -> None:
        """Run kopf, again and again, until cancelled."""
        self._loop = asyncio.get_running_loop()
        delays = iter(EndlessBackoffs())
        try:
            while True:
                self._again.clear()
                run = self._current = Run(self._resources, self._namespaces, self._hand_over)
                await _first(run.ended, run.ending, self._again)
                by_itself = not self._again.is_set()
                if not await self._end(run):
                    _log.error("the watches do not end; leaving them behind")
                if by_itself:
                    _log.warning("the watches ended by themselves and are started again%s", f": {run.error!r}" if run.error else "")
                    self._gave_up()
                if time.monotonic() - run.started > _LONGEST_SECONDS:
                    delays = iter(EndlessBackoffs())
                await asyncio.sleep(next(delays))
        finally:
            if self._current is not None:
                await self._end(self._current)

    def restart(self) -> None:
        """End kopf's present run and start another."""
        self._again.set()

    def silent(self) -> set[str]:
        """Kinds that nobody has watched for a minute: kopf leaves out what the API server does not know, or is stuck."""
        run = self._current
        return {kind for kind, seconds in run.handlers.silent().items() if seconds > _SILENT_SECONDS} if run is not None else set()

    def unwatched(self, kind: str) -> bool:
        """Whether the kind has no open watch at this moment."""
        run = self._current
        return run is None or kind in run.handlers.silent()

    async def _end(self, run: Run) -> bool:
        for ask in (run.stop, run.cancel):
            ask()
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await run.ended.wait()
            except TimeoutError:
                continue
            return True
        return False

    def _hand_over(self, told: Told) -> None:
        """In a thread of watches: an event, or a kind whose watch began."""
        with self._lock:
            self._told.append(told)
            if self._scheduled:
                return
            self._scheduled = True
        with contextlib.suppress(RuntimeError):  # the process is at its end
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        """In the operator's event loop."""
        for _ in range(_BATCH):
            with self._lock:
                if not self._told:
                    self._scheduled = False
                    return
                told = self._told.popleft()
            if isinstance(told, str):
                self._began(told)
            else:
                self._deliver(*told)
        self._loop.call_soon(self._drain)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel every task, again and again: kopf's own take a first cancellation for a request to wait for something else."""
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.call_later(_CANCEL_SECONDS, _cancel_all, loop)


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
