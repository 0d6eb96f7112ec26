"""SIGTERM: it reaches the program that runs, if one does, and ends the stage with a report."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType


class Stop:
    """Whether the pod is being removed.

    Args:
        leave: is called where no program runs that the signal could be passed on to; it ends the process. Everything that a
            stage writes is put in place by rename, so it may end anywhere.
    """

    def __init__(self, leave: Callable[[], None] = lambda: None) -> None:
        self.requested = False
        self._leave = leave
        self._group: int | None = None

    def install(self) -> None:
        """Take SIGTERM and SIGINT; process 1 of a container gets neither without a handler."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def over(self) -> None:
        """From now on only the report is left to write: signals are too late."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.requested = True
        if self._group is None:
            self._leave()
        else:
            self.signal_group(signal.SIGTERM)

    def signal_group(self, number: int) -> None:
        """Signal the program that runs and all that it started."""
        if self._group is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, number)

    @contextlib.contextmanager
    def passed_on_to(self, group: int) -> Iterator[None]:
        """While this lasts, signals go to a process group."""
        self._group = group
        try:
            yield
        finally:
            self._group = None
