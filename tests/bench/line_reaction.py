"""From the create of a service to its first child, as an independent watch sees it, beside the create itself."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.goals import Figure, percentile
from tests.bench.load import reaction
from tests.bench.rig import Rig

LINE = "reaction"
IDLE_GOAL, BURST_GOAL = 5.0, 20.0
_PER_SECOND = 10.0


def lines(rig: Rig, *, idle: int, burst: int, repetitions: int) -> Iterator[Figure]:
    """Ten a second, and all at once."""
    for what, count, rate, goal in (
        (f"idle ({_PER_SECOND:.0f} a second)", idle, _PER_SECOND, IDLE_GOAL),
        (f"under a burst of {burst}", burst, None, BURST_GOAL),
    ):
        ratios, created, reacted = [], [], []
        for _ in range(repetitions):
            population = rig.prepare(count)
            with rig.operator() as operator:
                found = reaction(rig, population, rate)
                rig.quiet(operator)
            rig.clear(population)
            created.append(percentile(found.created, 99))
            reacted.append(percentile(found.reacted, 99))
            ratios.append(reacted[-1] / created[-1])
        yield Figure(
            LINE,
            f"p99 create -> first child / p99 of the same creates, {what}",
            tuple(ratios),
            goal=goal,
            details={"created_p99_seconds": created, "reacted_p99_seconds": reacted, "samples": count},
        )
