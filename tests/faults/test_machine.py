"""Sequences that hypothesis draws from a state machine of users, hands, kubelets and faults. Oracles O3, O5 to O10.

`make test-faults SEED=7` plays that one alone, and leaves out of it what is not needed to make it fail.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any, Literal

import pytest

from tests.faults.case import Ground
from tests.faults.machine import Sequence_, sequence
from tests.faults.machine_run import Played, Player, forgotten, smaller, told
from tests.faults.machine_steps import Step
from tests.faults.run import note
from tests.support.journal_witness import Seen

_SEQUENCES = 60
_SHRINK_SECONDS = 300.0
_MANY = 20
"""Sequences. About a third of them inject what then meets a request."""
_FORGOTTEN = 0.1
"""At most so many may end without a pod for a Job that was made again: see `machine_run.forgotten`."""


def _sequences() -> Mapping[int, Sequence_]:
    if given := os.environ.get("FAULTS_STEPS"):
        return {0: tuple(tuple(step) for step in json.loads(given))}
    if given := os.environ.get("FAULTS_SEED"):
        return {int(given): sequence(int(given))}
    first = int(os.environ.get("FAULTS_FIRST", "1"))
    return {number: sequence(number) for number in range(first, first + int(os.environ.get("FAULTS_SEQUENCES", _SEQUENCES)))}


def test_sequences(ground: Ground) -> None:
    """Fault 18, among many others: a second operator works at the same time."""
    began = time.monotonic()
    player = Player(ground)
    given = _sequences()
    played = player.all(given)
    note(told(played, wall=round(time.monotonic() - began), fresh=player.fresh_states))
    failed = [one for one in played if one.problems and not one.forgotten]
    left = [one for one in played if one.forgotten]
    if failed and len(given) == 1:
        failed = [smaller(player, failed[0], _SHRINK_SECONDS)]
    assert len(left) <= _FORGOTTEN * len(played), "\n\n".join(f"{one.forgotten}: {one.told()}" for one in left)
    assert not failed, f"{len(failed)} of {len(played)} sequences:\n\n" + "\n\n".join(one.told() for one in failed)
    assert any(one.hits for one in played) or len(played) < _MANY, "one sequence may meet no fault, but not all of them"


def _seen(type_: Literal["ADDED", "DELETED"], kind: str, name: str, uid: str, **more: Any) -> Seen:
    return Seen(1, type_, kind, {"kind": kind, "metadata": {"name": name, "namespace": "n", "uid": uid, "resourceVersion": "1", **more}})


def test_only_a_job_of_a_name_that_was_there_before_counts_as_forgotten() -> None:
    history = [_seen("ADDED", "Job", "again", "1"), _seen("DELETED", "Job", "again", "1"), _seen("ADDED", "Job", "again", "2")]
    assert forgotten(history) == ["again"]
    assert forgotten([_seen("ADDED", "Job", "new", "1")]) == [], "the operator may be at fault"
    assert forgotten([*history, _seen("ADDED", "Pod", "p", "3", ownerReferences=[{"uid": "2"}])]) == []


@pytest.mark.parametrize("number", [1, 60])
def test_a_seed_always_gives_the_same_sequence(number: int) -> None:
    first = sequence(number)
    assert sequence(number) == first
    assert json.loads(json.dumps(first)) == [list(step) for step in first], "it can be told and given again"
    assert len(first) > 10


class _Brittle:
    """A player for whom two of the steps go wrong together."""

    def __init__(self, *bad: Step) -> None:
        self.bad = bad

    def one(self, steps: Sequence_, seed: int = 0) -> Played:
        return Played(steps, seed, problems=["wrong"] if all(step in steps for step in self.bad) else [])

    def all(self, sequences: Mapping[int, Sequence_]) -> list[Played]:
        return [self.one(steps, number) for number, steps in sequences.items()]


def test_what_is_not_needed_for_a_failure_is_left_out() -> None:
    steps = sequence(5)
    player = _Brittle(steps[1], steps[-1])
    found = smaller(player, player.one(steps, 5), 60.0, say=lambda _: None)
    assert (found.steps, found.seed) == ((steps[1], steps[-1]), 5)
    assert "SEED=5" in found.told()
