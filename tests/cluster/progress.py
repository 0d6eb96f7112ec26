"""Plain progress lines: what is going on, and how long it took."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_HEARTBEAT_SECONDS = 30.0


def say(text: str) -> None:
    """One line for the person who waits; stdout is left to results."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Announce `what`, repeat every half minute that it goes on, and say at its end how long it took."""
    start = time.monotonic()
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_HEARTBEAT_SECONDS):
            say(f"    ... {what} ({time.monotonic() - start:.0f} s)")

    say(f"==> {what}")
    thread = threading.Thread(target=beat, name="progress", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        say(f"    failed after {time.monotonic() - start:.1f} s: {what}")
        raise
    else:
        say(f"    done in {time.monotonic() - start:.1f} s: {what}")
    finally:
        done.set()
        thread.join()
