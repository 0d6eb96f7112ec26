"""Every write, and every read by name, is answered badly once, in one run for each answer. Faults 5 to 8 and 10.

Whatever the answer was, the operator has to try again by itself: nothing else tells it that the write was lost. And what it
could not read it must not take for what it hoped to read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.faults.case import Ground
from tests.faults.run import Reference, references, report, run_all, something_met, verdict
from tests.faults.scenarios import DISTURBED
from tests.support.faultproxy_plan import Plan, each_request

ANSWERS: dict[str, dict[str, Any]] = {
    "status:409": {},
    "status:500": {},
    "status:503": {},
    "status:504": {},
    "status:429": {"retryAfter": 1},
    "status:401": {},
    "status:403": {},
    "status:404": {},
    "reset-before": {},
    "reset-after": {},
}


def test_each_request_fails_once(ground: Ground, reference: Callable[[str], Reference]) -> None:
    """Faults 5, 6, 7, 8 and 10."""
    began = time.monotonic()
    all_of_them = references(reference, DISTURBED)
    work = [(known, each_request(do, **more)) for known in all_of_them for do, more in ANSWERS.items()]
    runs = run_all(ground, work)
    report("answers", runs, answers=len(ANSWERS), wall=round(time.monotonic() - began))
    verdict(runs)
    assert all(run.restarts == 0 for run in runs)
    something_met(runs, DISTURBED)
    for (known, plan), run in zip(work, runs, strict=True):
        assert run.hits > 0 or not known.sure, f"{plan.dump()} hit nothing in {run.scenario}"


def test_what_cannot_be_read_is_not_written_about(ground: Ground, reference: Callable[[str], Reference]) -> None:
    """Fault 8. A deletion that is not told, and that can't be found out: nothing of what goes may be made again, not even an owner of a build."""
    known = reference("delete-service-untold")
    runs = run_all(
        ground, [(known, Plan([{"when": {"verb": "get", "times": 0}, "do": do}])) for do in ("status:403", "status:503", "reset-before")]
    )
    report("unreadable", runs)
    verdict(runs)
    something_met(runs, [known.run.scenario])
    for run in runs:
        written = {target.resource for target, _ in run.points}
        assert written <= {"llmservices/status", "events"}, f"{run.plan.dump()}: {sorted(written)}"
