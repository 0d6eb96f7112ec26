"""What goes wrong with pods, volumes and servers, with real kubelets. All of it at the same time, each in a namespace of its own: most of it is waiting.

Programs that misbehave are the simulator's (images/simulator/README.md); evictions, lacks of memory and refusals of volumes are Kubernetes' own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from tests.e2e.conftest import PATIENCE, SMALL, Space, engine, namespace, service
from tests.e2e.test_serving import ask, node_url, request_loop
from tests.support.kubectl import Kubectl, condition

T = TypeVar("T")
SECONDS = 300.0
SCENARIOS: list[Callable[[Space], None]] = []


@dataclass(frozen=True)
class Patient(Kubectl):
    """Looks less often, because many look at the same time."""

    def wait(self, what: str, look: Callable[[], T | None], seconds: float = SECONDS, every: float = 2.5) -> T:
        """As Kubectl's, but everything takes longer where everything happens at once."""
        return super().wait(what, look, max(seconds, SECONDS) * PATIENCE, every)


def scenario(run: Callable[[Space], None]) -> Callable[[dict[str, Future[None]]], None]:
    """A test whose body runs beside all the others."""
    SCENARIOS.append(run)

    def test(running: dict[str, Future[None]]) -> None:
        running[run.__name__].result()

    test.__name__, test.__doc__ = run.__name__, run.__doc__
    return test


@pytest.fixture(scope="module")
def running(cluster: Kubectl, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[None]]]:
    """All scenarios that were chosen, started at once."""
    chosen = {item.name for item in request.session.items}
    patient = Patient(cluster.kubectl, cluster.kubeconfig, None, cluster.environment)

    def one(run: Callable[[Space], None]) -> None:
        with namespace(patient) as space:
            run(Space(Patient(patient.kubectl, patient.kubeconfig, space.kubectl.namespace, patient.environment)))

    with ThreadPoolExecutor(len(SCENARIOS)) as pool:
        yield {run.__name__: pool.submit(one, run) for run in SCENARIOS if run.__name__ in chosen}


def _broken(name: str, fault: str, **spec: Any) -> dict[str, Any]:
    return engine(name, repo=f"demo/broken-{fault}", **spec)


def _build_job(**settings: Any) -> dict[str, Any]:
    jobs: dict[str, Any] = {stage: {"resources": SMALL} for stage in ("fetch", "build", "verify")}
    jobs["build"] |= settings
    return jobs


def _stage(space: Space, name: str, stage: str) -> dict[str, Any]:
    stages: list[dict[str, Any]] = space.kubectl.get("llmengine", name)["status"]["stages"]
    return next(one for one in stages if one["name"] == stage)


