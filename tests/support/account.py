"""A service account with rights of its own in one namespace, and the kubeconfig that uses it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.controlplane import ControlPlane
from tests.support.api import APPLY, Api, Document
from tests.support.operator_process import REPOSITORY

RBAC = "rbac.authorization.k8s.io"
NAME = "restricted"
Rules = list[dict[str, Any]]


def base_rules() -> Rules:
    """The rights of manifests/base in each namespace."""
    role: Document = yaml.safe_load((REPOSITORY / "manifests" / "base" / "clusterrole.yaml").read_text())
    rules: Rules = role["rules"]
    return rules


def without(rules: Rules, resource: str, verbs: Sequence[str]) -> Rules:
    """The same rights, but for some verbs on one resource."""
    kept: Rules = []
    for rule in rules:
        others = [name for name in rule["resources"] if name != resource]
        if len(others) == len(rule["resources"]):
            kept.append(rule)
            continue
        if others:
            kept.append({**rule, "resources": others})
        kept.append({**rule, "resources": [resource], "verbs": [verb for verb in rule["verbs"] if verb not in verbs]})
    return kept


class Account:
    """A service account of a namespace; its rights can be changed while it is used."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": namespace}}
        self._apply(f"{self._path}/{NAME}", account)
        binding = {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": NAME, "namespace": namespace},
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}],
        }
        self.may(base_rules())
        self._apply(f"/apis/{RBAC}/v1/namespaces/{namespace}/rolebindings/{NAME}", binding)

    def may(self, rules: Rules) -> None:
        """From now on it has these rights."""
        role = {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": {"name": NAME, "namespace": self._namespace}, "rules": rules}
        self._apply(f"/apis/{RBAC}/v1/namespaces/{self._namespace}/roles/{NAME}", role)

    def delete(self) -> None:
        """Its tokens are worth nothing from then on."""
        self._api.request("DELETE", f"{self._path}/{NAME}")

    def kubeconfig(self, control_plane: ControlPlane, path: Path) -> Path:
        """Write a kubeconfig with a token of it."""
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
        token = self._api.request("POST", f"{self._path}/{NAME}/token", asked)["status"]["token"]
        config = json.loads(control_plane.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return path

    def _apply(self, path: str, obj: Document) -> None:
        self._api.request("PATCH", path, obj, content_type=APPLY, fieldManager="test", force="true")
