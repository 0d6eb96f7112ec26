"""The quick form of the benchmark: counts of requests, which are exact, and their order. Never times."""

from __future__ import annotations

import pytest

from tests.bench import line_counts
from tests.bench.goals import Figure
from tests.bench.population import check, create
from tests.bench.rig import Rig

COUNT = 100
IDLE_SECONDS = 8.0


@pytest.fixture(scope="module")
def figures(rig: Rig) -> dict[str, Figure]:
    """What 100 services cost, by the figure's name."""
    return {figure.what: figure for figure in line_counts.lines(rig, COUNT, IDLE_SECONDS)}


def _of(figures: dict[str, Figure], beginning: str) -> Figure:
    return next(figure for what, figure in figures.items() if what.startswith(beginning))


@pytest.mark.parametrize(
    "beginning",
    [
        "API writes per resource until settled / minimum",
        "reads per resource until settled",
        "writes and reads per minute when idle",
        "writes after irrelevant changes",
        "writes at restart with nothing changed",
    ],
)
def test_no_request_too_many(figures: dict[str, Figure], beginning: str) -> None:
    figure = _of(figures, beginning)
    assert figure.goal is not None
    assert figure.worst <= figure.goal, f"{figure.what}: {figure.worst:g} instead of {figure.goal:g}: {figure.details}"


def test_nothing_is_refused_while_services_settle(figures: dict[str, Figure]) -> None:
    assert _of(figures, "API writes per resource until settled / minimum").details["refused"] == 0


def test_of_new_services_first_what_pods_need_is_made(rig: Rig) -> None:
    population = rig.prepare(COUNT)
    rig.run(lambda bare: create(bare, population))
    mark = rig.recorder.mark()
    with rig.operator(recorded=True) as operator:
        rig.quiet(operator)
        rig.run(lambda bare: check(bare, population))
    made = [write.target.resource for write in rig.recorder.writes(mark)]
    rig.clear(population)
    last = len(made) - made[::-1].index("deployments")
    assert made[:last].count("networkpolicies") == COUNT
    assert made[:last].count("services") <= COUNT // 4, "those of the last passes, which nobody waits for any more"
