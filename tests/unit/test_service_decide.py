"""LLMService from apply to Ready, and what each trouble says: condition, reason, next step, and that nothing running is touched."""

from __future__ import annotations

import copy

import pytest

from tests.unit.test_service_rules import check_conditions
from tests.unit.test_service_world import UID, Json, World, build_object, service_object
from trtllm_operator.api.reasons import REASONS

DETAILS = {"Ready", "EngineReady", "Available", "RolledOut", "ScalingActive", "Exposed"}


def ready(world: World) -> tuple[str, str]:
    check_conditions(world.service)
    for condition in world.service["status"]["conditions"]:
        assert condition["reason"] in REASONS, condition
    return world.condition("Ready")[:2]


def test_from_apply_to_ready() -> None:
    world = World()
    world.step()
    assert ready(world) == ("Unknown", "RollingOut")
    assert world.types() == DETAILS | {"Reconciling"}
    world.settle()
    assert world.kinds() == ["Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service"]
    world.controller(updated=1, available=0)
    world.settle()
    assert ready(world) == ("Unknown", "RollingOut")
    assert "current" not in world.service["status"]
    world.controller()
    world.settle()
    assert ready(world) == ("True", "Ready")
    assert world.types() == DETAILS
    status = world.service["status"]
    assert status["url"] == "http://chat.default.svc:8000/v1"
    assert status["model"] == "llama"
    assert (status["replicas"], status["readyReplicas"]) == (1, 1)
    assert status["selector"] == "app.kubernetes.io/component=server,trtllm.dev/service=chat"
    assert status["current"] == status["target"]
    assert status["current"]["build"] == "llama-0a1b2c3d4e"
    assert {kind: world.condition(kind)[:2] for kind in DETAILS} == {
        "Ready": ("True", "Ready"),
        "EngineReady": ("True", "EngineReady"),
        "Available": ("True", "Available"),
        "RolledOut": ("True", "RolledOut"),
        "ScalingActive": ("False", "ScalingFixed"),
        "Exposed": ("True", "Exposed"),
    }


def test_settled_means_no_write_and_equal_input_gives_equal_decisions() -> None:
    world = World(serve={"options": {"x": 1}})
    world.roll_out()
    written = list(world.log)
    assert not world.step()
    assert world.log == written
    given = world.given()
    frozen = copy.deepcopy(given)
    from trtllm_operator.decide.service import decide  # noqa: PLC0415

    assert decide(given) == decide(given)
    assert given == frozen


