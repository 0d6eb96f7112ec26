"""Artifacts that are damaged or built again, claims and Jobs that go, time that runs out: what an engine makes of them."""

from __future__ import annotations

from datetime import timedelta

from tests.support.flow import World, engine_object
from tests.unit.test_engine_flow import node


def _reached(*stages: str) -> World:
    """An engine after these stages."""
    world = World(engine_object())
    world.settle()
    for stage in stages:
        world.finish(stage)
        world.settle()
    return world


def _rebuilt(world: World, digest: str) -> None:
    """Somebody deletes the LLMEngineBuild, as reason EngineCorrupt says: the garbage collector takes what is its own."""
    build = world.of("LLMEngineBuild")[0]
    gone = build["metadata"]["uid"]
    for key, obj in list(world.objects.items()):
        if obj is build or any(owner["uid"] == gone for owner in obj["metadata"].get("ownerReferences", ())):
            del world.objects[key]
    world.now += timedelta(minutes=5)
    world.settle()
    assert [job for job in world.of("Job") if job["metadata"]["labels"]["trtllm.dev/stage"] == "verify"] == [], (
        "its pod would keep the old claim"
    )
    for stage in ("fetch", "build"):
        world.finish(stage)
        world.settle()
    world.finish("publish", {"digest": digest})
    world.settle()


def test_a_damaged_artifact_is_refused_and_what_is_built_again_is_verified_again() -> None:
    """Fault 29."""
    world = _reached("resolve", "fetch", "build", "publish")
    world.fail("verify", "EngineCorrupt", "rank0.engine has another SHA-256.")
    world.settle()
    assert world.ready()[:2] == ("False", "EngineCorrupt")
    assert "artifact" not in world.objects["LLMEngine", "llama"]["status"], "nothing may serve it"
    _rebuilt(world, "sha256:" + "e" * 64)
    assert world.ready()[0] == "Unknown"
    world.finish("verify")
    world.settle()
    assert world.ready()[0] == "True"
    assert world.objects["LLMEngine", "llama"]["status"]["artifact"]["digest"] == "sha256:" + "e" * 64


def test_an_artifact_that_was_built_again_is_not_served_before_it_is_verified() -> None:
    """Fault 29."""
    world = _reached("resolve", "fetch", "build", "publish", "verify")
    before = world.objects["LLMEngine", "llama"]["status"]["artifact"]["digest"]
    _rebuilt(world, "sha256:" + "e" * 64)
    status = world.objects["LLMEngine", "llama"]["status"]
    assert world.ready()[0] == "Unknown"
    assert status["artifact"]["digest"] == before, "the new one is not verified"
    world.finish("verify")
    world.settle()
    assert world.objects["LLMEngine", "llama"]["status"]["artifact"]["digest"] != before
    assert world.ready()[0] == "True"


def test_what_is_published_once_stays_so_when_its_jobs_are_gone() -> None:
    """Fault 31. Jobs are removed a day after their end."""
    world = _reached("resolve", "fetch", "build", "publish", "verify")
    for key in [key for key in world.objects if key[0] == "Job"]:
        del world.objects[key]
    world.pods.clear()
    world.now += timedelta(days=2)
    world.writes.clear()
    world.settle()
    assert world.writes == []
    assert world.ready()[0] == "True"


