"""An event loop in a thread of its own, for the parts of the harness that wait for the network."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Self, TypeVar

T = TypeVar("T")
_SECONDS = 30.0


class LoopThread:
    """A context manager."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the loop, and wait for its end. Called from other threads."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Do something in the loop; `cancel` of the result ends it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _rest(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.1)  # transports close a moment after their sessions
