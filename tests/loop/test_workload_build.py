"""What happens to the pods of a build, and what the operator makes of it. Kubelets are a stand-in that misbehaves (tests.support.kubelet_faults).

Many engines side by side in one namespace, told apart by their batch size, which is in the command line of trtllm-build.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import kubelet_faults as faults
from tests.support.api import Api, ApiRefusedError, Document
from tests.support.audit import Audit
from tests.support.flow import FACTS
from tests.support.kubelet_faults import FaultyKubelet, Status
from tests.support.kubelet_standin import STAGE
from tests.support.operator_process import OperatorProcess
from tests.support.samples import condition, engine, is_ready, service
from tests.support.waiting import eventually, nothing_for

Start = Callable[..., OperatorProcess]
SECONDS = 120


@pytest.fixture
def kubelet(api: Api, namespace: str) -> Iterator[FaultyKubelet]:
    with FaultyKubelet(api, namespace) as running:
        yield running


@dataclass(frozen=True)
class Look:
    """Looks at one namespace."""

    api: Api
    namespace: str

    def jobs(self, stage: str, build: str | None = None) -> list[Document]:
        """Jobs of a stage, in the order of their attempts."""
        found = [job for job in self.api.list("Job", self.namespace) if job["metadata"]["labels"].get(STAGE) == stage]
        mine = [job for job in found if build is None or job["metadata"]["labels"].get("trtllm.dev/build") == build]
        return sorted(mine, key=lambda job: int(job["metadata"]["annotations"]["trtllm.dev/attempt"]))

    def pods(self, stage: str) -> list[Document]:
        """Pods of a stage."""
        return [pod for pod in self.api.list("Pod", self.namespace) if pod["metadata"]["labels"].get(STAGE) == stage]

    def shown(self, kind: str, name: str, status: str, reason: str, seconds: float = SECONDS) -> Document:
        """Wait until Ready says so. Raises AssertionError with what it says instead."""

        def look() -> Document | None:
            found = self.api.find(kind, name, self.namespace)
            ready = condition(found, "Ready")
            return found if (ready.get("status"), ready.get("reason")) == (status, reason) else None

        try:
            return eventually(look, what=f"{kind} {name} {status} {reason}", seconds=seconds) or {}
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {condition(self.api.find(kind, name, self.namespace), 'Ready')}") from None

    def ready(self, kind: str, name: str) -> Document:
        """Wait until it is ready."""
        return self.shown(kind, name, "True", "Ready")

    def stage(self, name: str, stage: str) -> dict[str, Any]:
        """What an engine says about a stage."""
        found: list[dict[str, Any]] = self.api.get("LLMEngine", name, self.namespace)["status"]["stages"]
        return next(one for one in found if one["name"] == stage)


@pytest.fixture
def look(api: Api, namespace: str) -> Look:
    return Look(api, namespace)


def batch_size(number: int) -> Callable[[Document], bool]:
    """Is it a pod of the engine with this batch size?"""
    return lambda pod: f'"--max_batch_size","{number}"' in faults.text_of(pod)


def reported(reason: str, message: str) -> Callable[[Document], Status]:
    """Ended with a report of the stage program."""
    return lambda pod: faults.said(pod, reason, message)


def succeeded_silently(pod: Document) -> Status:
    """Exit status 0, and not a word."""
    return faults.ended(pod, 0, reason="Completed")


@dataclass(frozen=True)
class Case:
    """What becomes of the pods of a build, and what is to be seen: the reason with which it ends, and how many attempts that took."""

    pod: Callable[[Document], Status]
    reason: str
    attempts: int
    words: tuple[str, ...] = ()


# Each has one retry. A failure that needs a person must not use it.
FINAL: dict[str, Case] = {
    "oom": Case(faults.out_of_memory, "HostOutOfMemory", 1, ("memory limit of 9Gi",)),
    "killed": Case(lambda pod: faults.ended(pod, 139), "InternalError", 2, ("exit code 139",)),
    "xid": Case(reported("GPUFailed", "uncorrectable ECC error encountered."), "GPUFailed", 2, ("after 2 attempts", "ECC")),
    "gpu-memory": Case(reported("GPUOutOfMemory", "it does not fit."), "GPUOutOfMemory", 1),
    "architecture": Case(reported("UnsupportedArchitecture", "FooForCausalLM is not known."), "UnsupportedArchitecture", 1, ("FooForCausalLM",)),
    "no-space": Case(reported("DiskFull", "0.1 GiB free of 10.0 GiB."), "DiskFull", 1, ("0.1 GiB",)),
    "read-only": Case(reported("VolumeNotWritable", "/engines/x: Read-only file system."), "VolumeNotWritable", 1, ("/engines/x",)),
    "no-engine": Case(reported("NoEngineProduced", "ended without error, but rank0.engine is missing."), "NoEngineProduced", 2, ("rank0",)),
    "silent": Case(succeeded_silently, "InternalError", 2, ("report",)),
    "other-key": Case(reported("EngineCorrupt", "holds an engine of key ffff."), "EngineCorrupt", 1, ("ffff",)),
}  # fmt: skip


def _engine(name: str, namespace: str, number: int, **build_job: Any) -> Document:
    job = {"retries": 1, "resources": {"limits": {"memory": "9Gi"}}, **build_job}
    return engine(name, namespace, build={"maxBatchSize": number}, jobs={"build": job})


def test_each_failure_of_a_build_is_shown_with_its_reason_and_tried_as_often_as_may_help(
    api: Api, namespace: str, start_operator: Start, kubelet: FaultyKubelet, look: Look, audit: Audit
) -> None:
    """Faults 24, 25, 27 and 29."""
    for number, (name, case) in enumerate(FINAL.items(), start=100):
        kubelet.always("build", case.pod, where=batch_size(number))
        api.create(_engine(name, namespace, number))
    api.create(engine("good", namespace))
    api.create(service("chat", namespace, engine="oom"))
    operator = start_operator()
    for name, case in FINAL.items():
        found = look.shown("LLMEngine", name, "False", case.reason)
        assert condition(found, "Stalled")["reason"] == case.reason, name
        message = condition(found, "Ready")["message"]
        assert not [word for word in case.words if word not in message], f"{name}: {message}"
        assert "artifact" not in found["status"], name
        assert look.stage(name, "build")["attempts"] == case.attempts, name
    look.ready("LLMEngine", "good")
    look.shown("LLMService", "chat", "False", "EngineFailed")
    assert api.find("Deployment", "chat", namespace) is None, "nothing is served that was not built"
    eventually(operator.idle, what="idle")
    mark = audit.mark()
    nothing_for(3, lambda: [w for w in audit.by_operator(mark) if w.namespace == namespace], what="no more is tried")
    tried = {name: len(look.jobs("build", api.get("LLMEngine", name, namespace)["status"]["build"])) for name in FINAL}
    assert tried == {name: case.attempts for name, case in FINAL.items()}
    # More memory is the sign that a person has acted.
    kubelet.scripts["build"].insert(0, _usual(batch_size(100 + list(FINAL).index("oom"))))
    api.patch("LLMEngine", "oom", {"spec": {"jobs": {"build": {"resources": {"limits": {"memory": "64Gi"}}}}}}, namespace)
    look.ready("LLMEngine", "oom")
    assert look.stage("oom", "build")["attempts"] == 2


def _usual(where: Callable[[Document], bool]) -> faults.Script:
    """What a kubelet usually does, whatever scripts behind this one say."""

    def script(pod: Document) -> Status | None:
        if not where(pod):
            return None
        stage = pod["metadata"]["labels"][STAGE]
        if pod.get("status", {}).get("phase") == "Pending":
            return {"phase": "Running"}
        return faults.ended(pod, 0, reason="Completed", message=json.dumps({"ok": True, "stage": stage, "facts": FACTS[stage]}))

    return script


def test_disruptions_make_another_pod_of_the_same_attempt(
    api: Api, namespace: str, start_operator: Start, kubelet: FaultyKubelet, look: Look
) -> None:
    """Fault 23."""
    disruptions = {"evicted": faults.evicted, "preempted": faults.preempted}
    for number, (name, status) in enumerate(disruptions.items(), start=200):
        kubelet.once("build", status, where=batch_size(number))
        api.create(_engine(name, namespace, number, retries=0))
    start_operator()
    for name in disruptions:
        built = look.ready("LLMEngine", name)
        assert look.stage(name, "build")["attempts"] == 1, "a disruption is no attempt"
        jobs = look.jobs("build", built["status"]["build"])
        assert len(jobs) == 1
        assert len([pod for pod in look.pods("build") if faults.build_of(pod) == built["status"]["build"]]) == 2


def test_a_lost_node_never_makes_two_builds_at_a_time(
    api: Api, namespace: str, start_operator: Start, kubelet: FaultyKubelet, look: Look
) -> None:
    """Fault 23. As long as nobody knows whether the first pod still runs, there is no second one."""
    kubelet.once("build", faults.node_lost)
    api.create(_engine("tiny", namespace, 1, retries=0))
    operator = start_operator()

    def lost() -> list[Document]:
        return [pod for pod in look.pods("build") if pod.get("status", {}).get("reason") == "NodeLost"]

    pod = eventually(lost, what="node lost", seconds=SECONDS)[0]
    eventually(operator.idle, what="idle")
    nothing_for(3, lambda: len(look.jobs("build")) - 1 or len(look.pods("build")) - 1, what="no second build")
    assert condition(api.get("LLMEngine", "tiny", namespace), "Ready")["status"] == "Unknown"
    # The taint eviction controller gives up on the node; the garbage collector of pods ends the pod.
    taken = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
    }
    api.patch("Pod", pod["metadata"]["name"], {"status": faults.ended(pod, 137) | {"conditions": [taken]}}, namespace, "status")
    look.ready("LLMEngine", "tiny")
    assert len(look.jobs("build")) == 1
    assert len(look.pods("build")) == 2
    assert look.stage("tiny", "build")["attempts"] == 1


NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available."
UNBOUND = "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"
WAITING: dict[str, tuple[Callable[[Document], Status], str, str, str]] = {
    "no-gpu": (faults.unschedulable(NO_GPU), "Unknown", "WaitingForGPU", "3 Insufficient nvidia.com/gpu"),
    "unbound": (faults.unschedulable(UNBOUND), "Unknown", "WaitingForVolume", "unbound"),
    "no-node": (faults.unschedulable("0/3 nodes are available: 3 Insufficient memory."), "Unknown", "WaitingForPod", "Insufficient memory"),
    "image": (faults.waiting("ImagePullBackOff", "Back-off pulling image: not found"), "False", "ImagePullFailed", "1.2.1"),
    "secret": (faults.waiting("CreateContainerConfigError", 'secret "hub-token" not found'), "Unknown", "SecretNotFound", "hub-token"),
}


def test_what_waits_says_for_what_and_goes_on_in_the_same_attempt(
    api: Api, namespace: str, start_operator: Start, kubelet: FaultyKubelet, look: Look, audit: Audit
) -> None:
    """Faults 26, 27 and 35. Nothing is written while it waits, and no time runs out."""
    release = []
    for number, (name, (pod, *_)) in enumerate(WAITING.items(), start=300):
        release.append(kubelet.always("build", pod, where=batch_size(number)))
        api.create(_engine(name, namespace, number, retries=0))
    operator = start_operator(READ_NODES="false")
    for name, (_, status, reason, word) in WAITING.items():
        found = look.shown("LLMEngine", name, status, reason)
        assert word in condition(found, "Ready")["message"], name
        beside = "Stalled" if status == "False" else "Reconciling"
        assert condition(found, beside)["reason"] == reason, name
    eventually(operator.idle, what="idle")
    mark, before = audit.mark(), _passes(operator)
    nothing_for(6, lambda: [w for w in audit.by_operator(mark) if w.namespace == namespace], what="no write while it waits")
    assert _passes(operator) - before <= 2 * len(WAITING), "no hot loop"
    for go_on in release:
        go_on()
    for name in WAITING:
        look.ready("LLMEngine", name)
        assert look.stage(name, "build")["attempts"] == 1


def _passes(operator: OperatorProcess) -> float:
    return sum(value for name, value in operator.metrics().items() if name.startswith("trtllm_operator_reconcile_seconds_count"))


def _late(pod: Document) -> Status:
    """The kubelet has ended it, and the stage program says all that it knows."""
    late = {"reason": "DeadlineExceeded", "message": "Pod was active on the node longer than the specified deadline"}
    return faults.said(pod, "Evicted", "stopped after 3600 s: the pod is being removed.") | late


def test_a_deadline_ends_an_attempt_and_is_told(
    api: Api, namespace: str, start_operator: Start, kubelet: FaultyKubelet, look: Look
) -> None:
    """Fault 26."""
    over = kubelet.always("build", _late)
    api.create(_engine("slow", namespace, 1, activeDeadline="1h"))
    start_operator()
    found = look.shown("LLMEngine", "slow", "False", "DeadlineExceeded")
    assert "activeDeadline" in condition(found, "Ready")["message"]
    assert condition(found, "Stalled")
    assert len(look.jobs("build")) == 1
    over()
    api.patch("LLMEngine", "slow", {"spec": {"jobs": {"build": {"activeDeadline": "6h"}}}}, namespace)
    look.ready("LLMEngine", "slow")


def test_a_finished_engine_is_known_without_its_jobs(
    api: Api, namespace: str, start_operator: Start, kubelet: FaultyKubelet, look: Look, audit: Audit
) -> None:
    """Fault 31. The TTL controller, or a person, removes Jobs: before, while and after they matter."""
    kubelet.hold.add("build")
    api.create(engine("tiny", namespace))
    operator = start_operator()
    job = eventually(lambda: look.jobs("build"), what="a build", seconds=SECONDS)[0]
    eventually(lambda: look.pods("build"), what="its pod")
    api.delete("Job", job["metadata"]["name"], namespace)

    def again() -> list[Document]:
        return [other for other in look.jobs("build") if other["metadata"]["uid"] != job["metadata"]["uid"]]

    eventually(again, what="the build is started again", seconds=SECONDS)

    def later() -> list[Document]:
        """Pods of Jobs after the first: its own may still run until the garbage collector comes."""
        return [p for p in look.pods("build") if job["metadata"]["uid"] not in [o["uid"] for o in p["metadata"].get("ownerReferences", [])]]

    # Now only its pod.
    pod = eventually(lambda: [p for p in later() if p["status"].get("phase") == "Running"], what="its pod runs", seconds=SECONDS)[0]
    api.delete("Pod", pod["metadata"]["name"], namespace)
    eventually(lambda: [p for p in later() if p["metadata"]["uid"] != pod["metadata"]["uid"]], what="another pod", seconds=SECONDS)
    kubelet.hold.clear()
    look.ready("LLMEngine", "tiny")
    ended = kubelet.ended["build"]
    for done in api.list("Job", namespace):
        api.delete("Job", done["metadata"]["name"], namespace)
    eventually(lambda: not api.list("Job", namespace), what="no Job is left", seconds=SECONDS)
    operator.stop()
    mark = audit.mark()
    operator.start()
    eventually(lambda: _passes(operator) > 0 and operator.idle(), what="looked at again")
    nothing_for(4, lambda: api.list("Job", namespace), what="nothing is built again")
    assert [w for w in audit.by_operator(mark) if w.namespace == namespace] == []
    assert is_ready(api.get("LLMEngine", "tiny", namespace))
    assert kubelet.ended["build"] == ended


def test_a_damaged_artifact_is_never_served_and_built_again_when_its_build_is_deleted(
    api: Api, namespace: str, start_operator: Start, kubelet: FaultyKubelet, look: Look
) -> None:
    """Faults 28 and 29."""
    mended = kubelet.always(
        "verify", reported("EngineCorrupt", "rank0.engine has another SHA-256. Delete the LLMEngineBuild: it is built again")
    )
    api.create(engine("tiny", namespace))
    api.create(service("chat", namespace))
    start_operator()
    found = look.shown("LLMEngine", "tiny", "False", "EngineCorrupt")
    assert "LLMEngineBuild" in condition(found, "Ready")["message"]
    assert len(look.jobs("verify")) == 1
    look.shown("LLMService", "chat", "False", "EngineFailed")
    assert api.find("Deployment", "chat", namespace) is None
    mended()
    kubelet.facts["publish"]["digest"] = "sha256:" + "e" * 64
    build = found["status"]["build"]
    api.delete("LLMEngineBuild", build, namespace)
    # No controller of this control plane lets claims go that no pod uses any more; in a cluster the one for their protection does.

    def again() -> Document | None:
        _let_claims_go(api, namespace)
        found = api.get("LLMEngine", "tiny", namespace)
        return found if is_ready(found) else None

    built = eventually(again, what="it is built again", seconds=SECONDS) or {}
    assert built["status"]["artifact"]["digest"] == "sha256:" + "e" * 64
    look.ready("LLMService", "chat")


def _let_claims_go(api: Api, namespace: str) -> bool:
    """Let claims go that are being deleted. True once there was one."""
    leaving = [claim for claim in api.list("PersistentVolumeClaim", namespace) if "deletionTimestamp" in claim["metadata"]]
    for claim in leaving:
        with contextlib.suppress(ApiRefusedError):  # it has gone meanwhile
            api.patch("PersistentVolumeClaim", claim["metadata"]["name"], {"metadata": {"finalizers": None}}, namespace)
    return bool(leaving)


def test_a_claim_or_job_of_somebody_else_is_left_alone_and_shown(
    api: Api, namespace: str, start_operator: Start, kubelet: FaultyKubelet, look: Look
) -> None:
    """Fault 33."""
    kubelet.hold.add("build")
    api.create(engine("tiny", namespace))
    operator = start_operator()
    name = eventually(lambda: look.jobs("build"), what="a build", seconds=SECONDS)[0]["metadata"]["labels"]["trtllm.dev/build"]
    operator.stop()
    api.delete("LLMEngine", "tiny", namespace)
    eventually(
        lambda: _let_claims_go(api, namespace) or not api.list("PersistentVolumeClaim", namespace), what="claims leave", seconds=SECONDS
    )
    eventually(
        lambda: not api.list("PersistentVolumeClaim", namespace) and not api.list("Job", namespace), what="all is gone", seconds=SECONDS
    )
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    mine = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": namespace}, "spec": spec}
    made = api.create(mine)
    api.create(engine("tiny", namespace))
    operator.start()
    found = look.shown("LLMEngine", "tiny", "False", "NameConflict")
    assert name in condition(found, "Ready")["message"]
    assert api.get("PersistentVolumeClaim", name, namespace)["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert not look.jobs("build")
