"""What the operator's service account can do on a real API server is what the list says, and nothing else: in the whole cluster, and with
the install for one namespace.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.controlplane import ControlPlane
from tests.support.api import APPLY, Api
from tests.unit.test_manifests import NODES, RIGHTS, built

Rules = dict[tuple[str, str, tuple[str, ...]], set[str]]
"""(group, resource, names) -> verbs."""

ACCOUNT, HOME = "trtllm-operator", "trtllm-system"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
_PLURALS = {"ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings", "Role": "roles", "RoleBinding": "rolebindings"}
LEASES: Rules = {
    ("coordination.k8s.io", "leases", ()): {"create"},
    ("coordination.k8s.io", "leases", ("trtllm-operator",)): {"get", "update"},
}
"""In the operator's own namespace only: who leads."""

SERVED: Rules = {(group, resource, ()): set(verbs) for (group, resource), verbs in RIGHTS.items()}
CLUSTER: Rules = {(group, resource, ()): set(verbs) for (group, resource), verbs in NODES.items()}
NEVER = [
    *(("", "secrets", verb) for verb in ("get", "list", "watch", "create", "update", "patch", "delete")),
    *(
        ("rbac.authorization.k8s.io", resource, verb)
        for resource in ("roles", "rolebindings", "clusterroles", "clusterrolebindings")
        for verb in ("get", "list", "create", "update", "patch", "delete", "bind", "escalate")
    ),
    *(("", resource, "impersonate") for resource in ("users", "groups", "serviceaccounts")),
    ("", "serviceaccounts/token", "create"), ("", "serviceaccounts", "get"), ("", "pods", "create"), ("", "pods", "delete"),
    ("", "pods/exec", "create"), ("", "pods/attach", "create"), ("", "pods/portforward", "create"), ("", "pods/ephemeralcontainers", "patch"),
    ("", "nodes", "patch"), ("", "nodes/proxy", "get"), ("", "persistentvolumes", "get"), ("", "namespaces", "get"),
    ("", "configmaps", "update"), ("", "configmaps", "deletecollection"), ("batch", "jobs", "deletecollection"),
    ("apps", "daemonsets", "create"), ("apps", "statefulsets", "create"), ("apps", "deployments/scale", "patch"),
    ("trtllm.dev", "llmengines", "patch"), ("trtllm.dev", "llmservices", "update"), ("trtllm.dev", "llmengines", "delete"),
    ("apiextensions.k8s.io", "customresourcedefinitions", "get"), ("apiextensions.k8s.io", "customresourcedefinitions", "patch"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", "create"), ("certificates.k8s.io", "certificatesigningrequests", "create"),
    ("coordination.k8s.io", "leases", "delete"), ("coordination.k8s.io", "leases", "list"), ("*", "*", "*"),
]  # fmt: skip


@dataclass(frozen=True)
class Install:
    """An install whose objects have been put into a namespace of the test's own."""

    api: Api
    """As the operator's service account."""
    nobody: Api
    """As a service account without any rights: what everybody may."""
    home: str

    def rules(self, namespace: str) -> Rules:
        """What the operator can do in a namespace, less what everybody can."""
        everybody = _reviewed(self.nobody, namespace)
        return {key: verbs for key, verbs in _reviewed(self.api, namespace).items() if everybody.get(key) != verbs}

    def may(self, group: str, resource: str, verb: str, namespace: str = "", name: str = "") -> bool:
        """Whether one thing is allowed."""
        plural, _, subresource = resource.partition("/")
        asked = {"group": group, "resource": plural, "subresource": subresource, "verb": verb, "namespace": namespace, "name": name}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": asked}}
        return bool(self.api.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)["status"]["allowed"])


