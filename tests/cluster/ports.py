"""Ports for programs that bind them only when they have started, which takes seconds: what the kernel calls free now is somebody else's by then."""

from __future__ import annotations

import atexit
import itertools
import os
import socket
import threading
from functools import cache

_FIRST, _BLOCKS, _EACH = 10_000, 100, 200
"""Below what the kernel gives to those who ask for any port (by default from 32768 on), and below what Services of a cluster take."""


class _Block:
    """Ports of this process alone, as long as it lives: it holds the first of them, and gives the others in turn."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        for number in range(os.getpid(), os.getpid() + _BLOCKS):
            first = _FIRST + number % _BLOCKS * _EACH
            if guard := _bound(first):
                atexit.register(guard.close)
                self._others = itertools.cycle(range(first + 1, first + _EACH))
                return
        raise OSError(f"every one of {_BLOCKS} blocks of ports from {_FIRST} on is taken")

    def free(self, count: int) -> list[int]:
        found: list[int] = []
        with self._lock:
            for port in itertools.islice(self._others, _EACH - 1):
                if len(found) == count:
                    break
                if probe := _bound(port):
                    probe.close()
                    found.append(port)
        if len(found) < count:
            raise OSError(f"only {len(found)} of the {_EACH - 1} ports of this process are free, and {count} are asked for")
        return found


_block = cache(_Block)


def _bound(port: int) -> socket.socket | None:
    """A socket that holds this port of every address, or None where somebody has it."""
    one = socket.socket()
    try:
        one.bind(("", port))
    except OSError:
        one.close()
        return None
    return one


def free_ports(count: int) -> list[int]:
    """Ports that nobody holds, and that neither the kernel nor another process of ours gives to anybody else."""
    return _block().free(count)
