"""What it costs when very many services serve one and the same build, which lists each of them among its owners. For information: no goal."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.goals import Figure
from tests.bench.line_settle import settle
from tests.bench.population import SERVICES_PER_ENGINE
from tests.bench.rig import Rig


def lines(rig: Rig, count: int) -> Iterator[Figure]:
    """All on one engine, beside as in all other lines."""

    def seconds(per_engine: int) -> float:
        population = rig.prepare(count, per_engine)
        settled = settle(rig, population)
        rig.clear(population)
        return settled.seconds

    known = [run.seconds for run in rig.settled.get(count, ())] or [seconds(SERVICES_PER_ENGINE)]
    shared = seconds(count)
    what = f"{count} services of one engine until settled / of engines with {SERVICES_PER_ENGINE} services each"
    yield Figure("shared", what, tuple(shared / other for other in known), details={"shared": shared, "others": known})
