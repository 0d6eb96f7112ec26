"""Which lines there are, in which order, and how much of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.bench import (
    line_counts,
    line_data,
    line_failover,
    line_foreign,
    line_growth,
    line_neighbour,
    line_profile,
    line_reaction,
    line_restart,
    line_settle,
    line_shared,
    line_start,
)
from tests.bench.goals import Figure
from tests.bench.rig import Rig


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    repetitions: int = 5
    settle: tuple[int, ...] = (300, 1000)
    many: int = 1000
    growth: tuple[int, ...] = (500, 1000, 2000, 3000, 4000)
    memory: tuple[int, ...] = (0, 300)
    foreign: int = 5000
    idle_seconds: float = 60.0
    samples: int = 200
    failovers: int = 3
    data: int = 10 * 10**9


SMALL = Size(
    repetitions=2,
    settle=(20, 40),
    many=40,
    growth=(20, 40, 80, 120),
    memory=(0, 40),
    foreign=100,
    idle_seconds=5.0,
    samples=20,
    failovers=1,
    data=512 * 10**6,
)
"""To see that the benchmark itself works. Its times mean nothing."""

Lines = Callable[[], Iterator[Figure]]


def alone(size: Size) -> dict[str, Lines]:
    """Lines that need no cluster."""
    return {
        "start": lambda: line_start.start(2 * size.repetitions),
        "render": lambda: line_start.pure(size.repetitions),
        "data-path": lambda: line_data.lines(size.data, min(3, size.repetitions)),
    }


def with_cluster(rig: Rig, size: Size) -> dict[str, Lines]:
    """All others. What one measures by the way the next does not measure again, and the last two leave the cluster full."""
    settle = {f"settle-{count}": (lambda count=count: line_settle.lines(rig, count, size.repetitions)) for count in size.settle}
    return {
        "counts": lambda: line_counts.lines(rig, size.many, size.idle_seconds, size.repetitions),
        "restart": lambda: line_restart.lines(rig, size.many, size.repetitions),
        **settle,
        "shared": lambda: line_shared.lines(rig, size.settle[0]),
        "memory": lambda: line_growth.memory(rig, size.memory),
        "reaction": lambda: line_reaction.lines(rig, samples=size.samples, repetitions=min(3, size.repetitions)),
        "neighbour": lambda: line_neighbour.lines(rig, failing=size.many, repetitions=size.repetitions),
        "failover": lambda: line_failover.lines(rig, size.failovers),
        "profile": lambda: line_profile.lines(rig, size.settle[0]),
        "growth": lambda: line_growth.lines(rig, size.growth),
        "foreign": lambda: line_foreign.lines(rig, size.foreign, min(20.0, size.idle_seconds)),
    }


ON_REQUEST = ("restart", "profile")
"""Measured only where they are asked for: the one is part of `counts`, and the other costs time itself."""

NAMES = (
    *alone(Size()),
    "counts",
    "restart",
    "settle-300",
    "settle-1000",
    "shared",
    "memory",
    "reaction",
    "neighbour",
    "failover",
    "profile",
    "growth",
    "foreign",
)
