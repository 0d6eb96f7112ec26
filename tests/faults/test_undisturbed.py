"""The yardstick itself: two runs without faults agree, and what is masked because they don't is little."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.run import Reference
from tests.faults.scenarios import SCENARIOS

_MOST_MASKED = 6


@pytest.mark.parametrize("name", SCENARIOS)
def test_two_runs_without_faults_agree(reference: Callable[[str], Reference], name: str) -> None:
    known = reference(name)
    assert len(known.masked) <= _MOST_MASKED, sorted(known.masked)
    assert len(known.run.state) > 100 or name == "delete-both", "there is something to compare"
