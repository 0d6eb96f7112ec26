"""What a user applied stays as it was applied: the manifests that we ship, by Argo CD's own comparison, on a real API server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support import contract, looking
from tests.support.api import Api, Document
from tests.support.contract_tour import MANIFESTS, changed, manifests
from tests.support.operator_process import OperatorProcess
from tests.support.samples import condition
from tests.support.waiting import eventually
from trtllm_operator.kube.resources import BY_KIND

Start = Callable[..., OperatorProcess]
FILES = sorted(str(path.relative_to(MANIFESTS)) for name in ("samples", "demo") for path in (MANIFESTS / name).glob("*.yaml"))
TRACKING = "argocd.argoproj.io/tracking-id"
INSTANCE = "app.kubernetes.io/instance"
_APP = "chat-of-the-app"


def _tracked(manifest: Document) -> Document:
    """With what Argo CD adds, by either way of tracking."""
    metadata = manifest["metadata"]
    return {**manifest, "metadata": {**metadata, "annotations": {TRACKING: f"{_APP}:x"}, "labels": {INSTANCE: _APP}}}


def _scaled(api: Api, obj: Document, replicas: int) -> None:
    """`kubectl scale`, or an autoscaler."""
    path = BY_KIND[obj["kind"]].path(obj["metadata"]["namespace"], obj["metadata"]["name"], "scale")
    api.request("PATCH", path, {"spec": {"replicas": replicas}}, content_type="application/merge-patch+json")


def _pods(api: Api, namespace: str, name: str) -> int:
    return int(api.get("Deployment", name, namespace)["spec"]["replicas"])


@pytest.mark.usefixtures("kubelet")
def test_our_manifests_are_in_sync_when_new_when_done_and_after_a_second_apply(api: Api, namespace: str, start_operator: Start) -> None:
    found = [_tracked(manifest) for file in FILES for manifest in manifests(file, namespace)]
    assert {manifest["kind"] for manifest in found} == {"LLMEngine", "LLMService"}
    for manifest in found:
        api.apply(manifest, "kubectl")
        assert contract.drift(api, manifest) == [], "new"
    operator = start_operator()
    for manifest in found:
        looking.ready(api, namespace, manifest["kind"], manifest["metadata"]["name"])
        assert contract.drift(api, manifest) == [], "done"
    eventually(operator.idle, what="idle")
    for manifest in found:
        assert contract.applied_twice(api, manifest) == []
        assert contract.drift(api, manifest) == [], "applied again"
    # What carries its tracking would be taken for the application's own, and be deleted with it or as superfluous.
    copied = [
        f"{obj['kind']} {obj['metadata']['name']}"
        for obj in looking.things(api, namespace, ("LLMEngineBuild", *looking.CHILDREN, "Pod", "HorizontalPodAutoscaler"))
        if TRACKING in obj["metadata"].get("annotations", {}) or obj["metadata"].get("labels", {}).get(INSTANCE) == _APP
    ]
    assert copied == []


@pytest.mark.usefixtures("kubelet")
def test_replicas_that_others_set_are_no_difference_and_stay(api: Api, namespace: str, start_operator: Start) -> None:
    engine, service = manifests("samples/llama-tensorrt.yaml", namespace)
    by_hand = changed(service, replicas=None)
    _, autoscaled = manifests("samples/llama-checkpoint.yaml", namespace)
    autoscaled["spec"]["engineRef"] = service["spec"]["engineRef"]
    autoscaled["spec"]["serve"] = {}
    both = (by_hand, autoscaled)
    for manifest in (engine, *both):
        api.apply(manifest, "kubectl")
    operator = start_operator()
    names = [manifest["metadata"]["name"] for manifest in both]
    for name in names:
        looking.ready(api, namespace, "LLMService", name)
    assert "replicas" not in api.get("LLMService", names[0], namespace)["spec"]
    scaling = condition(api.get("LLMService", names[1], namespace), "ScalingActive")
    assert scaling["reason"] == "ScalingUnknown", "no controller of autoscalers runs here: the test is one"
    # By the scale subresource of the LLMService, and as an autoscaler does by that of the Deployment.
    _scaled(api, by_hand, 3)
    _scaled(api, api.get("Deployment", names[1], namespace), 4)
    eventually(lambda: [_pods(api, namespace, name) for name in names] == [3, 4], what="scaled")
    for manifest, name in zip(both, names, strict=True):
        looking.ready(api, namespace, "LLMService", name)
        assert contract.drift(api, manifest) == []
        assert contract.applied_twice(api, manifest) == []
    # A rollout does not take the number back.
    rolled = [changed(manifest, serve={"maxBatchSize": 4}) for manifest in both]
    for manifest in rolled:
        api.apply(manifest, contract.ARGOCD)
    for manifest, name in zip(rolled, names, strict=True):
        looking.ready(api, namespace, "LLMService", name)
        assert contract.drift(api, manifest) == []
    eventually(operator.idle, what="idle")
    assert [_pods(api, namespace, name) for name in names] == [3, 4]
