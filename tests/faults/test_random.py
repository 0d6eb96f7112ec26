"""Several faults in one run, drawn by a seed: `make test-faults SEED=7` runs that one alone."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

from tests.faults.case import Ground
from tests.faults.run import Reference, references, report, run_all, verdict
from tests.support.faultproxy_plan import Plan
from tests.support.journal import Target

_SCENARIOS = ("create", "create", "change", "change", "scale", "delete-engine", "delete-both")
_WRITES: tuple[dict[str, Any], ...] = (
    *({"do": "kill-before", "seconds": seconds} for seconds in (0.0, 0.0, 2.0)),
    *({"do": "kill-after", "seconds": seconds} for seconds in (0.0, 0.0, 2.0)),
    *({"do": f"status:{code}"} for code in (401, 403, 404, 409, 500, 503, 504)),
    {"do": "status:429", "retryAfter": 1},
    {"do": "reset-before"},
    {"do": "reset-after"},
    {"do": "slow", "seconds": 1.0},
)
_READS: tuple[dict[str, Any], ...] = tuple(
    {"do": do} for do in ("truncate", "gone", "error-event", "status:410", "status:503", "reset-before")
)
_MANY = 5
_WATCHED = ("llmengines", "llmenginebuilds", "llmservices", "jobs", "pods", "deployments", "persistentvolumeclaims")


def drawn(seed: int, points: list[tuple[Target, int]]) -> list[dict[str, Any]]:
    """Rules of a plan: two to six writes, and up to two watches after the first restart."""
    chance = random.Random(seed)
    points = sorted(points, key=str)  # they are found in no fixed order
    rules = []
    for target, nth in chance.sample(points, min(len(points), chance.randint(2, 6))):
        when: dict[str, Any] = {"verb": target.verb, "resource": target.resource, "nth": nth}
        if target.name:
            when["name"] = target.name
        rules.append({"when": when, **chance.choice(_WRITES)})
    watched = chance.sample(_WATCHED, chance.randint(0, 2))
    whens = [{"verb": "watch", "resource": resource, "times": chance.randint(1, 3)} for resource in watched]
    return [*rules, *({"when": when, **chance.choice(_READS)} for when in whens)]


def _seeds() -> list[int]:
    if given := os.environ.get("FAULTS_SEED"):
        return [int(given)]
    first = int(os.environ.get("FAULTS_FIRST", "1"))
    return list(range(first, first + int(os.environ.get("FAULTS_SEEDS", "20"))))


def test_drawn_faults(ground: Ground, reference: Callable[[str], Reference]) -> None:
    began = time.monotonic()
    scenarios = {seed: random.Random(seed).choice(_SCENARIOS) for seed in _seeds()}
    work = []
    for seed, known in zip(scenarios, references(reference, scenarios.values()), strict=True):
        work.append((known, Plan(drawn(seed, known.points))))
    runs = run_all(ground, work)
    for seed, run in zip(scenarios, runs, strict=True):
        run.problems = [f"SEED={seed}: {problem}" for problem in run.problems]
    report("drawn", runs, seeds=len(runs), wall=round(time.monotonic() - began))
    verdict(runs)
    assert any(run.hits for run in runs) or len(runs) < _MANY, "one plan may meet nothing, but not all of them"