def test_deletion_is_left_to_the_garbage_collector() -> None:
    world = World()
    world.service["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not world.step()


def test_new_artifact_rolls_out_and_the_old_build_is_kept_until_then() -> None:
    world = World()
    world.roll_out()
    old_template = copy.deepcopy(world.deployment()["spec"]["template"])
    new = build_object("llama-ffffffffff")
    world.verified(new)
    world.settle()
    status = world.service["status"]
    assert ready(world) == ("Unknown", "RollingOut")
    assert (status["current"]["build"], status["target"]["build"]) == ("llama-0a1b2c3d4e", "llama-ffffffffff")
    assert world.condition("RolledOut")[:2] == ("Unknown", "RollingOut")
    assert world.owners("llama-0a1b2c3d4e") == {"e1", UID}
    assert world.owners("llama-ffffffffff") == {"e1", UID}
    world.pod("old", old_template)
    world.controller(updated=1, available=1, total=2)
    world.settle()
    assert world.condition("Available")[0] == "True"
    assert world.service["status"]["current"]["build"] == "llama-0a1b2c3d4e"
    world.controller()
    world.settle()
    assert ready(world) == ("True", "Ready")
    assert world.service["status"]["current"]["build"] == "llama-ffffffffff"
    assert UID in world.owners("llama-0a1b2c3d4e"), "an old pod still has it mounted"
    world.pods = []
    world.settle()
    assert world.owners("llama-0a1b2c3d4e") == {"e1"}


def test_what_answers_is_kept_alive_through_several_rollouts() -> None:
    world = World()
    world.roll_out()
    first, second, third = "llama-0a1b2c3d4e", "llama-2222222222", "llama-3333333333"
    world.verified(build_object(second))
    world.settle()
    world.builds[first]["metadata"]["ownerReferences"].pop()  # somebody takes our entry away
    world.verified(build_object(third))
    world.settle()
    assert {name: UID in world.owners(name) for name in (first, second, third)} == {first: True, second: True, third: True}
    assert world.service["status"]["current"]["build"] == first
    world.controller()
    world.settle()
    assert {name: UID in world.owners(name) for name in (first, second, third)} == {first: False, second: False, third: True}


def test_a_build_that_is_deleted_meanwhile_is_not_made_again() -> None:
    """A service joins that very build; an apply would make an empty one that nobody fills."""
    decision = World().decide()
    assert [entry.obj["metadata"]["uid"] for entry in decision.join] == ["uid-llama-0a1b2c3d4e"]
    assert "LLMEngineBuild" not in {apply.obj["kind"] for apply in decision.apply}


def test_last_owner_deletes_a_build_that_nobody_serves() -> None:
    world = World()
    world.roll_out()
    world.builds["llama-0a1b2c3d4e"]["metadata"]["ownerReferences"] = [
        ref for ref in world.builds["llama-0a1b2c3d4e"]["metadata"]["ownerReferences"] if ref["uid"] == UID
    ]
    world.verified(build_object("llama-ffffffffff"))
    world.settle()
    assert "llama-0a1b2c3d4e" in world.builds
    world.controller()
    decision = world.decide()
    assert [(d.kind, d.name, d.uid, d.resource_version) for d in decision.delete] == [
        ("LLMEngineBuild", "llama-0a1b2c3d4e", "uid-llama-0a1b2c3d4e", "7")
    ]
    world.settle()
    assert "llama-0a1b2c3d4e" not in world.builds


def test_builds_of_others_are_none_of_our_business() -> None:
    world = World()
    world.builds["other-1"] = build_object("other-1", owners=("someone",))
    world.roll_out()
    assert world.owners("other-1") == {"someone"}


def test_options_live_as_long_as_pods_need_them() -> None:
    world = World(serve={"options": {"stream_interval": 4}})
    world.roll_out()
    old = next(name for kind, name in world.objects if kind == "ConfigMap")
    old_pod = world.pod("old")
    world.change(serve={"options": {"stream_interval": 8}})
    world.settle()
    assert len([k for k in world.kinds() if k == "ConfigMap"]) == 2
    world.controller()
    world.settle()
    assert ("ConfigMap", old) in world.objects
    world.pods.remove(old_pod)
    world.settle()
    assert ("ConfigMap", old) not in world.objects
    assert world.kinds().count("ConfigMap") == 1
    world.change(serve={})
    world.roll_out()
    assert "ConfigMap" not in world.kinds()


REFUSED: list[tuple[Json, str, list[str]]] = [
    ({"serve": {"toolParser": "qwen3"}}, "UnsupportedOption", ["serve.toolParser", "1.1.0"]),
    ({"serve": {"servedModelName": "acme/llama"}}, "UnsupportedOption", ["serve.servedModelName", "1.1.0"]),
    ({"serve": {"options": {"max_batch_size": 1}}}, "InvalidSpec", ["serve.options.max_batch_size", "serve.maxBatchSize"]),
    ({"serve": {"options": {"max_num_tokens": 1}}}, "InvalidSpec", ["serve.maxNumTokens"]),
    ({"serve": {"options": {"max_seq_len": 1}}}, "InvalidSpec", ["serve.maxSeqLen"]),
    ({"serve": {"options": {"enable_chunked_prefill": None}}}, "InvalidSpec", ["serve.chunkedPrefill"]),
    ({"serve": {"options": {"reasoning_parser": "x"}}}, "InvalidSpec", ["serve.reasoningParser"]),
    ({"serve": {"options": {"tool_parser": "x"}}}, "InvalidSpec", ["serve.toolParser"]),
    ({"serve": {"options": {"tensor_parallel_size": 2}}}, "InvalidSpec", ["parallelism.tensor"]),
    ({"serve": {"options": {"pipeline_parallel_size": 2}}}, "InvalidSpec", ["parallelism.pipeline"]),
    ({"serve": {"options": {"backend": "pytorch"}}}, "InvalidSpec", ["runtime.backend"]),
    ({"serve": {"options": {"model": "/x"}}}, "InvalidSpec", ["serve.options.model"]),
    ({"serve": {"options": {"kv_cache_config": {"free_gpu_memory_fraction": 0.5}}}}, "InvalidSpec", ["serve.kvCacheFreeGpuMemoryFraction"]),
    (
        {
            "autoscaling": {
                "maxReplicas": 2,
                "metrics": [{"type": "resource", "name": "cpu", "averageUtilization": 50}],
                "scaleDownStabilization": "2h",
            }
        },
        "InvalidSpec",
        ["autoscaling.scaleDownStabilization", "1h"],
    ),
    ({"replicas": -1}, "InvalidSpec", ["spec.replicas"]),
    ({"rollout": {"strategy": "blueGreen"}}, "InvalidSpec", ["spec.rollout.strategy"]),
    ({"expose": {"service": {"port": 70000}}}, "InvalidSpec", ["spec.expose.service.port"]),
]


@pytest.mark.parametrize(("change", "reason", "words"), REFUSED)
def test_refusals_name_the_field_and_touch_nothing_that_runs(change: Json, reason: str, words: list[str]) -> None:
    world = World(engine=False)
    world.verified(build_object(version="1.1.0"))
    world.roll_out()
    assert ready(world) == ("True", "Ready")
    before = copy.deepcopy(world.objects)
    kept = {key: world.service["status"][key] for key in ("url", "model", "current", "selector")}
    world.change(**change)
    world.settle()
    assert ready(world) == ("False", reason)
    assert world.condition("Stalled")[:2] == ("True", reason)
    assert all(word in world.condition("Ready")[2] for word in words), world.condition("Ready")
    assert world.objects == before
    assert {key: world.service["status"].get(key) for key in kept} == kept
    assert world.condition("Available")[0] == "True"
    world.change(**dict.fromkeys(change))
    world.settle()
    assert ready(world) == ("True", "Ready")


@pytest.mark.parametrize("options", [{}, {"kv_cache_config": {"max_tokens": 100}}, {"kv_cache_config": None}, {"trust_remote_code": True}])
def test_other_options_pass(options: Json) -> None:
    world = World(serve={"options": options})
    world.roll_out()
    assert ready(world) == ("True", "Ready")


@pytest.mark.parametrize("name", ["1chat", "chat.v1", "c" * 64])
def test_name_that_no_service_can_have(name: str) -> None:
    world = World(service_object(name))
    world.settle()
    assert ready(world) == ("False", "InvalidSpec")
    assert "metadata.name" in world.condition("Ready")[2]
    assert world.objects == {}


@pytest.mark.parametrize("kind", ["Service", "Deployment", "ConfigMap"])
def test_objects_of_somebody_else_are_left_alone(kind: str) -> None:
    world = World(serve={"options": {"x": 1}})
    name = next(a.obj["metadata"]["name"] for a in world.decide().apply if a.obj["kind"] == kind)
    world.foreign = ({"kind": kind, "metadata": {"name": name}},)
    world.settle()
    assert ready(world) == ("False", "NameConflict")
    assert f"{kind} {name}" in world.condition("Ready")[2]
    assert world.get(kind, name) is None
    world.foreign = ()
    world.roll_out()
    assert ready(world) == ("True", "Ready")


def test_objects_of_a_predecessor_of_the_same_name_are_not_ours() -> None:
    world = World()
    world.roll_out()
    for obj in world.objects.values():
        obj["metadata"]["ownerReferences"][0]["uid"] = "somebody"
    decision = world.decide()
    assert decision.delete == ()
    assert decision.status is not None
    assert next(c for c in decision.status["conditions"] if c["type"] == "Ready")["status"] == "Unknown"


def test_not_ready_before_everything_is_applied() -> None:
    world = World()
    world.roll_out()
    world.change(availability={"maxUnavailable": 2})
    world.step()
    assert ready(world) == ("Unknown", "Progressing")
    assert "PodDisruptionBudget chat" in world.condition("Ready")[2]
    world.settle()
    assert ready(world) == ("True", "Ready")


@pytest.mark.parametrize("stale", ["generation", "hash", "replicas", "wanted"])
def test_never_ready_from_an_old_observation(stale: str) -> None:
    world = World(replicas=2)
    world.roll_out()
    deployment = world.deployment()
    if stale == "generation":
        deployment["metadata"]["generation"] += 1
    elif stale == "hash":
        deployment["spec"]["template"]["metadata"]["annotations"]["trtllm.dev/template-hash"] = "other"
    elif stale == "replicas":
        deployment["status"]["availableReplicas"] = 1
    else:  # somebody asked for one pod, and its controller has not taken the other away yet
        deployment["spec"]["replicas"] = 1
    world.step()
    assert ready(world)[0] == "Unknown"


def test_losing_a_pod_is_not_a_rollout() -> None:
    world = World(replicas=2)
    world.roll_out()
    world.controller(available=1)
    world.settle()
    assert ready(world) == ("Unknown", "ReplicasUnavailable")
    assert world.condition("RolledOut")[:2] == ("True", "RolledOut")


def test_scaling_to_zero_is_healthy() -> None:
    world = World(replicas=0)
    world.roll_out()
    assert ready(world) == ("True", "Ready")
    assert world.condition("Available")[:2] == ("False", "ScaledToZero")
    world.change(replicas=1)
    world.step()
    assert ready(world)[0] == "Unknown"


def test_deployment_deleted_by_hand_comes_back() -> None:
    world = World(replicas=2)
    world.roll_out()
    del world.objects["Deployment", "chat"]
    world.step()
    assert ready(world) == ("Unknown", "RollingOut")
    world.roll_out()
    assert ready(world) == ("True", "Ready")


def test_network_policy_can_be_switched_off() -> None:
    world = World()
    world.roll_out()
    world.change(networkPolicy={"enabled": False})
    world.settle()
    assert "NetworkPolicy" not in world.kinds()


def test_events_tell_transitions_only() -> None:
    world = World()
    world.roll_out()
    told = list(world.events)
    assert [reason for _, reason, _ in told].count("Ready") == 1
    world.now = world.now.replace(year=2027)
    world.settle()
    assert world.events == told


@pytest.mark.parametrize("status", [{"conditions": [], "current": "nonsense", "target": 7}, {"current": {"build": "x"}}, {}])
def test_status_that_somebody_edited_is_made_again(status: Json) -> None:
    world = World()
    world.roll_out()
    wanted = {key: value for key, value in world.service["status"].items() if key != "conditions"}
    world.service["status"] = status
    world.settle()
    assert ready(world) == ("True", "Ready")
    assert {key: value for key, value in world.service["status"].items() if key != "conditions"} == wanted
