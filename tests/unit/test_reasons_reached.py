"""Runs last, over what the other tests of this folder made the code say: every reason of the table was set, and no other.

Left out of a run of a part of the tests, which reaches a part of the reasons.
"""

from __future__ import annotations

from tests.support.reached import Reached
from trtllm_operator.api.reasons import REASONS


def test_every_reason_is_reached_by_a_test(reached: Reached) -> None:
    assert sorted(REASONS.keys() - reached.reasons()) == [], "write a test that makes the code set it, or take it out of the table"


def test_no_other_reason_is_set(reached: Reached) -> None:
    assert sorted(reached.reasons() - REASONS.keys()) == []
