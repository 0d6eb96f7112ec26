"""What is told about pods that do not answer: reason, pod, next step, and whether a person must act."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.test_service_decide import ready
from tests.unit.test_service_world import Json, World, build_object, unschedulable


def node(name: str, gpus: int, product: str = "H100") -> Json:
    return {
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": product}},
        "status": {"allocatable": {"nvidia.com/gpu": str(gpus)}},
    }


SCHEDULING: list[tuple[tuple[Json, ...] | None, str, tuple[str, str]]] = [
    ((node("n", 8, "A100"),), "Insufficient nvidia.com/gpu", ("False", "GPUProductNotFound")),
    ((node("n", 1),), "Insufficient nvidia.com/gpu", ("False", "InsufficientGPUs")),
    ((node("n", 8),), "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.", ("Unknown", "WaitingForGPU")),
    (None, "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.", ("Unknown", "WaitingForGPU")),
    (None, "0/1 nodes are available: 1 Insufficient cpu.", ("Unknown", "WaitingForPod")),
]


@pytest.mark.parametrize(("nodes", "message", "shown"), SCHEDULING)
def test_pods_that_fit_nowhere(nodes: tuple[Json, ...] | None, message: str, shown: tuple[str, str]) -> None:
    world = World(engine=False, nodes=nodes)
    world.verified(build_object(tensor=2))
    world.settle()
    world.controller(available=0)
    world.pod("chat-1", node=None, phase="Pending", **unschedulable(message))
    world.settle()
    assert ready(world) == shown
    assert "chat-1" in world.condition("Ready")[2]


def waiting(reason: str, message: str = "") -> list[Json]:
    return [{"name": "server", "ready": False, "image": "img:1", "state": {"waiting": {"reason": reason, "message": message}}}]


def crashed(text: str, *, code: int = 1, restarts: int = 0, reason: str = "Error") -> list[Json]:
    ended = {"terminated": {"exitCode": code, "reason": reason, "message": text}}
    state = {"waiting": {"reason": "CrashLoopBackOff"}} if restarts else ended
    return [{"name": "server", "ready": False, "restartCount": restarts, "state": state, "lastState": ended if restarts else {}}]


PODS: list[tuple[str, list[Json], tuple[str, str], str]] = [
    ("Pending", waiting("ImagePullBackOff", "not found"), ("False", "ImagePullFailed"), "img:1"),
    ("Pending", waiting("CreateContainerConfigError", 'secret "x" not found'), ("Unknown", "SecretNotFound"), '"x"'),
    ("Pending", waiting("CreateContainerConfigError", 'configmap "y" not found'), ("Unknown", "WaitingForPod"), '"y"'),
    ("Running", crashed("", code=137, reason="OOMKilled"), ("Unknown", "HostOutOfMemory"), "memory limit of 64Gi"),
    ("Running", crashed("", code=137, reason="OOMKilled", restarts=3), ("False", "HostOutOfMemory"), "chat-1"),
    (
        "Running",
        crashed(
            "boom\nThe engine plan file is not compatible with this version of TensorRT, expecting library version 10.1 got 10.2, please rebuild."
        ),
        ("False", "EngineVersionMismatch"),
        "expecting library version 10.1",
    ),
    (
        "Running",
        crashed("The engine plan file is generated on an incompatible device, expecting compute 9.0 got compute 8.9, please rebuild."),
        ("False", "GPUMismatch"),
        "compute 9.0",
    ),
    ("Running", crashed("torch.OutOfMemoryError: CUDA out of memory.", restarts=1), ("Unknown", "GPUOutOfMemory"), "serve.maxBatchSize"),
    ("Running", crashed("Executor creation failed due to insufficient GPU memory.", restarts=2), ("False", "GPUOutOfMemory"), "chat-1"),
    ("Running", crashed("Error: No such option: --tool_parser", code=2), ("False", "BadOptions"), "No such option: --tool_parser"),
    (
        "Running",
        crashed("pydantic_core._pydantic_core.ValidationError: 1 validation error for TorchLlmArgs"),
        ("False", "BadOptions"),
        "serve.options",
    ),
    (
        "Running",
        crashed("ValueError: Unknown architecture for AutoModelForCausalLM: X\nCUDA out of memory"),
        ("False", "UnsupportedArchitecture"),
        "X",
    ),
    ("Running", crashed("Executor creation failed with NCCL error: unhandled cuda error"), ("Unknown", "NCCLInitFailed"), "NCCL"),
    ("Running", crashed("RuntimeError: Only 1 GPUs are available, but 2 are required."), ("False", "InsufficientGPUs"), "Only 1"),
    (
        "Running",
        crashed("Quota not set. Check kv_cache_config.max_tokens or x"),
        ("False", "BadOptions"),
        "kv_cache_config.max_tokens in serve.options",
    ),
    ("Running", crashed("a\nb\nc\nd", restarts=1), ("Unknown", "InternalError"), "exit code 1: b | c | d"),
    ("Running", crashed("", restarts=2), ("False", "InternalError"), "exit code 1"),
]


@pytest.mark.parametrize(("phase", "containers", "shown", "words"), PODS)
def test_pods_that_do_not_run(phase: str, containers: list[Json], shown: tuple[str, str], words: str) -> None:
    world = World(placement={"resources": {"limits": {"memory": "64Gi"}}})
    world.settle()
    world.controller(available=0)
    world.pod("chat-1", phase=phase, containerStatuses=containers)
    world.settle()
    assert ready(world) == shown
    assert words in world.condition("Ready")[2]
    assert "chat-1" in world.condition("Ready")[2]
    world.pod("chat-1", containerStatuses=[{"name": "server", "ready": True, "restartCount": 3, "state": {"running": {}}}])
    world.controller()
    world.settle()
    assert ready(world) == ("True", "Ready")


def test_trouble_of_the_new_pod_is_told_while_the_old_one_answers() -> None:
    world = World()
    world.roll_out()
    world.pod("a-old")
    world.change(runtime={"image": "example.test/typo:1"})
    world.settle()
    world.pod("b-new", phase="Pending", containerStatuses=waiting("ErrImagePull"))
    world.controller(updated=1, total=2, available=1)
    world.settle()
    assert ready(world) == ("False", "ImagePullFailed")
    assert "b-new" in world.condition("Ready")[2]
    assert world.condition("Available")[0] == "True"
    assert world.condition("RolledOut")[:2] == ("False", "ImagePullFailed")


def test_new_pods_come_before_old_ones_in_what_is_told() -> None:
    world = World()
    world.roll_out()
    world.pod("a-old", containerStatuses=crashed("", code=137, reason="OOMKilled"))
    world.change(serve={"maxBatchSize": 2})
    world.settle()
    world.pod("b-new", node=None, phase="Pending", **unschedulable("0/1 nodes are available: 1 Insufficient cpu."))
    world.controller(updated=1, total=2, available=0)
    world.settle()
    assert ready(world) == ("Unknown", "WaitingForPod")
    assert "b-new" in world.condition("Ready")[2]


@pytest.mark.parametrize("with_pod", [False, True])
def test_progress_deadline(with_pod: bool) -> None:
    world = World()
    world.roll_out()
    world.change(serve={"maxBatchSize": 2})
    world.settle()
    if with_pod:
        world.pod("b", node=None, phase="Pending", **unschedulable("Insufficient nvidia.com/gpu"))
    late: dict[str, Any] = {"status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out progressing."}
    world.controller(updated=1, total=2, available=1, Progressing=late)
    world.settle()
    assert ready(world) == ("False", "ProgressDeadlineExceeded")
    assert ("WaitingForGPU" in world.condition("Ready")[2]) is with_pod
    assert world.condition("Available")[0] == "True"
    world.change(serve={})  # back: the deadline was another revision's
    world.step()
    assert ready(world)[0] == "Unknown"


def test_refused_pods() -> None:
    world = World()
    world.settle()
    world.controller(
        updated=0, available=0, total=0, ReplicaFailure={"status": "True", "reason": "FailedCreate", "message": "exceeded quota: gpus"}
    )
    world.settle()
    assert ready(world) == ("False", "PodRejected")
    assert "exceeded quota" in world.condition("Ready")[2]
