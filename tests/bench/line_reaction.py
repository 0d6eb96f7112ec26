"""From the create of a service to its first child, as an independent watch sees it, beside the create itself. See `line_growth` for bursts."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.goals import Figure, percentile
from tests.bench.load import reaction
from tests.bench.rig import Rig

LINE = "reaction"
GOAL = 5.0
_PER_SECOND = 10.0


def lines(rig: Rig, *, samples: int, repetitions: int) -> Iterator[Figure]:
    """Ten a second, so many in a row, on an operator that has nothing else to do."""
    population = rig.prepare(samples * repetitions)
    items, rounds = population.names, []
    with rig.operator() as operator:
        for number in range(repetitions):
            rounds.append(reaction(rig, population, _PER_SECOND, items[number * samples : (number + 1) * samples]))
            rig.quiet(operator)
    rig.clear(population)
    details = {
        "created_p99_seconds": [percentile(found.created, 99) for found in rounds],
        "reacted_p99_seconds": [percentile(found.reacted, 99) for found in rounds],
        "samples": samples,
    }
    what = f"p99 create -> first child / p99 of the same creates, idle ({_PER_SECOND:.0f} a second)"
    yield Figure(LINE, what, tuple(found.ratio for found in rounds), goal=GOAL, details=details)
