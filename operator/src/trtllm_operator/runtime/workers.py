"""Workers: take a key from the queue, run its pass, tell the queue how it went. Nothing but their end stops them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from trtllm_operator.observe.refs import Ref
from trtllm_operator.runtime.queue import Queue
from trtllm_operator.runtime.reconcile import Outcome

_log = logging.getLogger(__name__)

_PASS_SECONDS = 120.0
"""A pass makes a few requests of at most 30 s; one that lasts longer is given up and tried again."""

Report = Callable[[str, float, str], None]
"""Called after each pass: kind, seconds, problem (`none`)."""


class Workers:
    """A fixed number of passes at the same time."""

    def __init__(self, queue: Queue, run_pass: Callable[[Ref], Awaitable[Outcome]], report: Report, count: int) -> None:
        self._queue = queue
        self._run_pass = run_pass
        self._report = report
        self._count = count
        self._started: dict[int, float] = {}
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()

    def longest_pass(self) -> float:
        """Seconds of the longest pass that still runs."""
        return max((time.monotonic() - started for started in self._started.values()), default=0.0)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._work(number), name=f"worker {number}")

    async def drain(self, seconds: float) -> None:
        """Start nothing new, and give the passes that run some time to end."""
        self._stopping = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            _log.warning("%d passes did not end in time and are cut off; they are made up for after the next start", len(self._started))

    async def _work(self, number: int) -> None:
        while True:
            key = await self._queue.get()
            if self._stopping:
                self._queue.done(key)
                return
            started = self._started[number] = time.monotonic()
            self._idle.clear()
            problem = "none"
            try:
                async with asyncio.timeout(_PASS_SECONDS):
                    outcome = await self._run_pass(key)
                problem = outcome.problem
                if outcome.failed:
                    self._queue.failed(key, outcome.at_least)
                else:
                    self._queue.succeeded(key, outcome.again_after)
                    if outcome.put_off:
                        self._queue.put_off(key)
            except TimeoutError:
                problem = "Timeout"
                delay = self._queue.failed(key)
                _log.warning("%s: the pass took more than %.0f s; again in %.0f s", key, _PASS_SECONDS, delay)
            except Exception as error:  # noqa: BLE001 - one resource must not stop the others
                problem = type(error).__name__
                delay = self._queue.failed(key)
                _log.exception("%s: the pass ended with an error; again in %.0f s", key, delay)
            finally:
                del self._started[number]
                if not self._started:
                    self._idle.set()
                self._queue.done(key)
                self._report(key.kind, time.monotonic() - started, problem)
            await asyncio.sleep(0)  # a pass that had nothing to ask for never waited: the Lease, the watches and the probes want a turn
