"""What it costs when very many services serve one and the same build, which lists each of them among its owners. For information: no goal."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.goals import Figure
from tests.bench.line_settle import settle
from tests.bench.population import SERVICES_PER_ENGINE
from tests.bench.rig import Rig


def lines(rig: Rig, count: int) -> Iterator[Figure]:
    """All on one engine, and as in all other lines."""
    seconds = []
    for per_engine in (count, SERVICES_PER_ENGINE):
        population = rig.prepare(count, per_engine)
        seconds.append(settle(rig, population).seconds)
        rig.clear(population)
    what = f"{count} services of one engine until settled / of engines with {SERVICES_PER_ENGINE} services each"
    yield Figure("shared", what, (seconds[0] / seconds[1],), details={"seconds": seconds})
