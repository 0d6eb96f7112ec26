"""Waiting for a condition, with a deadline and a message that says what was waited for and what was seen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.05


def eventually(look: Callable[[], T], *, what: str, seconds: float = 30.0, every: float = _POLL_SECONDS) -> T:
    """Call `look`, `every` so many seconds, until it returns something true, and return that.

    Raises:
        AssertionError: it did not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:.0f} s; last seen: {seen!r}")
        pause.wait(every)


def unchanging(look: Callable[[], T], *, what: str, seconds: float = 240.0, every: float = 5.0) -> T:
    """Call `look`, `every` so many seconds, until it gives the same twice, and return that.

    For what others still work on: with their default limits, Kubernetes' controllers are busy with 300 Deployments for more than a minute.

    Raises:
        AssertionError: it did not within `seconds`.
    """
    seen = [look()]

    def same() -> bool:
        seen.append(look())
        return bool(seen[-1] == seen[-2])

    eventually(same, what=what, seconds=seconds, every=every)
    return seen[-1]


def nothing_for(seconds: float, look: Callable[[], object], *, what: str, every: float = 0.5) -> None:
    """Assert that `look` returns nothing (empty, zero, None) all the time.

    Raises:
        AssertionError: at the first time that it returns something; says what.
    """
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while time.monotonic() < deadline:
        seen = look()
        assert not seen, f"{what}: seen {seen!r}"
        pause.wait(every)
