"""LLMEngine and LLMEngineBuild together, from apply to Ready, and what happens when something goes wrong."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.support.flow import World, engine_object


def names_of(world: World, kind: str) -> list[str]:
    return [obj["metadata"]["name"] for obj in world.of(kind)]


def node(product: str, gpus: int, major: str = "9", minor: str = "0") -> dict[str, Any]:
    labels = {"nvidia.com/gpu.product": product, "nvidia.com/gpu.compute.major": major, "nvidia.com/gpu.compute.minor": minor}
    return {"metadata": {"name": f"node-{product}", "labels": labels}, "status": {"allocatable": {"nvidia.com/gpu": str(gpus)}}}


def test_from_apply_to_ready() -> None:
    world = World(engine_object())
    world.finish_all()
    assert world.ready()[:2] == ("True", "Ready")
    status = world.objects["LLMEngine", "llama"]["status"]
    assert [s["name"] for s in status["stages"]] == ["resolve", "fetch", "build", "publish", "verify"]
    assert {s["state"] for s in status["stages"]} == {"Succeeded"}
    assert status["artifact"]["claimName"] == status["build"]
    assert status["verification"] == {
        "key": status["key"],
        "state": "Succeeded",
        "output": "Paris.",
        "finishedAt": status["verification"]["finishedAt"],
    }
    assert len(world.of("Job")) == 5
    assert {c["type"] for c in status["conditions"]} == {"Ready", "SourceFetched", "Built", "Verified"}
    assert next(s for s in status["stages"] if s["name"] == "build")["gpuSeconds"] == 30


def test_settled_means_no_write() -> None:
    world = World(engine_object())
    world.finish_all()
    before = list(world.writes)
    world.now += timedelta(days=3)
    assert not world.step()
    for job in world.of("Job"):  # the time-to-live controller removes Jobs
        del world.objects["Job", job["metadata"]["name"]]
    world.pods.clear()
    assert not world.step()
    assert world.writes == before


def test_checkpoint_recipe_builds_nothing_on_a_gpu() -> None:
    world = World(engine_object(runtime={"version": "1.3.0rc29"}))
    world.settle()
    world.finish("resolve")
    world.settle()
    world.finish("fetch")
    world.settle()
    world.finish("publish", {"kind": "HFCheckpoint", "path": "y/files"})
    world.settle()
    world.finish("verify")
    world.settle()
    assert world.ready()[0] == "True"
    status = world.objects["LLMEngine", "llama"]["status"]
    assert status["plan"]["recipe"] == "HFCheckpoint"
    assert status["artifact"]["claimName"] == status["plan"]["checkpointClaim"]
    assert len(world.of("PersistentVolumeClaim")) == 1
    assert next(s for s in status["stages"] if s["name"] == "build")["state"] == "Skipped"


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({"runtime": {"version": "1.3.0rc29", "backend": "tensorrt"}}, "BackendNotAvailable", ["1.3.0rc29", "trtllm-build", "1.2.1"]),
        ({"runtime": {"version": "0.20.0"}}, "UnsupportedVersion", ["0.20.0", "1.0.0"]),
        ({"runtime": {"version": "1.3.0rc27"}}, "UnsupportedVersion", ["broken", "1.3.0rc26"]),
        ({"runtime": {}}, "InvalidSpec", ["runtime.version"]),
    ],
)
def test_refused_at_once(spec: dict[str, Any], reason: str, words: list[str]) -> None:
    world = World(engine_object(**spec))
    world.settle()
    status, why, message = world.ready()
    assert (status, why) == ("False", reason)
    assert all(word in message for word in words), message
    assert world.of("Job") == []


@pytest.mark.parametrize(
    ("spec", "facts", "reason"),
    [
        ({"parallelism": {"tensor": 3}}, {}, "ParallelismMismatch"),
        ({"parallelism": {"pipeline": 16}}, {"layers": 8}, "ParallelismMismatch"),
        ({"accelerator": {}}, {}, "ComputeCapabilityUnknown"),
        ({}, {"architecture": "SomethingNewForCausalLM"}, "UnsupportedArchitecture"),
        ({"precision": {"dtype": "bfloat16"}, "accelerator": {"computeCapability": "7.5"}}, {}, "UnsupportedDtype"),
    ],
)
def test_refused_before_a_gpu_is_spent(spec: dict[str, Any], facts: dict[str, Any], reason: str) -> None:
    world = World(engine_object(**spec))
    world.settle()
    world.finish("resolve", facts)
    world.settle()
    assert world.ready()[:2] == ("False", reason)
    assert world.of("LLMEngineBuild") == []


def test_compute_capability_from_nodes_and_ambiguity() -> None:
    h100, l40s = node("NVIDIA-H100-80GB-HBM3", 8), node("NVIDIA-L40S", 4, "8", "9")
    world = World(engine_object(accelerator={}), nodes=(h100, l40s))
    world.settle()
    world.finish("resolve")
    world.settle()
    status, reason, message = world.ready()
    assert (status, reason) == ("False", "ComputeCapabilityAmbiguous")
    assert "NVIDIA-L40S" in message
    assert "NVIDIA-H100-80GB-HBM3" in message
    world.nodes = (h100,)
    world.settle()
    assert world.objects["LLMEngine", "llama"]["status"]["plan"]["computeCapability"] == "9.0"


def test_user_error_burns_one_attempt_and_goes_on_when_it_is_mended() -> None:
    """Faults 24 and 25."""
    world = World(engine_object())
    world.settle()
    for stage in ("resolve", "fetch"):
        world.finish(stage)
        world.settle()
    world.fail("build", "HostOutOfMemory")
    world.settle()
    assert world.ready()[:2] == ("False", "HostOutOfMemory")
    world.now += timedelta(days=2)
    world.settle()
    assert len([j for j in world.of("Job") if j["metadata"]["labels"]["trtllm.dev/stage"] == "build"]) == 1
    engine = world.objects["LLMEngine", "llama"]
    engine["spec"]["jobs"] = {"build": {"resources": {"limits": {"memory": "64Gi"}}}}
    engine["metadata"]["generation"] = 2
    world.settle()
    assert world.ready()[0] == "Unknown"
    assert world.job("build")["metadata"]["name"].endswith("-build-2")


def test_counted_failures_end() -> None:
    """Fault 24."""
    world = World(engine_object())
    world.settle()
    world.finish("resolve")
    world.settle()
    for attempt in range(1, 4):
        world.fail("fetch", "InternalError")
        world.settle()
        assert world.ready()[0] == ("False" if attempt == 3 else "Unknown")
        world.now += timedelta(hours=1)
        world.settle()
    assert "after 3 attempts" in world.ready()[2]
    assert len([j for j in world.of("Job") if j["metadata"]["labels"]["trtllm.dev/stage"] == "fetch"]) == 3


def test_gated_model_is_tried_again_for_ever_and_says_what_to_do() -> None:
    """Fault 35. A token may come later."""
    world = World(engine_object())
    world.settle()
    for attempt in range(1, 8):
        world.fail("resolve", "ModelAccessDenied", "meta-llama/Llama-3.2-1B is gated.")
        world.settle()
        status, reason, message = world.ready()
        assert (status, reason) == ("False", "ModelAccessDenied"), attempt
        assert "gated" in message
        world.now += timedelta(hours=1)
        world.settle()
        assert world.ready()[:2] == ("False", "ModelAccessDenied"), "it does not flap while it looks again"
    world.finish("resolve")
    world.settle()
    assert world.ready()[0] == "Unknown"


def test_another_source_starts_afresh() -> None:
    world = World(engine_object())
    world.settle()
    world.fail("resolve", "InvalidModel")
    world.settle()
    engine = world.objects["LLMEngine", "llama"]
    engine["spec"]["source"] = {"huggingFace": {"repo": "other/model"}}
    engine["metadata"]["generation"] = 2
    world.settle()
    assert world.ready()[0] == "Unknown"
    assert world.job("resolve")["metadata"]["name"].endswith("-resolve-1")


def test_equal_inputs_meet_at_one_build() -> None:
    """Fault 30."""
    world = World(engine_object("one", uid="e1"), engine_object("two", uid="e2"))
    world.settle()
    for _ in range(2):
        world.finish("resolve")
    world.settle()
    builds = world.of("LLMEngineBuild")
    assert len(builds) == 1
    assert {ref["uid"] for ref in builds[0]["metadata"]["ownerReferences"]} == {"e1", "e2"}
    assert not any(ref.get("controller") for ref in builds[0]["metadata"]["ownerReferences"])
    for stage in ("fetch", "build", "publish"):
        world.finish(stage)
        world.settle()
    assert len([j for j in world.of("Job") if j["metadata"]["labels"]["trtllm.dev/stage"] == "build"]) == 1


def test_changed_option_builds_anew_and_keeps_the_old_artifact_until_the_new_one_is_verified() -> None:
    world = World(engine_object())
    world.finish_all()
    engine = world.objects["LLMEngine", "llama"]
    first = engine["status"]["artifact"]["build"]
    engine["spec"]["build"] = {"maxBatchSize": 8}
    engine["metadata"]["generation"] = 2
    world.settle()
    assert engine["status"]["artifact"]["build"] == first
    assert engine["status"]["build"] != first
    assert world.ready()[0] == "Unknown"
    assert len(world.of("LLMEngineBuild")) == 2
    for stage in ("fetch", "build", "publish", "verify"):
        assert engine["status"]["artifact"]["build"] == first
        world.finish(stage)
        world.settle()
    assert engine["status"]["artifact"]["build"] != first
    assert names_of(world, "LLMEngineBuild") == [engine["status"]["build"]]  # the old one had no other owner
    assert (
        len({c["metadata"]["name"] for c in world.of("PersistentVolumeClaim") if c["metadata"]["name"].startswith("llama-3-2-1b-src-")})
        == 1
    )


def test_a_build_that_others_own_is_left_by_its_uid() -> None:
    """One that was deleted and made again meanwhile is another, which this engine may want."""
    world = World(engine_object("one", uid="e1"), engine_object("two", uid="e2"))
    world.settle()
    for _ in range(2):
        world.finish("resolve")
    world.settle()
    [shared] = world.of("LLMEngineBuild")
    engine = world.objects["LLMEngine", "one"]
    engine["spec"]["build"] = {"maxBatchSize": 8}
    engine["metadata"]["generation"] = 2
    [leaving] = world.decide(engine).leave
    assert [leaving.obj["metadata"][key] for key in ("name", "uid")] == [shared["metadata"][key] for key in ("name", "uid")]
    assert leaving.owner["uid"] == "e1"


def test_refused_change_keeps_what_is_built() -> None:
    world = World(engine_object())
    world.finish_all()
    engine = world.objects["LLMEngine", "llama"]
    engine["spec"]["runtime"] = {"version": "1.3.0rc29", "backend": "tensorrt"}
    engine["metadata"]["generation"] = 2
    world.settle()
    assert world.ready()[:2] == ("False", "BackendNotAvailable")
    assert engine["status"]["artifact"]
    assert len(world.of("LLMEngineBuild")) == 1


def test_suspend_starts_nothing_new() -> None:
    world = World(engine_object(suspend=True))
    world.settle()
    assert world.ready()[:2] == ("False", "Suspended")
    assert world.of("Job") == []
    engine = world.objects["LLMEngine", "llama"]
    engine["spec"]["suspend"] = False
    world.settle()
    assert len(world.of("Job")) == 1


def test_lost_claim_is_built_again() -> None:
    """Fault 31."""
    world = World(engine_object())
    world.finish_all()
    build = world.of("LLMEngineBuild")[0]["metadata"]["name"]
    world.now += timedelta(minutes=5)
    del world.objects["PersistentVolumeClaim", build]
    world.settle()
    assert world.job("build")["metadata"]["name"].endswith("-build-2")
    world.finish("build")
    world.settle()
    world.finish("publish")
    world.settle()
    assert world.ready("LLMEngineBuild", build)[0] == "True"


def test_lost_status_is_made_again_from_jobs() -> None:
    """Fault 31."""
    world = World(engine_object())
    world.finish_all()
    before = world.objects["LLMEngine", "llama"]["status"]
    for kind in ("LLMEngine", "LLMEngineBuild"):
        world.of(kind)[0].pop("status")
    world.settle()
    after = world.objects["LLMEngine", "llama"]["status"]
    assert after["artifact"] == before["artifact"]
    assert len(world.of("Job")) == 5


def test_pending_pod_says_why_and_a_mended_spec_replaces_it() -> None:
    """Fault 26."""
    world = World(
        engine_object(accelerator={"product": "NVIDIA-H999", "computeCapability": "9.0"}), nodes=(node("NVIDIA-H100-80GB-HBM3", 8),)
    )
    world.settle()
    world.finish("resolve")
    world.settle()
    job = world.job("fetch")
    world.pod(
        job,
        phase="Pending",
        conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}],
    )
    world.settle()
    status, reason, message = world.ready()
    assert (status, reason) == ("False", "GPUProductNotFound")
    assert "NVIDIA-H999" in message
    assert "NVIDIA-H100-80GB-HBM3" in message
    engine = world.objects["LLMEngine", "llama"]
    engine["spec"]["accelerator"] = {"product": "NVIDIA-H100-80GB-HBM3", "computeCapability": "9.0"}
    world.pods.clear()
    world.settle()
    assert world.job("fetch")["spec"]["template"]["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert world.ready()[0] == "Unknown"


def test_too_few_gpus() -> None:
    """Fault 26."""
    world = World(engine_object(parallelism={"tensor": 8}, build={"workers": 8}), nodes=(node("NVIDIA-H100-80GB-HBM3", 2),))
    world.settle()
    for stage in ("resolve", "fetch"):
        world.finish(stage)
        world.settle()
    world.pod(
        world.job("build"),
        phase="Pending",
        conditions=[{"type": "PodScheduled", "status": "False", "message": "Insufficient nvidia.com/gpu"}],
    )
    world.settle()
    status, reason, message = world.ready()
    assert (status, reason) == ("False", "InsufficientGPUs")
    assert "8 of nvidia.com/gpu" in message
    assert "has 2" in message


def test_build_without_owner_goes() -> None:
    world = World(engine_object())
    world.finish_all()
    build = world.of("LLMEngineBuild")[0]
    del world.objects["LLMEngine", "llama"]
    build["metadata"]["ownerReferences"] = []
    world.settle()
    assert world.of("LLMEngineBuild") == []


def test_a_fetch_that_waits_for_a_node_does_not_keep_others_from_fetching() -> None:
    world = World(
        engine_object("stuck", uid="e1", accelerator={"product": "NVIDIA-H999", "computeCapability": "9.0"}, build={"maxBatchSize": 8}),
        engine_object("good", uid="e2"),
        nodes=(node("NVIDIA-H100-80GB-HBM3", 8),),
    )
    world.settle()
    for _ in range(2):
        world.finish("resolve")
    world.settle()
    assert len([j for j in world.of("Job") if j["metadata"]["labels"]["trtllm.dev/stage"] == "fetch"]) == 2


def test_a_running_fetch_of_the_same_checkpoint_is_waited_for() -> None:
    world = World(engine_object("first", uid="e1", build={"maxBatchSize": 8}))
    world.settle()
    world.finish("resolve")
    world.settle()
    world.job("fetch")["status"] = {"active": 1, "ready": 1}
    world.objects["LLMEngine", "second"] = engine_object("second", uid="e2")
    world.settle()
    world.finish("resolve")
    world.settle()
    assert world.ready(name="second")[:2] == ("Unknown", "WaitingForBuild")
    running = next(j for j in world.of("Job") if j.get("status", {}).get("ready"))
    running["status"] = {"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": "2026-01-01T12:00:30Z"}]}
    world.settle()
    assert world.ready(name="second")[1] != "WaitingForBuild"


def test_a_hub_that_does_not_answer_calls_nobody() -> None:
    world = World(engine_object())
    world.settle()
    world.fail("resolve", "HubUnreachable")
    world.settle()
    assert world.ready()[:2] == ("Unknown", "Retrying")
    assert not [c for c in world.objects["LLMEngine", "llama"]["status"]["conditions"] if c["type"] == "Stalled"]
