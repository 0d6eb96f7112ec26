"""The manifests: what kustomize makes of them is whole, agrees with itself and with the code, and asks for no more rights than are used."""

from __future__ import annotations

import re
import shutil
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.process import run
from tests.support.kubectl import program
from trtllm_operator.api.crdgen.definition import DEFINITIONS
from trtllm_operator.api.llmengine import LLMEngineSpec
from trtllm_operator.api.llmservice import LLMServiceSpec
from trtllm_operator.kube.resources import CHILDREN, ROOTS
from trtllm_operator.runtime.settings import Settings, read_settings

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
KUSTOMIZATIONS = ("base", "overlays/demo", "overlays/namespaced", "demo")
OPERATORS = KUSTOMIZATIONS[:3]

_MAKE = ("get", "list", "watch", "create", "patch", "delete")
_READ = ("get", "list", "watch")
RIGHTS = {
    ("trtllm.dev", "llmengines"): _READ,
    ("trtllm.dev", "llmservices"): _READ,
    ("trtllm.dev", "llmenginebuilds"): _MAKE,
    ("trtllm.dev", "llmengines/status"): ("get", "patch"),
    ("trtllm.dev", "llmenginebuilds/status"): ("get", "patch"),
    ("trtllm.dev", "llmservices/status"): ("get", "patch"),
    ("batch", "jobs"): _MAKE,
    ("apps", "deployments"): _MAKE,
    ("", "persistentvolumeclaims"): _MAKE,
    ("", "services"): _MAKE,
    ("", "configmaps"): _MAKE,
    ("policy", "poddisruptionbudgets"): _MAKE,
    ("networking.k8s.io", "networkpolicies"): _MAKE,
    ("autoscaling", "horizontalpodautoscalers"): _MAKE,
    ("", "pods"): _READ,
    ("", "pods/log"): ("get",),
    ("", "events"): ("list",),
    ("events.k8s.io", "events"): ("create",),
}
NODES = {("", "nodes"): _READ}


@cache
def _kubectl() -> Path:
    return program(built=shutil.which("kubectl") is None)


@cache
def built(name: str) -> tuple[dict[str, Any], ...]:
    """All objects of a kustomization."""
    return tuple(yaml.safe_load_all(run([_kubectl(), "kustomize", MANIFESTS / name])))


def of(name: str, kind: str, called: str | None = None) -> list[dict[str, Any]]:
    """The objects of a kind."""
    return [obj for obj in built(name) if obj["kind"] == kind and called in (None, obj["metadata"]["name"])]


def deployment(name: str) -> dict[str, Any]:
    """The operator's Deployment."""
    [found] = of(name, "Deployment", "trtllm-operator")
    return found


def environment(name: str) -> dict[str, str]:
    """The operator's variables; of those that come from the pod, where from."""
    [container] = deployment(name)["spec"]["template"]["spec"]["containers"]
    return {
        entry["name"]: entry["value"] if "value" in entry else entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in container["env"]
    }