def test_time_that_runs_out_is_no_eviction_and_a_longer_deadline_is_a_reason_to_try_again() -> None:
    """Fault 26. The stage program says that it was stopped, which is all that it knows; and time runs for pods that run, not for those that wait."""
    world = World(engine_object(jobs={"build": {"activeDeadline": "1h"}}))
    world.settle()
    for stage in ("resolve", "fetch"):
        world.finish(stage)
        world.settle()
    job = world.job("build")
    assert "activeDeadlineSeconds" not in job["spec"]
    assert job["spec"]["template"]["spec"]["activeDeadlineSeconds"] == 3600
    world.fail("build", "Evicted", "stopped after 3600 s in step build: the pod is being removed.")
    world.pods[f"{job['metadata']['name']}-x"]["status"]["reason"] = "DeadlineExceeded"
    world.settle()
    assert world.ready()[:2] == ("False", "DeadlineExceeded")
    world.now += timedelta(days=2)
    world.settle()
    assert len([j for j in world.of("Job") if j["metadata"]["labels"]["trtllm.dev/stage"] == "build"]) == 1
    engine = world.objects["LLMEngine", "llama"]
    engine["spec"]["jobs"] = {"build": {"activeDeadline": "6h"}}
    engine["metadata"]["generation"] = 2
    world.settle()
    assert world.job("build")["spec"]["template"]["spec"]["activeDeadlineSeconds"] == 6 * 3600
    assert world.ready()[0] == "Unknown"


def test_a_selector_that_no_node_has_is_not_taken_for_a_lack_of_gpus() -> None:
    """Fault 26."""
    world = World(engine_object(jobs={"build": {"nodeSelector": {"rack": "7"}}}), nodes=(node("NVIDIA-H100-80GB-HBM3", 8),))
    world.settle()
    for stage in ("resolve", "fetch"):
        world.finish(stage)
        world.settle()
    said = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    world.pod(world.job("build"), phase="Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": said}])
    world.settle()
    status, reason, message = world.ready()
    assert (status, reason) == ("Unknown", "WaitingForPod")
    assert said in message


def test_nothing_is_started_on_claims_that_go_with_a_deleted_build_of_the_same_name() -> None:
    """Fault 29. Between the deletion of a build and that of its claims there is a moment."""
    world = _reached("resolve", "fetch")
    build = world.of("LLMEngineBuild")[0]["metadata"]
    for kind in ("LLMEngineBuild", "Job"):
        for key in [key for key in world.objects if key[0] == kind]:
            del world.objects[key]
    world.settle()
    assert world.of("LLMEngineBuild")[0]["metadata"]["uid"] != build["uid"]
    assert world.ready()[:2] == ("Unknown", "WaitingForVolume")
    assert world.of("Job") == []
    for key in [key for key in world.objects if key[0] == "PersistentVolumeClaim"]:
        del world.objects[key]
    world.settle()
    world.finish("fetch")
    world.settle()
    assert world.job("build")


def test_a_job_that_was_made_before_its_claim_does_not_keep_the_stage_from_going_on() -> None:
    """Fault 31. Its name is taken and its result may lie on a claim that is gone, so there is another attempt."""
    world = _reached("resolve")
    job = world.job("fetch")
    world.now += timedelta(seconds=1)
    made = world.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    for claim in world.of("PersistentVolumeClaim"):
        claim["metadata"]["creationTimestamp"] = made
    job["status"] = {"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": made}]}
    world.settle()
    world.finish("fetch")
    world.settle()
    assert world.job("build")


def test_a_job_that_fills_a_claim_that_is_gone_goes_before_another_one_starts() -> None:
    """Fault 31. Two Jobs must never work on one stage."""
    world = _reached("resolve")
    before = world.job("fetch")["metadata"]["name"]
    world.now += timedelta(seconds=1)
    for claim in world.of("PersistentVolumeClaim"):
        claim["metadata"]["creationTimestamp"] = world.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    for build in world.of("LLMEngineBuild"):
        decision = world.decide(build)
        assert [gone.name for gone in decision.delete] == [before]
        assert [wanted.obj["kind"] for wanted in decision.apply if wanted.obj["kind"] == "Job"] == []
    world.settle()
    assert [job["metadata"]["name"] for job in world.of("Job") if "status" not in job] == [world.job("fetch")["metadata"]["name"]]
    assert world.job("fetch")["metadata"]["name"] != before, "a Job of a name that went a moment ago may be left without a pod for minutes"
    world.finish("fetch")
    world.settle()
    assert world.job("build")
