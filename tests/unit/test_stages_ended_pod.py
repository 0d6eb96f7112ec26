"""Between the end of a stage's pod and the Job's own count of it lies a moment, in which nothing may go back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.flow import FACTS, World, engine_object
from trtllm_operator.decide.input import Hints


def _stage(world: World, name: str) -> dict[str, Any]:
    stages = world.objects["LLMEngine", "llama"]["status"]["stages"]
    return next(stage for stage in stages if stage["name"] == name)


def _ended(world: World, phase: str) -> dict[str, Any]:
    """A build whose pod has ended, and whose Job does not know it yet."""
    world.settle()
    for stage in ("resolve", "fetch"):
        world.finish(stage)
        world.settle()
    pod = world.pod(world.job("build"), phase="Running")
    world.settle()
    assert _stage(world, "build")["state"] == "Running"
    said = {"ok": phase == "Succeeded", "stage": "build", "facts": FACTS["build"]}
    pod["status"] = {"phase": phase, "containerStatuses": [{"name": "stage", "state": {"terminated": {"message": json.dumps(said)}}}]}
    return pod


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_an_ended_pod_is_not_a_waiting_one(phase: str) -> None:
    world = World(engine_object())
    _ended(world, phase)
    before = list(world.writes)
    assert not world.step(), world.writes[len(before) :]
    assert _stage(world, "build")["state"] == "Running"


def test_finished_work_is_not_thrown_away_by_a_change_of_the_spec() -> None:
    world = World(engine_object(accelerator={"product": "NVIDIA-H100-80GB-HBM3", "computeCapability": "9.0"}))
    _ended(world, "Succeeded")
    engine = world.objects["LLMEngine", "llama"]
    engine["spec"]["accelerator"]["product"] = "NVIDIA-H200"  # the same engine, on other nodes
    world.settle()
    assert not [write for write in world.writes if write.startswith("delete")]


def test_progress_stays_in_view() -> None:
    world = World(engine_object())
    pod = _ended(world, "Succeeded")
    world.hints = Hints(progress={pod["metadata"]["uid"]: {"percent": 97, "message": "layer 31 of 32"}})
    world.settle()
    assert world.objects["LLMEngine", "llama"]["status"]["progress"]["percent"] == 97


def test_a_pod_that_replaces_an_evicted_one_waits() -> None:
    world = World(engine_object())
    evicted = _ended(world, "Failed")
    world.pods["evicted"] = evicted
    world.pod(world.job("build"), phase="Pending")
    world.settle()
    assert _stage(world, "build")["state"] == "Pending"
