"""How time and memory grow with the number of resources."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from tests.bench import machine
from tests.bench.goals import Figure
from tests.bench.line_restart import restart
from tests.bench.line_settle import settle
from tests.bench.rig import Rig
from tests.cluster.progress import say

GOAL = 1.1
RSS_GOALS = {0: 70.0, 300: 100.0, 3000: 250.0}


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Slope of the line through the logarithms, by least squares."""
    xs, ys = [math.log(size) for size in sizes], [math.log(value) for value in seconds]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def lines(rig: Rig, sizes: Sequence[int]) -> Iterator[Figure]:
    """Exponents of settling and of start-up."""
    settling, starting, rss = [], [], []
    for size in sizes:
        population = rig.prepare(size)
        settled = settle(rig, population)
        started = restart(rig, population)
        settling.append(settled.seconds)
        starting.append(started[0])
        rss.append(settled.rss)
        say(f"    {size} resources: settled in {settled.seconds:.2f} s, verified {started[0]:.2f} s after the start, {settled.rss:.0f} MB")
        rig.clear(population)
    details = {"sizes": list(sizes), "rss_mb": rss}
    text = ", ".join(map(str, sizes))
    for what, seconds in (("settling", settling), ("start-up", starting)):
        found = exponent(sizes, seconds)
        yield Figure("growth", f"growth exponent of {what} over {text}", (found,), goal=GOAL, details={**details, "seconds": seconds})


def memory(rig: Rig, sizes: Sequence[int] = tuple(RSS_GOALS)) -> Iterator[Figure]:
    """Resident memory after so many resources were made, their children included."""
    for size in sizes:
        if size == 0:
            with rig.operator() as operator:
                figure = machine.rss(operator.pid)
        else:
            population = rig.prepare(size)
            figure = settle(rig, population).rss
            rig.clear(population)
        yield Figure("memory", f"RSS with {size} resources", (figure,), unit="MB", goal=RSS_GOALS.get(size))