def _pods(space: Space, stage: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = space.kubectl.get("pods", None, f"--selector=trtllm.dev/stage={stage}")["items"]
    return items


def _refused(space: Space, name: str, reason: str, *words: str) -> None:
    """A person must act, and the message says about what."""
    found = space.reason("llmengine", name, reason, SECONDS)
    assert found["status"] == "False"
    assert condition(space.kubectl.get("llmengine", name), "Stalled")["reason"] == reason
    assert not [word for word in words if word not in found["message"]], found["message"]


@scenario
def test_an_evicted_build_goes_on_in_another_pod_of_the_same_attempt(space: Space) -> None:
    """Fault 23."""
    space.apply(engine("llama", repo="demo/slow-llama", jobs=_build_job(retries=0)))

    def running_pod() -> str | None:
        return next((str(pod["metadata"]["name"]) for pod in _pods(space, "build") if pod["status"].get("phase") == "Running"), None)

    name = space.kubectl.wait("a build that runs", running_pod)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": space.kubectl.namespace}}
    path = f"/api/v1/namespaces/{space.kubectl.namespace}/pods/{name}/eviction"
    space.kubectl("create", f"--raw={path}", "--filename=-", stdin=json.dumps(eviction))
    space.ready("llmengine", "llama", SECONDS)
    assert len(space.jobs("build")) == 1
    assert _stage(space, "llama", "build")["attempts"] == 1
    done = [pod for pod in _pods(space, "build") if pod["status"]["phase"] == "Succeeded"]
    assert [pod["metadata"]["name"] for pod in done] != [name]


@scenario
def test_a_build_that_the_kernel_kills_for_want_of_memory_says_so_and_goes_on_with_more(space: Space) -> None:
    """Fault 24. The limit is too low for numpy alone."""
    little = {"requests": {"cpu": "20m", "memory": "24Mi"}, "limits": {"memory": "24Mi"}}
    space.apply(engine("llama", jobs=_build_job(resources=little)))
    _refused(space, "llama", "HostOutOfMemory", "24Mi")
    assert len(space.jobs("build")) == 1, "the same again would end the same way"
    space.apply(engine("llama", jobs=_build_job(resources={**SMALL, "limits": {"memory": "1Gi"}})))
    space.ready("llmengine", "llama", SECONDS)
    assert _stage(space, "llama", "build")["attempts"] == 2


@scenario
def test_a_build_that_hangs_ends_at_its_deadline(space: Space) -> None:
    """Fault 26."""
    space.apply(_broken("llama", "build-hang", jobs=_build_job(activeDeadline="20s")))
    _refused(space, "llama", "DeadlineExceeded", "activeDeadline")
    assert len(space.jobs("build")) == 1


@scenario
def test_a_full_volume_is_named_and_not_tried_again(space: Space) -> None:
    """Fault 27. ENOSPC in the middle of trtllm-build."""
    space.apply(_broken("llama", "build-disk-full"), service("llama"))
    _refused(space, "llama", "DiskFull", "storage.size", "No space left on device")
    assert len(space.jobs("build")) == 1
    space.reason("llmservice", "llama", "EngineFailed")


@scenario
def test_a_volume_that_the_pods_may_not_write_to_is_named(space: Space) -> None:
    """Fault 27. A directory of root's, as NFS with root_squash gives it: fsGroup does not help there."""
    volume = f"rooted-{space.kubectl.namespace}"
    storage = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    place = {"path": f"/var/{volume}", "type": "DirectoryOrCreate"}
    size = {"storage": "1Gi"}
    space.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {**storage, "capacity": size, "hostPath": place},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "models"},
            "spec": {**storage, "volumeName": volume, "resources": {"requests": size}},
        },
        engine("llama", storage={"claimName": "models"}),
    )
    try:
        _refused(space, "llama", "VolumeNotWritable", "Permission denied", "/checkpoints")
        assert len(space.jobs("fetch")) == 1
        assert space.jobs("build") == [], "no GPU was spent"
    finally:
        space.kubectl("delete", "persistentvolume", volume, "--wait=false")


@scenario
def test_half_an_engine_is_not_served(space: Space) -> None:
    """Fault 28. trtllm-build ends with status 0 and half of a file: it looks whole, and does not load."""
    space.apply(_broken("llama", "build-half-engine"), service("llama"))
    _refused(space, "llama", "VerifyFailed")
    space.reason("llmservice", "llama", "EngineFailed")
    assert not space.kubectl.get("deployment", "llama"), "nothing serves it"


@scenario
def test_a_builder_that_makes_nothing_is_tried_again_and_then_given_up(space: Space) -> None:
    """Fault 29. trtllm-build ends with status 0 and without an engine."""
    space.apply(_broken("llama", "build-no-engine", jobs=_build_job(retries=1)))
    _refused(space, "llama", "NoEngineProduced", "after 2 attempts", "config.json is missing")
    assert len(space.jobs("build")) == 2
    assert space.jobs("publish") == []


FLIP = """
import glob, os
path, = glob.glob("/engines/*/artifact/engine/rank0.engine")
os.chmod(path, 0o600)
with open(path, "r+b") as file:
    file.seek(-1000, 2)
    byte = file.read(1)[0]
    file.seek(-1000, 2)
    file.write(bytes([byte ^ 1]))
print("flipped")
"""