def rights(*roles: Mapping[str, Any]) -> dict[tuple[str, str], tuple[str, ...]]:
    """(group, resource) -> verbs, of all roles together."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for rule in (rule for role in roles for rule in role["rules"]):
        assert rule.keys() - {"resourceNames"} == {"apiGroups", "resources", "verbs"}
        for pair in ((group, resource) for group in rule["apiGroups"] for resource in rule["resources"]):
            assert pair not in found or "resourceNames" in rule, f"{pair} is granted twice"
            found[pair] = (*found.get(pair, ()), *rule["verbs"])
    return found


def pod_specs(name: str) -> Iterator[dict[str, Any]]:
    """All pod templates."""
    for obj in of(name, "Deployment"):
        yield obj["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_objects_are_whole_and_unique(name: str) -> None:
    marks = [(obj["apiVersion"], obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"]) for obj in built(name)]
    assert len(marks) == len(set(marks)) > 0
    assert "Secret" not in {obj["kind"] for obj in built(name)}


@pytest.mark.parametrize("name", OPERATORS)
def test_definitions_come_along(name: str) -> None:
    assert sorted(obj["metadata"]["name"] for obj in of(name, "CustomResourceDefinition")) == sorted(d.name for d in DEFINITIONS)


@pytest.mark.parametrize("name", ["base", "overlays/demo"])
def test_rights_in_the_whole_cluster(name: str) -> None:
    assert rights(*of(name, "ClusterRole", "trtllm-operator")) == RIGHTS
    assert rights(*of(name, "ClusterRole", "trtllm-operator-nodes")) == NODES
    bindings = {obj["metadata"]["name"]: obj for obj in of(name, "ClusterRoleBinding")}
    assert set(bindings) == {"trtllm-operator", "trtllm-operator-nodes"}
    for called, binding in bindings.items():
        assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": called}
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "trtllm-operator", "namespace": "trtllm-system"}]


def test_rights_in_one_namespace() -> None:
    name = "overlays/namespaced"
    [role] = of(name, "Role", "trtllm-operator")
    assert (role["metadata"]["name"], role["metadata"]["namespace"]) == ("trtllm-operator", "trtllm-system")
    assert rights(role) == RIGHTS
    bindings = {obj["metadata"]["name"]: obj for obj in of(name, "RoleBinding")}
    assert set(bindings) == {"trtllm-operator", "trtllm-operator-leaderelection"}
    for called, binding in bindings.items():
        assert binding["metadata"]["namespace"] == "trtllm-system"
        assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": called}
    assert of(name, "ClusterRoleBinding") == []
    assert {obj["metadata"]["name"] for obj in of(name, "ClusterRole")} == {"trtllm-operator-edit", "trtllm-operator-view"}


@pytest.mark.parametrize("name", OPERATORS)
def test_no_wildcard_no_secret_no_escalation(name: str) -> None:
    for role in [*of(name, "ClusterRole"), *of(name, "Role")]:
        for (group, resource), verbs in rights(role).items():
            assert "*" not in {group, resource, *verbs}
            assert "secrets" not in resource
            assert group != "rbac.authorization.k8s.io"
            assert not {"escalate", "bind", "impersonate"} & set(verbs)


def test_rights_are_those_that_the_code_needs() -> None:
    for resource in [*ROOTS, *CHILDREN]:
        assert set(_READ) <= set(RIGHTS[resource.group, resource.plural]), f"{resource.plural} are listed and watched"
    for resource in ROOTS:
        assert "patch" in RIGHTS[resource.group, f"{resource.plural}/status"]


def test_people_who_edit_a_namespace_may_edit_our_resources_there() -> None:
    [view], [edit] = of("base", "ClusterRole", "trtllm-operator-view"), of("base", "ClusterRole", "trtllm-operator-edit")
    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert {verb for verbs in rights(view).values() for verb in verbs} == set(_READ)
    assert ("trtllm.dev", "llmenginebuilds") not in rights(edit), "builds are the operator's"


@pytest.mark.parametrize("name", OPERATORS)
def test_one_of_two_operators_leads(name: str) -> None:
    """They elect it by a Lease of their own namespace, on which they have rights, and on no other."""
    spec = deployment(name)["spec"]
    assert spec["replicas"] == 2
    terms = read_settings({**environment(name), "KUBERNETES_SERVICE_HOST": "10.0.0.1"}).election
    assert terms is not None
    assert (terms.namespace, terms.name) == ("metadata.namespace", "trtllm-operator")
    [role] = of(name, "Role", "trtllm-operator-leaderelection")
    assert role["metadata"]["namespace"] == "trtllm-system"
    assert [(rule["resources"], rule["verbs"], rule.get("resourceNames")) for rule in role["rules"]] == [
        (["leases"], ["create"], None),
        (["leases"], ["get", "update"], [terms.name]),
    ]
    [budget] = of(name, "PodDisruptionBudget", "trtllm-operator")
    assert budget["spec"]["maxUnavailable"] == 1
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    [service] = of(name, "Service", "trtllm-operator-metrics")
    assert service["spec"]["selector"].items() <= labels.items()


@pytest.mark.parametrize("name", OPERATORS)
def test_variables_are_those_that_the_operator_reads(name: str) -> None:
    source = (ROOT / "operator/src/trtllm_operator/runtime/settings.py").read_text()
    for variable in environment(name):
        assert f'"{variable}"' in source, f"{variable} is read by nobody"
    settings = read_settings(environment(name))
    assert settings.config.runtime_repository == "nvcr.io/nvidia/tensorrt-llm/release"
    assert settings.instance == "metadata.name"


@pytest.mark.parametrize(("name", "tag"), [("base", "v0.1.0"), ("overlays/namespaced", "v0.1.0"), ("overlays/demo", "dev")])
def test_images_are_of_one_version(name: str, tag: str) -> None:
    [container] = deployment(name)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"trtllm-operator/operator:{tag}"
    assert environment(name)["TOOLS_IMAGE"] == f"trtllm-operator/tools:{tag}"
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert tag in {"dev", f"v{version[1]}"}


def test_what_is_watched() -> None:
    everywhere = read_settings(environment("base"))
    assert (everywhere.namespaces, everywhere.read_nodes) == ((), True)
    one = read_settings(environment("overlays/namespaced"))
    assert (one.namespaces, one.read_nodes) == (("metadata.namespace",), False)


@pytest.mark.parametrize("name", OPERATORS)
def test_ports_and_probes_fit_the_operator(name: str) -> None:
    [container] = deployment(name)["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"metrics": Settings.metrics_port, "probes": Settings.probes_port}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "probes"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "probes"}
    assert container["resources"] == {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
    assert container["args"] == ["run"]


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_pods_pass_pod_security_restricted(name: str) -> None:
    [namespace] = of(name, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = list(pod_specs(name))
    assert pods
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & pod.keys()
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["imagePullPolicy"] == "IfNotPresent"


def test_the_demo_says_that_it_simulates() -> None:
    text = (MANIFESTS / "demo" / "llmengine.yaml").read_text()
    assert re.search(r"# A SIMULATOR of TensorRT-LLM.*\n\s+image: trtllm-operator/simulator:1\.2\.1\n", text)
    [engine], [service] = of("demo", "LLMEngine"), of("demo", "LLMService")
    [hub] = of("demo", "Service", "hub")
    assert engine["spec"]["source"]["huggingFace"]["endpoint"] == f"http://{hub['metadata']['name']}.{hub['metadata']['namespace']}.svc"
    assert hub["spec"]["ports"][0]["port"] == 80
    assert service["spec"]["engineRef"]["name"] == engine["metadata"]["name"]
    assert {obj["metadata"].get("namespace", "demo") for obj in built("demo")} == {"demo"}


@pytest.mark.parametrize("file", sorted((MANIFESTS / "samples").glob("*.yaml")), ids=lambda file: file.stem)
def test_samples_are_for_real_gpus(file: Path) -> None:
    text = file.read_text()
    assert "simulator" not in text
    assert "Not run on a GPU yet" in text
    models = {"LLMEngine": LLMEngineSpec, "LLMService": LLMServiceSpec}
    documents = list(yaml.safe_load_all(text))
    for document in documents:
        models[document["kind"]].model_validate(document["spec"])
    engines = {document["metadata"]["name"] for document in documents if document["kind"] == "LLMEngine"}
    assert {document["spec"]["engineRef"]["name"] for document in documents if document["kind"] == "LLMService"} <= engines


def test_the_image_installs_what_is_locked() -> None:
    uv = Path(sysconfig.get_path("scripts")) / "uv"
    wanted = run([uv, "export", "--quiet", "--frozen", "--no-default-groups", "--no-emit-project", "--no-header"], cwd=ROOT)
    have = (ROOT / "images/operator/requirements.txt").read_text()
    assert have == wanted, "write the output of that `uv export` to images/operator/requirements.txt"
    project = (ROOT / "pyproject.toml").read_text().split("dependencies = [", 1)[1].split("]", 1)[0]
    for dependency in re.findall(r'"([a-z-]+)>=', project):
        assert re.search(rf"^{dependency}==", have, re.MULTILINE), f"{dependency} is not locked: run `uv lock`"


def test_the_image_is_for_anybody_but_root() -> None:
    text = (ROOT / "images/operator/Dockerfile").read_text()
    assert text.splitlines()[2] == "ARG BASE=python:3.11-slim-bookworm"
    final = text.rsplit("FROM ", 1)[1]
    assert final.startswith("${BASE}\n")
    assert "USER 65532:65532" in final
    assert "RUN" not in final
