"""What happens to the objects and pods of a service, and what the operator makes of it. Kubelets are a stand-in that misbehaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import kubelet_faults as faults
from tests.support.api import Api, Document
from tests.support.audit import Audit
from tests.support.kubelet_faults import SERVER, FaultyKubelet
from tests.support.operator_process import OperatorProcess
from tests.support.samples import condition, engine, is_ready, service
from tests.support.waiting import eventually, nothing_for

Start = Callable[..., OperatorProcess]
SECONDS = 120


@pytest.fixture
def kubelet(api: Api, namespace: str) -> Iterator[FaultyKubelet]:
    with FaultyKubelet(api, namespace) as running:
        yield running


def _served(api: Api, namespace: str, start_operator: Start, **spec: Any) -> OperatorProcess:
    api.create(engine("tiny", namespace))
    api.create(service("chat", namespace, **spec))
    operator = start_operator()
    _ready(api, namespace)
    return operator


def _says(api: Api, namespace: str, kind: str = "Ready") -> tuple[str, str]:
    found = condition(api.find("LLMService", "chat", namespace), kind)
    return found.get("status", ""), found.get("reason", "")


def _shown(api: Api, namespace: str, status: str, reason: str) -> str:
    """Wait until Ready says so; the message."""
    try:
        eventually(lambda: _says(api, namespace) == (status, reason), what=f"{status} {reason}", seconds=SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}; it says {condition(api.find('LLMService', 'chat', namespace), 'Ready')}") from None
    return str(condition(api.get("LLMService", "chat", namespace), "Ready")["message"])


def _ready(api: Api, namespace: str) -> Document:
    def look() -> Document | None:
        found = api.get("LLMService", "chat", namespace)
        return found if is_ready(found) and found["status"]["observedGeneration"] == found["metadata"]["generation"] else None

    return eventually(look, what="chat ready", seconds=SECONDS) or {}


def _servers(api: Api, namespace: str, build: str | None = None) -> list[Document]:
    pods = [pod for pod in api.list("Pod", namespace) if pod["metadata"]["labels"].get("trtllm.dev/service")]
    return [pod for pod in pods if build in (None, faults.build_of(pod))]


def _counted(api: Api, namespace: str) -> bool:
    """Whether the status of the Deployment says what is so. Kubernetes' own controllers come to that when all else is done, and the operator passes it on."""
    found, pods = api.get("Deployment", "chat", namespace), _servers(api, namespace)
    status, up = found.get("status", {}), sum(map(_is_up, pods))
    return (
        len(pods) == found["spec"]["replicas"]
        and status.get("observedGeneration") == found["metadata"]["generation"]
        and [status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")]
        == [len(pods), len(pods), up, up]
    )


def test_what_others_change_about_a_service_is_put_right(
    api: Api, namespace: str, start_operator: Start, kubelet: FaultyKubelet, audit: Audit
) -> None:
    """Fault 32."""
    operator = _served(api, namespace, start_operator, replicas=2)
    uid = api.get("LLMService", "chat", namespace)["metadata"]["uid"]
    wanted = {kind: api.get(kind, "chat", namespace)["spec"] for kind in ("Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy")}
    image = {"name": "server", "image": "somebody/elses:1"}
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/chat"
    strategic = "application/strategic-merge-patch+json"
    api.request("PATCH", path, {"spec": {"template": {"spec": {"containers": [image]}}}}, content_type=strategic)
    api.patch("Deployment", "chat", {"spec": {"replicas": 5}}, namespace)
    api.patch("Service", "chat", {"spec": {"selector": {"trtllm.dev/service": "other"}}}, namespace)
    api.patch("PodDisruptionBudget", "chat", {"spec": {"maxUnavailable": 7}}, namespace)
    api.patch("NetworkPolicy", "chat", {"spec": {"ingress": [{}]}}, namespace)

    def mended() -> bool:
        return {kind: api.get(kind, "chat", namespace)["spec"] for kind in wanted} == wanted

    eventually(mended, what="specs are as they were", seconds=SECONDS)
    _ready(api, namespace)
    # Owner and label taken away, and one of them deleted.
    for kind in ("Deployment", "Service"):
        api.patch(kind, "chat", {"metadata": {"ownerReferences": None}}, namespace)
    api.patch("PodDisruptionBudget", "chat", {"metadata": {"labels": None}}, namespace)
    api.delete("NetworkPolicy", "chat", namespace)

    def owned() -> bool:
        found = [api.find(kind, "chat", namespace) for kind in wanted]
        metadata = [obj["metadata"] for obj in found if obj is not None and "deletionTimestamp" not in obj["metadata"]]
        return len(metadata) == len(wanted) and all(
            one.get("labels", {}).get("app.kubernetes.io/managed-by") == "trtllm-operator"
            and [owner["uid"] for owner in one.get("ownerReferences", ())] == [uid]
            for one in metadata
        )

    eventually(owned, what="owners and labels are back", seconds=SECONDS)
    assert mended()
    eventually(lambda: _counted(api, namespace), what="counted by the controllers", seconds=SECONDS)
    _ready(api, namespace)
    eventually(operator.idle, what="idle")
    mark = audit.mark()
    nothing_for(3, lambda: [w for w in audit.by_operator(mark) if w.namespace == namespace], what="quiet")
    assert kubelet.ended["build"] == 1


def test_a_deleted_deployment_comes_back_with_the_same_revision(
    api: Api, namespace: str, start_operator: Start, kubelet: FaultyKubelet
) -> None:
    """Fault 32."""
    _served(api, namespace, start_operator)
    before = api.get("Deployment", "chat", namespace)
    api.delete("Deployment", "chat", namespace)

    def again() -> bool:
        found = api.find("Deployment", "chat", namespace)
        return found is not None and found["metadata"]["uid"] != before["metadata"]["uid"]

    eventually(again, what="made again", seconds=SECONDS)
    _ready(api, namespace)
    assert api.get("Deployment", "chat", namespace)["spec"]["template"] == before["spec"]["template"]
    assert kubelet.ended["build"] == 1


@pytest.mark.usefixtures("kubelet")
def test_a_deployment_of_somebody_else_is_left_alone_and_shown(api: Api, namespace: str, start_operator: Start) -> None:
    """Fault 33."""
    pod = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "mine:1"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": pod}
    api.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "chat", "namespace": namespace}, "spec": spec})
    api.create(engine("tiny", namespace))
    api.create(service("chat", namespace))
    start_operator()
    assert "Deployment chat" in _shown(api, namespace, "False", "NameConflict")
    found = api.get("Deployment", "chat", namespace)
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "mine:1"
    assert "ownerReferences" not in found["metadata"]


