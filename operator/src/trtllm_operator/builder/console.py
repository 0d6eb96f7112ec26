"""The log: output of programs, passed through, and progress lines, which never break into one another."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable

from trtllm_operator.builder.redact import Redactor

PROGRESS = "trtllm-progress "
INTERVAL = 1.0
"""Seconds between two progress lines at least."""

_lock = threading.Lock()


def write(data: bytes) -> None:
    """Write whole lines to the log. A log that nobody reads any more is no reason to fail."""
    with _lock:
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError:
            return


class Progress:
    """Progress of one stage: percent only rises, and a line is written only if it says something new."""

    def __init__(self, stage: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._stage = stage
        self._clock = clock
        self._redactor = Redactor(os.environ)
        self._percent = 0
        self._last: tuple[int, str, int | None] | None = None
        self._next = 0.0

    def update(self, percent: float, message: str, eta: float | None = None) -> None:
        """Say how far it is.

        Args:
            percent: 0 to 100; a lower value than before counts as the value before.
            message: what is being done, short.
            eta: seconds that are left, where that can be known.
        """
        now = self._clock()
        with _lock:
            self._percent = max(self._percent, min(100, math.floor(percent)))
            said = (self._percent, message, None if eta is None else math.ceil(eta))
            if said == self._last or now < self._next:
                return
            self._last, self._next = said, now + INTERVAL
        line = {"stage": self._stage, "percent": said[0], "message": self._redactor.text(message)}
        if said[2] is not None:
            line["eta"] = said[2]
        write(f"{PROGRESS}{json.dumps(line)}\n".encode())


class Rate:
    """Estimates the time that is left from the bytes done since the start."""

    def __init__(self, total: int, done: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._from = done
        self._clock = clock
        self._started = clock()

    def eta(self, done: int) -> float | None:
        """Seconds that are left; None while nothing can be said."""
        gained, spent = done - self._from, self._clock() - self._started
        return None if gained <= 0 or spent < INTERVAL else max(0.0, (self._total - done) * spent / gained)


class Advance:
    """Counts bytes of several threads and says how far it is."""

    def __init__(self, progress: Progress, total: int, what: str, span: tuple[float, float]) -> None:
        self._progress = progress
        self._total = max(total, 1)
        self._what = what
        self._from, self._to = span
        self._rate = Rate(self._total)
        self._done = 0
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        with self._lock:
            self._done += count
            done = self._done
        self._progress.update(self._from + (self._to - self._from) * done / self._total, self._what, self._rate.eta(done))
