"""Watches and lists that lie, break or say nothing. Faults 11, 12, 13, 15 and 16."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.faults.case import Case, Ground
from tests.faults.run import Reference, report, run_all, verdict
from tests.faults.scenarios import SCENARIOS, create, scale, scaled, serving
from tests.support.faultproxy_plan import Plan
from tests.support.samples import engine

_WATCHED = ("llmengines", "llmenginebuilds", "llmservices", "jobs", "pods", "deployments", "services", "persistentvolumeclaims")


def _each(do: str, verb: str = "watch", **more: Any) -> Plan:
    """The next three watches (or lists) of each kind."""
    return Plan([{"when": {"verb": verb, "resource": resource, "times": 3}, "do": do, **more} for resource in _WATCHED])


_HELD = ((1, 4), (3, 8), (6, 40))
PLANS: dict[str, Callable[[], Plan]] = {
    "truncated events": lambda: _each("truncate"),
    "410 in the stream": lambda: _each("gone"),
    "410 as answer": lambda: _each("status:410"),
    "an error event that is no 410": lambda: _each("error-event"),
    "503 for a watch": lambda: _each("status:503"),
    "429 for a watch": lambda: _each("status:429", retryAfter=1),
    "500 for a list": lambda: _each("status:500", verb="list"),
    "truncated lists": lambda: _each("truncate", verb="list"),
    **{f"events from {first} on come late": partial(_each, "hold", first=first, count=count) for first, count in _HELD},
    **{f"events from {first} on come as their sum": partial(_each, "hold", first=first, count=count, net=True) for first, count in _HELD},
    "slow writes": lambda: Plan([{"when": {"verb": "write", "times": 0}, "do": "slow", "seconds": 0.5}]),
}


def test_create_and_roll_with_bad_watches(ground: Ground, reference: Callable[[str], Reference]) -> None:
    """Faults 11, 12, 13, 15 and 16. The plan is armed before the operator starts, so its first lists and watches are hit."""
    known = reference("create")
    runs = run_all(ground, [(known, make()) for make in PLANS.values()], armed_first=True)
    for what, done in zip(PLANS, runs, strict=True):
        done.problems = [f"{what}: {problem}" for problem in done.problems]
    report("watches", runs, plans=len(PLANS))
    verdict(runs)
    assert all(run.hits > 0 for run in runs), "each plan hit something"


def test_what_comes_and_goes_unseen_is_as_if_it_had_not_been(ground: Ground) -> None:
    """Fault 15."""
    with Case(ground, "faults-unseen") as case:
        unseen = {"verb": "watch", "resource": "llmengines"}
        case.arm(Plan([{"when": unseen, "do": "hold", "count": 2, "seconds": 60.0, "net": True}]))
        case.start()
        case.wait(lambda: case.proxy.hits, what="the watch is open")
        case.api.create(engine("brief", case.namespace))
        case.api.delete("LLMEngine", "brief", case.namespace)
        create(case)
        case.settle(lambda: serving(case), what="serving")
        assert not [entry for entry in case.journal.tried() if entry.name.startswith("brief")]


@pytest.mark.slow
def test_watches_that_fall_silent(ground: Ground) -> None:
    """Fault 12. No event comes any more, and no end either. What the operator learns by its own writes it misses in the watch, and starts anew."""
    assert SCENARIOS
    with Case(ground, "faults-silent", RELIST_SECONDS="20") as case:
        case.arm(Plan([{"when": {"verb": "watch", "resource": resource, "times": 1}, "do": "silent"} for resource in _WATCHED]))
        case.start()
        create(case)
        case.settle(lambda: serving(case), what="serving by lists alone, or by watches that were started anew", seconds=240)
        assert case.proxy._plan.hits == len(_WATCHED)
        scale(case)
        case.settle(lambda: scaled(case), what="scaled", seconds=120)