def _roll(api: Api, namespace: str) -> tuple[str, str]:
    """Change a build option; names of the build that serves and of the new one, once that is done."""
    old = api.get("LLMEngine", "tiny", namespace)["status"]["build"]
    api.patch("LLMEngine", "tiny", {"spec": {"build": {"maxBatchSize": 3}}}, namespace)

    def new() -> str:
        artifact = api.get("LLMEngine", "tiny", namespace)["status"].get("artifact", {})
        return str(artifact["build"]) if artifact.get("build") != old else ""

    return old, eventually(new, what="the new engine is verified", seconds=SECONDS)


def test_a_new_engine_that_does_not_load_leaves_the_old_one_serving(
    api: Api, namespace: str, start_operator: Start, kubelet: FaultyKubelet
) -> None:
    """Fault 34. Every version of the status says that the old pods answer."""
    _served(api, namespace, start_operator, replicas=2)
    old = api.get("LLMEngine", "tiny", namespace)["status"]["build"]
    text = "[TRT] [E] 6: The engine plan file is not compatible with this version of TensorRT, expecting library version 10.1 got 10.2"
    mended = kubelet.always(SERVER, faults.crashing(1, text), where=lambda pod: faults.build_of(pod) != old)
    _, new = _roll(api, namespace)
    message = _shown(api, namespace, "False", "EngineVersionMismatch")
    assert "expecting library version 10.1" in message
    assert _says(api, namespace, "Stalled")[0] == "True"
    assert _says(api, namespace, "RolledOut")[0] == "False"

    def wrong() -> str:
        ready = sum(_is_up(pod) for pod in _servers(api, namespace, old))
        status = api.get("LLMService", "chat", namespace)["status"]
        if ready < 2 or _says(api, namespace, "Available")[0] != "True" or status["current"]["build"] != old:
            return f"{ready} old pods are ready; {status}"
        return "" if api.find("LLMEngineBuild", old, namespace) else "the build that serves is gone"

    nothing_for(5, wrong, what="the old revision serves")
    mended()

    def rolled() -> bool:
        for pod in _servers(api, namespace, new):
            if not _is_up(pod):
                kubelet.start_again(pod)
        found = api.get("LLMService", "chat", namespace)
        return is_ready(found) and bool(found["status"]["current"]["build"] == new)

    eventually(rolled, what="the new engine serves", seconds=SECONDS, every=1)