def _pod(name: str, claim: str, code: str) -> dict[str, Any]:
    """Runs Python with a claim, as the user of our pods."""
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": name,
        "image": "trtllm-operator/hub:dev",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", code],
        "securityContext": secure,
        "volumeMounts": [{"name": "data", "mountPath": "/engines"}],
    }
    user = {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    spec = {"restartPolicy": "Never", "securityContext": user, "containers": [container], "volumes": volumes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


@scenario
def test_a_flipped_bit_is_found_before_anything_is_served_and_a_new_build_mends_it(space: Space) -> None:
    """Fault 29. Between publishing and verifying, one bit of a published engine changes on the volume."""
    jobs = _build_job()
    held = {**jobs, "verify": {"resources": SMALL, "nodeSelector": {"nowhere": "yet"}}}
    space.apply(engine("llama", jobs=held), service("llama"))
    space.reason("llmengine", "llama", "WaitingForPod", SECONDS)
    build = space.kubectl.get("llmengine", "llama")["status"]["build"]
    space.apply(_pod("flip", build, FLIP))

    def flipped() -> bool | None:
        phase = space.kubectl.get("pod", "flip").get("status", {}).get("phase")
        assert phase != "Failed", space.kubectl("logs", "flip")
        return True if phase == "Succeeded" else None

    space.kubectl.wait("a bit flipped", flipped)
    space.apply(engine("llama", jobs=jobs))
    _refused(space, "llama", "EngineCorrupt", "rank0.engine", "LLMEngineBuild")
    assert not space.kubectl.get("deployment", "llama"), "nothing serves it"
    space.kubectl("delete", "llmenginebuild", build, "--wait=false")
    space.kubectl("delete", "pod", "flip", "--wait=false")
    space.ready("llmengine", "llama", SECONDS)
    space.ready("llmservice", "llama", SECONDS)


@scenario
def test_a_new_engine_that_does_not_load_takes_no_request_from_the_old_one(space: Space) -> None:
    """Fault 34. It loads where it is verified, and not in the server."""
    space.apply(engine("llama"), service("llama", expose={"service": {"type": "NodePort"}}))
    space.ready("llmservice", "llama", SECONDS)
    url = space.kubectl.wait("a node port", lambda: node_url(space))
    with request_loop(url, "llama") as first:  # that the rules of the network follow the pods is the node's work
        space.kubectl.wait("the first answer", lambda: first.answers or None)
    with request_loop(url, "llama", every=0.5) as loop:
        space.apply(_broken("llama", "serve-gpu-oom"))

        def told() -> bool | None:
            found = condition(space.kubectl.get("llmservice", "llama"), "Ready")
            return True if found.get("reason") == "GPUOutOfMemory" else None

        space.kubectl.wait("the new pod's trouble is told", told)
        seen = space.kubectl.get("llmservice", "llama")
        assert condition(seen, "Available")["status"] == "True"
        assert condition(seen, "RolledOut")["status"] != "True"
        space.apply(engine("llama"))
        space.ready("llmengine", "llama", SECONDS)
        space.ready("llmservice", "llama", SECONDS)
        answered = loop.answers
        space.kubectl.wait("answers afterwards", lambda: True if loop.answers >= answered + 3 else None)
    assert loop.errors == []


def _restarts(space: Space) -> int:
    pods = space.kubectl.get("pods", None, "--selector=trtllm.dev/service=llama")["items"]
    return max((int(c.get("restartCount", 0)) for pod in pods for c in pod["status"].get("containerStatuses", ())), default=0)


@scenario
def test_a_server_that_is_ready_and_then_crashes_is_told_when_it_does_so_again_and_again(space: Space) -> None:
    """Fault 34. Its engine dies after some tokens, and the server ends."""
    space.apply(_broken("llama", "serve-crash"), service("llama", expose={"service": {"type": "NodePort"}}))
    space.ready("llmservice", "llama", SECONDS)
    generation = space.kubectl.get("deployment", "llama")["metadata"]["generation"]
    url = space.kubectl.wait("a node port", lambda: node_url(space))
    with request_loop(url, "llama", every=0.5) as loop:  # each start ends with the next question, so the kubelet waits ever longer
        found = space.kubectl.wait("a person is called", lambda: condition(space.kubectl.get("llmservice", "llama"), "Stalled") or None)
    assert found["reason"] == "InternalError"
    assert loop.errors
    assert _restarts(space) >= 2, "one crash calls nobody"
    assert "ended with exit code" in found["message"]
    space.ready("llmservice", "llama", SECONDS)
    assert space.kubectl.get("deployment", "llama")["metadata"]["generation"] == generation, "restarting is the kubelet's work"


@scenario
def test_a_server_that_lies_about_its_health_is_replaced_as_soon_as_a_person_changes_it(space: Space) -> None:
    """Fault 34. /health says 200 and every generation fails: only requests show it, as /health is all that a probe can ask this version."""
    space.apply(_broken("llama", "serve-health-lies"), service("llama"))
    space.ready("llmservice", "llama", SECONDS)
    with space.kubectl.forward("deployment/llama", 8000) as url, pytest.raises(Exception, match=r"(?i)error|50\d"):
        ask(url, "llama")
    space.apply(engine("llama"))
    space.ready("llmengine", "llama", SECONDS)
    space.ready("llmservice", "llama", SECONDS)
    with space.kubectl.forward("service/llama", 8000) as url:
        assert ask(url, "llama")
