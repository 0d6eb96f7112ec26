"""Events tell transitions: one for each, whatever the number of conditions that show it, and none while nothing changes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.support.flow import World, engine_object
from trtllm_operator.decide import conditions
from trtllm_operator.decide.conditions import Condition

Json = dict[str, Any]
STAGES = ("resolve", "fetch", "build", "publish", "verify")


def _at(stage: str) -> World:
    world = World(engine_object())
    world.settle()
    for done in STAGES[: STAGES.index(stage)]:
        world.finish(done)
        world.settle()
    return world


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("reason", "shown"), [("DiskFull", ("Warning", "DiskFull")), ("GPUNotFound", ("Normal", "Retrying"))])
def test_a_failure_is_one_event_of_each_object_that_shows_it(stage: str, reason: str, shown: tuple[str, str]) -> None:
    world = _at(stage)
    before = len(world.events)
    world.fail(stage, reason, "what, why and what to do")
    world.settle()
    told = world.events[before:]
    objects = 2 if stage in ("fetch", "build", "publish") else 1
    assert [event[:2] for event in told if event[2].startswith("Ready: ")] == [shown] * objects
    # Beside Ready a condition of its own speaks only where it says another thing: the reason behind Retrying.
    assert [event[1] for event in told if not event[2].startswith("Ready: ")] == [reason] * (
        shown[1] == "Retrying" and stage in ("fetch", "build", "publish", "verify")
    )
    assert all("what to do" in event[2] for event in told)
    count = len(world.events)
    for _ in range(3):
        world.now += timedelta(seconds=1)
        world.settle()
    assert len(world.events) == count


def test_the_same_attempt_after_attempt_is_told_at_changes_only() -> None:
    world = _at("build")
    for _ in range(3):
        world.fail("build", "GPUNotFound", "no GPU")
        world.settle()
        world.now += timedelta(hours=1)
        world.settle()
    # Retrying, Building, Retrying, Building, GPUNotFound: of the engine and of its build.
    told = [reason for _, reason, message in world.events if message.startswith("Ready: ")]
    assert told.count("GPUNotFound") == 2
    assert told.count("Retrying") == 4


def _shown(*conditions_: Condition) -> list[Json]:
    return [{"type": c.type, "status": c.status, "reason": c.reason, "message": c.message} for c in conditions_]


READY = Condition("Ready", "True", "Ready", "it is done")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ((), conditions.progressing("Building", "x"), []),
        ((), conditions.stalled("DiskFull", "x"), [("Warning", "DiskFull", "Ready: x")]),
        ((), (READY,), [("Normal", "Ready", "Ready: it is done")]),
        ((READY,), (READY,), []),
        ((READY,), (Condition("Ready", "True", "Ready", "other words"),), []),
        (conditions.progressing("Fetching", "x"), conditions.progressing("Building", "y"), [("Normal", "Building", "Ready: y")]),
        ((READY,), (*conditions.stalled("DiskFull", "x"), Condition("Built", "False", "DiskFull", "y")), [("Warning", "DiskFull", "Ready: x")]),
        ((READY,), (READY, Condition("Built", "True", "Succeeded", "b")), [("Normal", "Succeeded", "Built: b")]),
        (
            (READY,),
            (READY, Condition("Built", "True", "Succeeded", "b"), Condition("Verified", "True", "Succeeded", "v")),
            [("Normal", "Succeeded", "Built: b"), ("Normal", "Succeeded", "Verified: v")],
        ),
    ],
)  # fmt: skip
def test_transitions(before: tuple[Condition, ...], after: tuple[Condition, ...], told: list[tuple[str, str, str]]) -> None:
    assert [(e.type, e.reason, e.message) for e in conditions.transitions(after, _shown(*before))] == told