def _is_up(pod: Document) -> bool:
    ready: Document = next((c for c in pod.get("status", {}).get("conditions", ()) if c["type"] == "Ready"), {})
    return ready.get("status") == "True" and "deletionTimestamp" not in pod["metadata"]


def test_a_server_that_crashes_or_flaps_changes_nothing_but_what_is_said(
    api: Api, namespace: str, start_operator: Start, kubelet: FaultyKubelet, audit: Audit
) -> None:
    """Fault 34. The Deployment is not touched: restarting pods is the kubelet's work."""
    operator = _served(api, namespace, start_operator)
    before = api.get("Deployment", "chat", namespace)["metadata"]["generation"]
    for _ in range(3):
        up = kubelet.always(SERVER, faults.not_ready)
        eventually(lambda: _says(api, namespace, "Available")[0] == "False", what="not available", seconds=SECONDS)
        assert _says(api, namespace)[0] == "Unknown", "it is under way, and nobody is called"
        up()
        _let_it_be_ready(api, namespace, kubelet)
        _ready(api, namespace)
    down = kubelet.always(SERVER, faults.crashing(139, "Fatal Python error: Segmentation fault"))
    message = _shown(api, namespace, "False", "InternalError")
    assert "exit code 139" in message
    assert "Segmentation fault" in message
    assert _says(api, namespace, "RolledOut")[0] == "True", "what was rolled out once is so still"
    eventually(lambda: _counted(api, namespace), what="counted by the controllers", seconds=SECONDS)
    eventually(operator.idle, what="idle")
    mark = audit.mark()
    nothing_for(3, lambda: [w for w in audit.by_operator(mark) if w.namespace == namespace], what="no write while it crashes")
    down()
    _let_it_be_ready(api, namespace, kubelet)
    _ready(api, namespace)
    assert api.get("Deployment", "chat", namespace)["metadata"]["generation"] == before


def _let_it_be_ready(api: Api, namespace: str, kubelet: FaultyKubelet) -> None:
    """The stand-in makes pods ready that are pending; these run already, so it is told to begin anew with them."""
    for pod in _servers(api, namespace):
        kubelet.start_again(pod)


def test_what_a_server_needs_and_does_not_find_is_named_and_waited_for(
    api: Api, namespace: str, start_operator: Start, kubelet: FaultyKubelet, audit: Audit
) -> None:
    """Faults 26 and 35."""
    found = kubelet.always(SERVER, faults.waiting("CreateContainerConfigError", 'configmap "chat-options" not found'))
    api.create(engine("tiny", namespace))
    api.create(service("chat", namespace))
    operator = start_operator()
    assert "chat-options" in _shown(api, namespace, "Unknown", "WaitingForPod")
    assert _says(api, namespace, "Reconciling")[0] == "True"
    eventually(lambda: _counted(api, namespace), what="counted by the controllers", seconds=SECONDS)
    eventually(operator.idle, what="idle")
    mark = audit.mark()
    nothing_for(5, lambda: [w for w in audit.by_operator(mark) if w.namespace == namespace], what="no write while it waits")
    found()
    _let_it_be_ready(api, namespace, kubelet)
    _ready(api, namespace)
