"""An LLMService and its LLMEngine: it waits, says for what, goes on by itself, and what serves goes on serving."""

from __future__ import annotations

import copy

import pytest

from tests.unit.test_service_decide import ready
from tests.unit.test_service_world import UID, Json, World, build_object, engine_object


def stalled_engine() -> Json:
    engine = engine_object()
    engine["status"]["conditions"] = [
        {"type": kind, "status": status, "reason": "ModelAccessDenied", "message": "acme/llama is gated.", "observedGeneration": 1}
        for kind, status in (("Ready", "False"), ("Stalled", "True"))
    ]
    return engine


def old_stall() -> Json:
    engine = stalled_engine()
    engine["metadata"]["generation"] = 2
    return engine


ENGINES: list[tuple[Json | None, tuple[str, str], tuple[str, str], str]] = [
    (None, ("Unknown", "EngineNotFound"), ("False", "EngineNotFound"), "LLMEngine llama does not exist"),
    (engine_object(ready=("Unknown", "Building")), ("Unknown", "WaitingForEngine"), ("Unknown", "WaitingForEngine"), "(Building)"),
    (engine_object(ready=("False", "Suspended")), ("Unknown", "WaitingForEngine"), ("Unknown", "WaitingForEngine"), "(Suspended)"),
    ({**engine_object(), "status": {}}, ("Unknown", "WaitingForEngine"), ("Unknown", "WaitingForEngine"), "no verified artifact yet"),
    (stalled_engine(), ("False", "EngineFailed"), ("False", "EngineFailed"), "acme/llama is gated"),
    (old_stall(), ("Unknown", "WaitingForEngine"), ("Unknown", "WaitingForEngine"), "(ModelAccessDenied)"),
    (engine_object(build_object("gone-1")), ("Unknown", "WaitingForBuild"), ("Unknown", "WaitingForBuild"), "gone-1"),
    (
        {**engine_object(), "status": {"artifact": {"kind": "?"}}},
        ("Unknown", "WaitingForEngine"),
        ("Unknown", "WaitingForEngine"),
        "can't be read",
    ),
]


@pytest.mark.parametrize(("engine", "shown", "condition", "words"), ENGINES)
def test_waits_for_the_engine_and_says_for_what(
    engine: Json | None, shown: tuple[str, str], condition: tuple[str, str], words: str
) -> None:
    world = World(engine=False)
    world.engine = engine
    world.settle()
    assert ready(world) == shown
    assert world.condition("EngineReady")[:2] == condition
    assert words in world.condition("Ready")[2]
    assert world.get("Deployment") is None
    assert world.condition("Available")[:2] == ("False", "Unavailable")
    world.verified(build_object())
    world.roll_out()
    assert ready(world) == ("True", "Ready")


@pytest.mark.parametrize(("engine", "shown", "condition", "words"), ENGINES)
def test_an_engine_that_goes_or_builds_anew_never_stops_serving(
    engine: Json | None, shown: tuple[str, str], condition: tuple[str, str], words: str
) -> None:
    world = World()
    world.roll_out()
    before = copy.deepcopy(world.deployment())
    world.engine = engine
    world.settle()
    assert world.deployment() == before
    assert ready(world) == shown
    assert words in world.condition("Ready")[2]
    assert "LLMEngineBuild llama-0a1b2c3d4e goes on serving" in world.condition("Ready")[2]
    assert world.condition("EngineReady")[:2] == condition
    assert world.condition("Available")[:2] == ("True", "Available")
    assert world.condition("RolledOut")[:2] == ("True", "RolledOut")
    assert UID in world.owners("llama-0a1b2c3d4e")


def test_served_artifact_is_still_managed_without_its_engine() -> None:
    world = World(serve={"maxBatchSize": 4})
    world.roll_out()
    template = world.deployment()["spec"]["template"]["spec"]
    world.engine = None
    world.service["status"] = {}  # not even the status is needed
    world.change(serve={"maxBatchSize": 8}, replicas=2)
    world.roll_out()
    now = world.deployment()["spec"]["template"]["spec"]
    assert now["nodeSelector"] == template["nodeSelector"] == {"nvidia.com/gpu.product": "H100"}
    assert "8" in now["containers"][0]["command"]
    assert world.deployment()["spec"]["replicas"] == 2
    assert ready(world) == ("Unknown", "EngineNotFound")


def test_deployment_is_left_alone_when_its_build_is_gone_as_well() -> None:
    world = World()
    world.roll_out()
    before = copy.deepcopy(world.deployment())
    world.engine, world.builds = None, {}
    world.change(serve={"maxBatchSize": 8})
    world.settle()
    assert world.deployment() == before
    assert ready(world) == ("Unknown", "EngineNotFound")
    assert world.condition("Available")[0] == "True"


def test_changed_engine_does_not_move_pods_before_its_new_artifact() -> None:
    world = World()
    world.roll_out()
    before = copy.deepcopy(world.deployment())
    assert world.engine is not None
    world.engine["metadata"]["generation"] = 2
    world.engine["spec"]["accelerator"] = {"product": "B200"}
    world.engine["status"] |= {"observedGeneration": 2, "build": "llama-next"}
    world.settle()
    assert world.deployment() == before
    new = build_object("llama-next")
    world.verified(new)
    assert world.engine is not None
    world.engine["spec"]["accelerator"] = {"product": "B200"}
    world.settle()
    assert world.deployment()["spec"]["template"]["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": "B200"}


@pytest.mark.parametrize("there", [None, engine_object(name="qwen", ready=("Unknown", "Building"), accelerator={"product": "B200"})])
def test_other_engine_ref_keeps_model_name_until_that_engine_is_ready(there: Json | None) -> None:
    world = World()
    world.roll_out()
    before = copy.deepcopy(world.deployment())
    world.change(engineRef={"name": "qwen"})
    world.engine = there
    world.settle()
    assert world.deployment() == before
    assert world.service["status"]["model"] == "llama"
    build = build_object("qwen-1111111111")
    world.builds["qwen-1111111111"], world.engine = build, engine_object(build, name="qwen")
    world.roll_out()
    assert world.service["status"]["model"] == "qwen"
    assert ready(world) == ("True", "Ready")


def test_two_engines_with_one_build_have_their_own_names() -> None:
    world = World()
    world.roll_out()
    build = world.builds["llama-0a1b2c3d4e"]
    world.engine = engine_object(build, name="twin")
    world.engine["metadata"]["generation"] = 2  # its newest spec is not looked at yet
    world.change(engineRef={"name": "twin"})
    world.roll_out()
    assert world.service["status"]["model"] == "twin"


def test_unverified_rebuild_is_not_served() -> None:
    world = World()
    world.roll_out()
    before = copy.deepcopy(world.deployment())
    world.builds["llama-0a1b2c3d4e"]["status"] = copy.deepcopy(world.builds["llama-0a1b2c3d4e"]["status"])
    world.builds["llama-0a1b2c3d4e"]["status"]["artifact"]["digest"] = "sha256:other"
    world.settle()
    assert world.deployment() == before
    assert ready(world) == ("Unknown", "WaitingForEngine")
