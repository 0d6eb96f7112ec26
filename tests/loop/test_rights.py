"""With the rights of manifests/base and no other: all of the work is done, and nothing is asked for in vain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.controlplane import ControlPlane
from tests.support.api import APPLY, Api
from tests.support.kubelet_standin import KubeletStandIn
from tests.support.operator_process import REPOSITORY, OperatorProcess
from tests.support.samples import engine, is_ready, service
from tests.support.waiting import eventually

BASE = REPOSITORY / "manifests" / "base"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


def _role(file: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((BASE / file).read_text())
    return found


def _apply(api: Api, path: str, obj: dict[str, Any]) -> None:
    api.request("PATCH", path, obj, content_type=APPLY, fieldManager="test", force="true")


@pytest.fixture
def kubeconfig(control_plane: ControlPlane, api: Api, namespace: str, tmp_path: Path) -> Path:
    """Of a service account that has the operator's role in its namespace alone, as in manifests/overlays/namespaced."""
    role = _role("clusterrole.yaml")
    _apply(api, f"{RBAC}/clusterroles/{role['metadata']['name']}", role)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator", "namespace": namespace}}
    _apply(api, f"/api/v1/namespaces/{namespace}/serviceaccounts/operator", account)
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "operator", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role["metadata"]["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": namespace}],
    }
    _apply(api, f"{RBAC}/namespaces/{namespace}/rolebindings/operator", binding)
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    token = api.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/operator/token", asked)["status"]["token"]
    config = json.loads(control_plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture
def operator(kubeconfig: Path, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    with OperatorProcess(kubeconfig, tmp_path, WATCH_NAMESPACE=namespace) as running:
        yield running


def test_the_roles_suffice_and_nothing_is_refused(api: Api, namespace: str, operator: OperatorProcess) -> None:
    with KubeletStandIn(api, namespace):
        api.create(engine("tiny", namespace))
        scaling = {"maxReplicas": 2, "metrics": [{"type": "resource", "name": "cpu", "averageUtilization": 80}]}
        api.create(service("chat", namespace))
        api.create(service("scaled", namespace, autoscaling=scaling))
        eventually(lambda: is_ready(api.find("LLMEngine", "tiny", namespace)), what="engine ready", seconds=60)
        eventually(lambda: is_ready(api.find("LLMService", "chat", namespace)), what="service ready", seconds=60)
        eventually(lambda: api.find("HorizontalPodAutoscaler", "scaled", namespace), what="autoscaler made")
        api.delete("LLMEngine", "tiny", namespace)
        for name in ("chat", "scaled"):
            api.delete("LLMService", name, namespace)
        eventually(lambda: not api.list("LLMEngineBuild", namespace), what="all gone", seconds=60)
    forbidden = {sample: count for sample, count in operator.metrics().items() if "code=403" in sample}
    assert list(forbidden.values()) == [1.0], "only the look at nodes, which this account may not read"
    assert "going on without nodes" in operator.log()
    assert "Traceback" not in operator.log()
