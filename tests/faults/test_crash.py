"""The operator is killed before and after each of its writes, every one found by an undisturbed run. Faults 1 and 2."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.faults.case import Ground
from tests.faults.run import Reference, references, report, run_all, something_met, verdict
from tests.faults.scenarios import DISTURBED
from tests.support.faultproxy_plan import batches

_CHILDREN = ("jobs", "llmenginebuilds", "persistentvolumeclaims", "deployments", "configmaps", "llmengines/status", "llmservices/status")
_DOWN_SECONDS = 4.0
"""Long enough for a Job to end, and for what it made to be waited for."""
_AT_ONCE = 6
"""Points in one run, one after the other. A failure names the plan that shows it, whose rules can be taken away one by one."""

# A write about the same thing may come once less in another order of things (two changes of a status become one), so a few points are
# not there in each run. That is no failure, but most must be.
_LEAST_REACHED = 0.9


def test_killed_at_every_write(ground: Ground, reference: Callable[[str], Reference]) -> None:
    """Faults 1 and 2. What is not reached in the company of others is tried once more by itself."""
    began = time.monotonic()
    work = [
        (known, plan)
        for known in references(reference, DISTURBED)
        for how in ("kill-before", "kill-after")
        for plan in batches(known.steps, _AT_ONCE, how)
    ]
    wanted = sum(len(plan.rules) for _, plan in work)
    runs = run_all(ground, work)
    again = [(known, missed) for (known, _), run in zip(work, runs, strict=True) if not run.problems for missed in run.plan.missed()]
    runs += run_all(ground, again)
    reached = sum(run.hits for run in runs)
    report("crash", runs, points=wanted, reached=reached, wall=round(time.monotonic() - began))
    verdict(runs)
    something_met(runs, DISTURBED)
    assert all(run.restarts <= run.hits and (run.restarts > 0) == (run.hits > 0) for run in runs), "each fault killed the operator"
    assert reached >= _LEAST_REACHED * wanted, f"only {reached} of {wanted} points; not: {[r.plan.dump() for r in runs if not r.hits]}"


def test_killed_and_away_for_a_while(ground: Ground, reference: Callable[[str], Reference]) -> None:
    """What was started ends while there is no operator: its first write about each child, and its last status of each resource. Fault 2."""
    began = time.monotonic()
    names, work = ("create", "change", "delete-engine"), []
    for known in references(reference, names):
        last = dict(known.points)
        chosen = [(t, n) for t, n in known.points if t.resource in _CHILDREN and (n == last[t] or not t.resource.endswith("/status"))]
        work += [(known, plan) for plan in batches(chosen, 3, "kill-after", seconds=_DOWN_SECONDS)]
    runs = run_all(ground, work)
    report("away", runs, points=sum(len(plan.rules) for _, plan in work), wall=round(time.monotonic() - began))
    verdict(runs)
    something_met(runs, names)