def _reviewed(api: Api, namespace: str) -> Rules:
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
    status = api.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)["status"]
    assert not status["incomplete"], status
    found: Rules = {}
    for rule in status["resourceRules"]:
        for group in rule.get("apiGroups", ()):
            for resource in rule.get("resources", ()):
                found.setdefault((group, resource, tuple(rule.get("resourceNames", ()))), set()).update(rule["verbs"])
    return found


def _account(api: Api, control_plane: ControlPlane, namespace: str, name: str) -> Api:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}"
    api.request("PATCH", path, account, content_type=APPLY, fieldManager="test", force="true")
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    return Api(control_plane.url, api.request("POST", f"{path}/token", asked)["status"]["token"], Path(control_plane.ca))


@pytest.fixture
def install(request: pytest.FixtureRequest, api: Api, control_plane: ControlPlane, namespace: str) -> Iterator[Install]:
    """The objects of a kustomization that grant rights."""
    made = []
    for obj in built(request.param):
        if obj["kind"] not in _PLURALS:
            continue
        # Names of the cluster's own are the test's, too, so that installs do not add up.
        own = json.loads(json.dumps(obj).replace(f'"{HOME}"', f'"{namespace}"'))
        if obj["kind"].startswith("Cluster"):
            own["metadata"]["name"] += f"-{namespace}"
            own["metadata"]["labels"] = {}
        if own.get("roleRef", {}).get("kind") == "ClusterRole":
            own["roleRef"]["name"] += f"-{namespace}"
        where = f"namespaces/{own['metadata']['namespace']}/" if "namespace" in own["metadata"] else ""
        path = f"{RBAC}/{where}{_PLURALS[own['kind']]}/{own['metadata']['name']}"
        api.request("PATCH", path, own, content_type=APPLY, fieldManager="test", force="true")
        made.append(path)
    assert made
    operator, nobody = (_account(api, control_plane, namespace, name) for name in (ACCOUNT, "nobody"))
    yield Install(operator, nobody, namespace)
    operator.close()
    nobody.close()
    for path in made:
        api.request("DELETE", path)


@pytest.mark.parametrize("install", ["base", "overlays/demo"], indirect=True)
def test_in_the_whole_cluster(install: Install) -> None:
    assert install.rules(install.home) == {**SERVED, **CLUSTER, **LEASES}
    for other in ("default", "kube-system"):
        assert install.rules(other) == {**SERVED, **CLUSTER}, "no Lease of anybody else"
    _never(install, ("", install.home, "default", "kube-system"))


@pytest.mark.parametrize("install", ["overlays/namespaced"], indirect=True)
def test_in_one_namespace(install: Install) -> None:
    assert install.rules(install.home) == {**SERVED, **LEASES}
    for other in ("default", "kube-system"):
        assert install.rules(other) == {}
    _never(install, (install.home, "default"))
    for group, resource, _ in {**SERVED, **CLUSTER}:
        for verb in ("get", "list", "watch", "create", "patch", "delete"):
            assert not install.may(group, resource, verb), "in all namespaces at once"
            assert not install.may(group, resource, verb, "default")


def _never(install: Install, namespaces: tuple[str, ...]) -> None:
    allowed = [(*what, namespace) for what in NEVER for namespace in namespaces if install.may(*what, namespace=namespace)]
    assert allowed == []
    assert install.may("coordination.k8s.io", "leases", "update", install.home, "trtllm-operator")
    assert not install.may("coordination.k8s.io", "leases", "update", install.home, "kube-scheduler")
    assert install.may("", "configmaps", "patch", install.home), "the question is understood"


def test_the_list_itself_holds_no_power() -> None:
    """No Secrets, no RBAC objects, no wildcard."""
    for (group, resource, _), verbs in {**SERVED, **CLUSTER, **LEASES}.items():
        assert "*" not in {group, resource, *verbs}
        assert "secret" not in resource
        assert group not in ("rbac.authorization.k8s.io", "admissionregistration.k8s.io", "apiextensions.k8s.io")
        assert not verbs & {"bind", "escalate", "impersonate", "deletecollection"}
