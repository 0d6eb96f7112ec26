"""Every pod that we render, from any specs, is let in by a real API server into a namespace that enforces Pod Security `restricted`."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.api import Api, ApiRefusedError
from tests.unit.test_injection_rendering import pod_templates
from tests.unit.test_injection_schema import SCHEMAS, values
from tests.unit.test_manifests import built
from tests.unit.test_pod_security import ENGINE, SERVICE, _engine, _service, made_from
from trtllm_operator.desired import names

Json = dict[str, Any]

_RESOURCES = st.sampled_from(
    [{"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"cpu": "64", "memory": "512Gi"}}, {"limits": {"example.com/rdma": "1"}}, None]
)
_CLASSES = st.sampled_from(["generated", None])
_NODE = {"app": "a", "example.com/pool": "gpu"}


def _placement(path: str) -> dict[str, st.SearchStrategy[Any]]:
    return {
        f"{path}.resources": _RESOURCES,
        f"{path}.priorityClassName": _CLASSES,
        f"{path}.runtimeClassName": _CLASSES,
        f"{path}.nodeSelector": st.sampled_from([_NODE, None]),
    }


_ENGINE = {**ENGINE, **_placement("jobs.fetch"), **_placement("jobs.build"), **_placement("jobs.verify")}
ENGINES = st.builds(_engine, values(SCHEMAS["LLMEngine"]["properties"]["spec"], (), _ENGINE), st.booleans())
SERVICES = st.builds(
    _service, values(SCHEMAS["LLMService"]["properties"]["spec"], (), {**SERVICE, **_placement("placement")}), st.booleans()
)
_ONE_FILE = settings(
    # Not made smaller: each try is some requests.
    phases=(Phase.explicit, Phase.generate),
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def restricted(api: Api) -> Iterator[str]:
    """A namespace that enforces, with what pods may name."""
    name = "pods-restricted"
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
    api.request("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "generated"}, "value": 7}
    runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "generated"}, "handler": "runc"}
    api.request("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", priority)
    api.request("POST", "/apis/node.k8s.io/v1/runtimeclasses", runtime)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "trtllm-operator", "namespace": name}}
    api.request("POST", f"/api/v1/namespaces/{name}/serviceaccounts", account)
    yield api.with_account(name)
    for path in ("/apis/scheduling.k8s.io/v1/priorityclasses/generated", "/apis/node.k8s.io/v1/runtimeclasses/generated"):
        api.request("DELETE", path)
    api.request("DELETE", f"/api/v1/namespaces/{name}")


def admitted(api: Api, namespace: str, template: Json) -> Json:
    """The pod as the API server would store it. Raises ApiRefusedError."""
    metadata = {**copy.deepcopy(template["metadata"]), "generateName": "pod-", "namespace": namespace}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    found: Json = api.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod, dryRun="All", fieldValidation="Strict")
    return found


def check(api: Api, namespace: str, template: Json) -> None:
    """It is let in, and nothing was added that gives it rights."""
    spec = admitted(api, namespace, template)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert [volume["name"] for volume in spec["volumes"]] == [volume["name"] for volume in template["spec"]["volumes"]]
    assert "serviceaccount" not in str([volume for container in spec["containers"] for volume in container["volumeMounts"]])


@pytest.mark.parametrize("version", ["1.2.1", "1.3.0rc29"], ids=["TensorRTEngine", "HFCheckpoint"])
def test_every_stage_and_server_of_both_recipes(api: Api, restricted: str, version: str) -> None:
    """With every optional part of a pod."""
    placement = {
        "resources": {"requests": {"memory": "8Gi"}, "limits": {"memory": "64Gi"}}, "nodeSelector": _NODE, "priorityClassName": "generated",
        "runtimeClassName": "generated", "tolerations": [{"key": "team", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
    }  # fmt: skip
    job = {**placement, "activeDeadline": "6h", "retries": 1}
    runtime = {"image": "example.test/trt:1", "imagePullPolicy": "Always", "imagePullSecrets": [{"name": "pull"}]}
    engine = _engine(
        {
            "source": {"huggingFace": {"tokenSecretRef": {"name": "hub"}}}, "runtime": {"version": version, **runtime}, "verify": {"smoke": True},
            "parallelism": {"tensor": 2}, "storage": {"claimName": "models"}, "accelerator": {"product": "NVIDIA-H100-80GB-HBM3"},
            "jobs": {"fetch": job, "build": job, "verify": job}, "podSecurity": {"runAsUser": 4711, "writableRootFilesystem": True},
        },
        from_hub=True,
    )  # fmt: skip
    service = {
        "engineRef": {"name": "llama"}, "runtime": runtime, "placement": placement, "serve": {"options": {"x": 1}, "chunkedPrefill": True},
        "podSecurity": {"runAsUser": 4711, "writableRootFilesystem": True}, "replicas": 3,
    }  # fmt: skip
    found = list(pod_templates(made_from(engine, service)))
    stages = {obj["metadata"]["labels"].get(names.STAGE, "serve") for obj, _ in found}
    assert stages == {"resolve", "fetch", "publish", "verify", "serve"} | ({"build"} if version == "1.2.1" else set())
    for _, template in found:
        check(api, restricted, template)


def test_any_pod_is_let_in(api: Api, restricted: str) -> None:
    """But for those whose spec asks to run as root, which is told in the docs of that field."""

    @_ONE_FILE
    @given(engine=ENGINES, service=SERVICES)
    def judge(engine: Json, service: Json) -> None:
        for obj, template in pod_templates(made_from(engine, service)):
            asked = (service if obj["kind"] == "Deployment" else engine).get("podSecurity", {})
            if asked.get("runAsRoot"):
                with pytest.raises(ApiRefusedError, match="violates PodSecurity") as caught:
                    admitted(api, restricted, template)
                assert caught.value.status == 403
            else:
                check(api, restricted, template)

    judge()


def test_the_namespace_enforces(api: Api, restricted: str) -> None:
    """Else it would let in everything."""
    spec = {"containers": [{"name": "x", "image": "x"}]}
    with pytest.raises(ApiRefusedError, match="violates PodSecurity"):
        admitted(api, restricted, {"metadata": {}, "spec": spec})


@pytest.mark.parametrize("name", ["base", "overlays/demo", "overlays/namespaced", "demo"])
def test_the_operators_own_pods_are_let_in(api: Api, restricted: str, name: str) -> None:
    deployments = [obj for obj in built(name) if obj["kind"] == "Deployment"]
    assert deployments
    for obj in deployments:
        admitted(api, restricted, obj["spec"]["template"])
