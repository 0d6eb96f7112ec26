"""How time and memory grow with the number of resources, and what a burst waits for.

One operator settles all of them, in bursts: between two of them, when it is idle, another one is started beside it, which measures the
start-up. The smallest number is measured in a population of its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.bench import machine
from tests.bench.goals import Figure, percentile
from tests.bench.line_restart import restart
from tests.bench.line_settle import settle
from tests.bench.load import Reaction, reaction
from tests.bench.population import Population
from tests.bench.rig import Rig
from tests.cluster.progress import say

GOAL = 1.1
BURST_GOAL = 20.0
RSS_GOALS = {0: 70.0, 300: 100.0, 3000: 250.0}


@dataclass(frozen=True)
class _Size:
    """So many services settled."""

    services: int
    settled: float
    """Seconds in all."""
    started: float
    """Seconds of a start."""
    rss: float
    """MB of the operator that settled them."""
    burst: Reaction


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Slope of the line through the logarithms, by least squares."""
    xs, ys = [math.log(size) for size in sizes], [math.log(value) for value in seconds]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def _grow(rig: Rig, population: Population, sizes: Sequence[int]) -> Iterator[_Size]:
    """The engines are there from the beginning, since copies can only be made while no operator runs."""
    items, seconds = population.names, 0.0
    with rig.operator() as operator:
        for before, size in itertools.pairwise((0, *sizes)):
            burst = reaction(rig, population, None, items[before:size])
            rig.quiet(operator)
            seconds += rig.witness.seen().last - burst.began
            rss = machine.rss(operator.pid)
            found = _Size(size, seconds, restart(rig, population, services=size)[0], rss, burst)
            say(f"    {size} resources: settled in {found.settled:.2f} s, verified {found.started:.2f} s after a start, {rss:.0f} MB")
            yield found


def lines(rig: Rig, sizes: Sequence[int]) -> Iterator[Figure]:
    """Exponents of settling and of start-up; memory; reactions to the bursts. The largest population is left in the cluster."""
    small = rig.prepare(sizes[0])
    grown = [*_grow(rig, small, sizes[:1])]
    rig.clear(small)
    grown += _grow(rig, rig.prepare(sizes[-1]), sizes[1:])
    services = [size.services for size in grown]
    text = ", ".join(map(str, services))
    for what, seconds in (("settling", [size.settled for size in grown]), ("start-up", [size.started for size in grown])):
        details = {"sizes": services, "seconds": seconds}
        yield Figure("growth", f"growth exponent of {what} over {text}", (exponent(services, seconds),), goal=GOAL, details=details)
    for size in grown:
        yield Figure("growth", f"RSS with {size.services} resources", (size.rss,), unit="MB", goal=RSS_GOALS.get(size.services))
    bursts = [size.burst for size in grown[1:]]
    details = {
        "created_p99_seconds": [percentile(burst.created, 99) for burst in bursts],
        "reacted_p99_seconds": [percentile(burst.reacted, 99) for burst in bursts],
    }
    what = f"p99 create -> first child / p99 of the same creates, under bursts of {len(bursts[0].created)}"
    yield Figure("growth", what, tuple(burst.ratio for burst in bursts), goal=BURST_GOAL, details=details)


def memory(rig: Rig, sizes: Sequence[int] = (0, 300)) -> Iterator[Figure]:
    """Resident memory with none and with few resources, their children included. With many: see `lines`."""
    for size in sizes:
        if size == 0:
            with rig.operator() as operator:
                values = [machine.rss(operator.pid)]
        elif (settled := rig.settled.get(size)) is not None:
            values = [run.rss for run in settled]
        else:
            population = rig.prepare(size)
            values = [settle(rig, population).rss]
            rig.clear(population)
        yield Figure("memory", f"RSS with {size} resources", tuple(values), unit="MB", goal=RSS_GOALS.get(size))
