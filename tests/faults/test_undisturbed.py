"""The yardstick itself: two runs without faults agree, and what is masked because they don't is little."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.run import Reference
from tests.faults.scenarios import SCENARIOS
from tests.support.journal import EVENTS

_MOST_MASKED = 6
_MOST_WRITES = 20
"""About one thing. More is a quarrel: somebody undoes it each time."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_two_runs_without_faults_agree(reference: Callable[[str], Reference], name: str) -> None:
    known = reference(name)
    if SCENARIOS[name].silent:
        assert known.points == [], "all is left to Kubernetes"
    else:
        assert known.sure, "there is something that faults can meet"
    if name.startswith("delete-"):
        assert known.run.own_counts == {}, "nothing of what goes is made again, and the garbage collector needs no help"
    often = {str(target) for target, nth in known.points if nth > _MOST_WRITES and target.resource != EVENTS}
    assert not often, f"written again and again: {sorted(often)}"
    assert len(known.masked) <= _MOST_MASKED, sorted(known.masked)
    assert len(known.run.state) > 100 or name == "delete-both", "there is something to compare"
