"""After a restart the API server answers with an older state, as one that lags behind the others does. Fault 14.

What the operator believes then is past: it may neither make again what is there, nor delete what has become another.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

from tests.faults.case import Ground
from tests.faults.run import Reference, references, report, run_all, something_met, verdict
from tests.faults.scenarios import DISTURBED
from tests.support.faultproxy_plan import batches
from tests.support.journal import Target

_AT_ONCE = 3
"""Restarts in one run."""


def _chosen(known: Reference) -> list[tuple[Target, int]]:
    """Every write about a child, and of the statuses each before such a write: what was made is the newest, and is missing.

    A deletion leaves none of them to the operator. There it is whatever it does.
    """
    points = [(target, nth) for target, nth in known.points if target.resource != "events"]
    children = [(target, nth) for target, nth in points if not target.resource.endswith("/status")]
    before = [first for first, then in pairwise(known.points) if then in children and first in points and first not in children]
    return [*children, *before] if children else [step for step in known.steps if step[0].resource != "events"]


def test_restarted_on_a_lagging_api_server(ground: Ground, reference: Callable[[str], Reference]) -> None:
    """Fault 14."""
    began = time.monotonic()
    work = [
        (known, plan)
        for known in references(reference, DISTURBED)
        for back in (1, 6)
        for plan in batches(_chosen(known), _AT_ONCE, "kill-after", back=back)
    ]
    runs = run_all(ground, work)
    report("stale", runs, points=sum(len(plan.rules) for _, plan in work), wall=round(time.monotonic() - began))
    verdict(runs)
    something_met(runs, DISTURBED)
