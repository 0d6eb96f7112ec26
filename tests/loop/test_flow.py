"""The whole operator with its real decisions, from apply to ready; kubelets are a stand-in (tests.support.kubelet_standin)."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.support.api import Api, Document
from tests.support.audit import Audit
from tests.support.kubelet_standin import STAGE, Failure, KubeletStandIn
from tests.support.operator_process import OperatorProcess
from tests.support.samples import condition, engine, is_ready, service, with_condition
from tests.support.waiting import eventually, nothing_for, unchanging

Start = Callable[..., OperatorProcess]
KINDS = (
    "LLMEngine",
    "LLMEngineBuild",
    "LLMService",
    "Job",
    "PersistentVolumeClaim",
    "Deployment",
    "Service",
    "ConfigMap",
    "PodDisruptionBudget",
    "NetworkPolicy",
)
SETTLE_SECONDS = 60


def _ready(api: Api, namespace: str, kind: str, name: str) -> Document:
    def look() -> Document:
        found = api.find(kind, name, namespace)
        return found if found is not None and is_ready(found) else {}

    try:
        return eventually(look, what=f"{kind} {name} ready", seconds=SETTLE_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}; its status: {(api.find(kind, name, namespace) or {}).get('status')}") from error


def _versions(api: Api, namespace: str) -> dict[tuple[str, str], str]:
    objects = [(kind, obj["metadata"]) for kind in KINDS for obj in api.list(kind, namespace)]
    return {(kind, metadata["name"]): metadata["resourceVersion"] for kind, metadata in objects}


def _owners(api: Api, namespace: str, build: str) -> list[str]:
    return [owner["kind"] for owner in api.get("LLMEngineBuild", build, namespace)["metadata"]["ownerReferences"]]


def _jobs(api: Api, namespace: str, stage: str) -> list[str]:
    return [job["metadata"]["name"] for job in api.list("Job", namespace) if job["metadata"]["labels"].get(STAGE) == stage]


def test_from_apply_to_ready_then_quiet_and_a_restart_changes_nothing(
    api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn, audit: Audit
) -> None:
    operator = start_operator()
    # The service comes first: order does not matter.
    api.create(service("chat", namespace))
    waiting = eventually(lambda: with_condition(api.find("LLMService", "chat", namespace), "Ready"), what="service looked at")
    assert condition(waiting, "Ready")["reason"] == "EngineNotFound"
    api.create(engine("tiny", namespace))
    built = _ready(api, namespace, "LLMEngine", "tiny")
    served = _ready(api, namespace, "LLMService", "chat")
    assert built["status"]["artifact"]["kind"] == "TensorRTEngine"
    assert served["status"]["url"].startswith("http://chat.")
    assert {stage: kubelet.ended[stage] for stage in ("resolve", "fetch", "build", "publish", "verify")} == dict.fromkeys(
        ("resolve", "fetch", "build", "publish", "verify"), 1
    )

    eventually(operator.idle, what="idle")
    assert operator.metrics()["trtllm_operator_idle_writes_total"] == 0, "no apply was in vain"
    before = unchanging(lambda: _versions(api, namespace), what="quiet controllers", every=1)
    mark = audit.mark()
    nothing_for(10, lambda: audit.by_operator(mark), what="no write when all is done")
    operator.stop()
    mark = audit.mark()
    operator.start()
    eventually(lambda: operator.metrics().get("trtllm_operator_reconcile_seconds_count{kind=LLMService}", 0) > 0, what="looked at again")
    eventually(operator.idle, what="idle")
    nothing_for(5, lambda: audit.by_operator(mark), what="no write after a restart")
    assert _versions(api, namespace) == before
    assert operator.metrics()["trtllm_operator_idle_writes_total"] == 0
    assert "Traceback" not in operator.log()


def test_killed_in_mid_build_there_is_one_build_only(api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn) -> None:
    """Fault 20."""
    kubelet.hold.add("build")
    operator = start_operator()
    api.create(engine("tiny", namespace))
    eventually(lambda: _jobs(api, namespace, "build"), what="build started", seconds=SETTLE_SECONDS)
    operator.stop(signal.SIGKILL)
    kubelet.hold.clear()  # the build ends while nobody looks
    eventually(lambda: kubelet.ended["build"], what="build ended")
    operator.start()
    _ready(api, namespace, "LLMEngine", "tiny")
    assert len(_jobs(api, namespace, "build")) == 1
    assert kubelet.ended["build"] == 1


def test_equal_engines_share_one_build(api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn) -> None:
    """Fault 30."""
    start_operator()
    api.create(engine("one", namespace))
    api.create(engine("two", namespace))
    one, two = (_ready(api, namespace, "LLMEngine", name) for name in ("one", "two"))
    assert one["status"]["key"] == two["status"]["key"]
    builds = api.list("LLMEngineBuild", namespace)
    assert len(builds) == 1
    assert {owner["name"] for owner in builds[0]["metadata"]["ownerReferences"]} == {"one", "two"}
    assert kubelet.ended["build"] == 1
    # The build outlives the first of its owners and goes with the last.
    api.delete("LLMEngine", "one", namespace)
    eventually(
        lambda: [o["name"] for o in api.list("LLMEngineBuild", namespace)[0]["metadata"]["ownerReferences"]] == ["two"],
        what="entry of the deleted owner gone",
        seconds=60,
    )
    api.delete("LLMEngine", "two", namespace)
    eventually(lambda: not api.list("LLMEngineBuild", namespace), what="build gone with its last owner", seconds=60)


def test_a_deleted_engine_takes_nothing_from_its_service(api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn) -> None:
    """Fault 30."""
    operator = start_operator()
    api.create(engine("tiny", namespace))
    api.create(service("chat", namespace))
    _ready(api, namespace, "LLMService", "chat")
    build = api.list("LLMEngineBuild", namespace)[0]["metadata"]
    deployment = api.get("Deployment", "chat", namespace)
    api.delete("LLMEngine", "tiny", namespace)
    eventually(lambda: _owners(api, namespace, build["name"]) == ["LLMService"], what="the service alone owns the build", seconds=60)
    assert api.get("LLMEngineBuild", build["name"], namespace)["metadata"]["uid"] == build["uid"]
    eventually(operator.idle, what="idle")
    now = api.get("Deployment", "chat", namespace)
    assert now["spec"] == deployment["spec"]
    assert now["metadata"]["uid"] == deployment["metadata"]["uid"]
    assert kubelet.ended["build"] == 1


def test_a_user_error_is_shown_and_costs_no_gpu(api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn) -> None:
    """Fault 25."""
    kubelet.failures["resolve"] = Failure("ModelAccessDenied", "tiny/llama is gated", times=1)
    start_operator()
    api.create(engine("tiny", namespace))
    shown = eventually(lambda: with_condition(api.find("LLMEngine", "tiny", namespace), "Stalled"), what="stalled", seconds=SETTLE_SECONDS)
    assert condition(shown, "Ready")["reason"] == "ModelAccessDenied"
    assert not _jobs(api, namespace, "build")


@pytest.mark.slow
@pytest.mark.usefixtures("kubelet")
def test_many_services_settle_and_stay_quiet(api: Api, namespace: str, start_operator: Start, audit: Audit) -> None:
    engines, services = 10, 300
    operator = start_operator()
    for number in range(engines):
        # Different builds: the batch size is part of the key.
        api.create(engine(f"e{number}", namespace, build={"maxBatchSize": number + 1}))
    eventually(lambda: sum(map(is_ready, api.list("LLMEngine", namespace))) == engines, what="engines ready", seconds=240, every=1)
    for number in range(services):
        api.create(service(f"s{number}", namespace, engine=f"e{number % engines}", replicas=0))
    eventually(
        lambda: [condition(s, "Available").get("reason") for s in api.list("LLMService", namespace)] == ["ScaledToZero"] * services,
        what="all settled",
        seconds=300,
        every=1,
    )
    eventually(operator.idle, what="queue empty", seconds=60)
    before = unchanging(lambda: _versions(api, namespace), what="quiet controllers")
    mark = audit.mark()
    nothing_for(60, lambda: audit.by_operator(mark), what="no write in idle time")
    operator.stop()
    mark = audit.mark()
    operator.start()
    passes = "trtllm_operator_reconcile_seconds_count{kind=LLMService}"
    eventually(
        lambda: operator.metrics().get(passes, 0) >= services and operator.idle(), what="each was looked at after the restart", seconds=120
    )
    assert audit.by_operator(mark) == []
    assert _versions(api, namespace) == before
