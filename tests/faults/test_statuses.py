"""Every write is answered badly once, in one run for each answer. Faults 5 to 8 and 10.

Whatever the answer was, the operator has to try again by itself: nothing else tells it that the write was lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.faults.case import Ground
from tests.faults.run import Reference, references, report, run_all, verdict
from tests.faults.scenarios import SCENARIOS
from tests.support.faultproxy_plan import each_write

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


def test_each_write_fails_once(ground: Ground, reference: Callable[[str], Reference]) -> None:
    """Faults 5, 6, 7, 8 and 10."""
    began = time.monotonic()
    all_of_them = references(reference, SCENARIOS)
    work = [(known, each_write(do, **more)) for known in all_of_them for do, more in ANSWERS.items()]
    runs = run_all(ground, work)
    report("answers", runs, answers=len(ANSWERS), wall=round(time.monotonic() - began))
    verdict(runs)
    assert all(run.restarts == 0 for run in runs)
    for (known, plan), run in zip(work, runs, strict=True):
        assert run.hits > 0 or not known.sure, f"{plan.dump()} hit nothing in {run.scenario}"
