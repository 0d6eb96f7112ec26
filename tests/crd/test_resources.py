"""What users do with the resources, on a real API server: apply, defaults, scale, `kubectl get`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.controlplane import ControlPlane
from tests.cluster.process import CommandError
from tests.crd import objects
from tests.crd.conftest import ROOT
from tests.support.api import APPLY, MERGE, Api, ApiRefusedError
from tests.support.kubectl import Kubectl, program
from trtllm_operator.api.crdgen.definition import DEFINITIONS
from trtllm_operator.api.llmengine import LLMEngineSpec
from trtllm_operator.api.llmservice import LLMServiceSpec
from trtllm_operator.kube.resources import BY_KIND

FILES = sorted([*(ROOT / "manifests" / "samples").glob("*.yaml"), *(ROOT / "manifests" / "demo").glob("llm*.yaml")])


@pytest.fixture
def space(api: Api, request: pytest.FixtureRequest) -> str:
    """A namespace of its own."""
    return api.namespace("".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:60].strip("-"))


@pytest.fixture
def kubectl(control_plane: ControlPlane, api: Api) -> Kubectl:
    """kubectl, as an admin uses it."""
    del api  # definitions are installed
    return Kubectl(program(built=True), control_plane.kubeconfig)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_samples_are_taken_by_server_side_apply(api: Api, space: str, file: Path) -> None:
    for document in yaml.safe_load_all(file.read_text()):
        obj = {**document, "metadata": {**document["metadata"], "namespace": space}}
        path = BY_KIND[obj["kind"]].path(space, obj["metadata"]["name"])
        # Until the operator has written one, the second apply stores the status that the first one was shown.
        first, second, third = (
            api.request("PATCH", path, obj, content_type=APPLY, fieldManager="argocd", fieldValidation="Strict") for _ in range(3)
        )
        assert {key: value for key, value in first.items() if key != "metadata"} == {k: v for k, v in second.items() if k != "metadata"}
        assert second["metadata"] == third["metadata"]
        [entry] = first["metadata"]["managedFields"]
        assert set(entry["fieldsV1"]["f:spec"]) == {f"f:{name}" for name in obj["spec"]}, "defaults must not become the applier's"
        # What the server completed is what the operator's types make of it.
        model = LLMEngineSpec if obj["kind"] == "LLMEngine" else LLMServiceSpec
        assert model.model_validate(first["spec"]) == model.model_validate(obj["spec"])


@pytest.mark.parametrize(("kind", "model"), [("LLMEngine", LLMEngineSpec), ("LLMService", LLMServiceSpec)])
def test_defaults_are_those_of_the_types(api: Api, space: str, kind: str, model: Any) -> None:
    obj = objects.whole(kind)
    obj["metadata"]["namespace"] = space
    made = api.create(obj)

    def said(value: Any) -> Any:
        """Without empty objects, which are left out."""
        return {key: said(item) for key, item in value.items() if said(item) != {}} if isinstance(value, dict) else value

    assert made["spec"] == said(model.model_validate(obj["spec"]).dump())


def test_null_is_as_good_as_absent(api: Api, space: str) -> None:
    obj = objects.whole("LLMEngine")
    obj["metadata"]["namespace"] = space
    obj["spec"] |= {"parallelism": {"tensor": None}, "accelerator": {"product": None}}
    made = api.create(obj)
    assert made["spec"]["parallelism"] == {"tensor": 1, "pipeline": 1}
    assert made["spec"]["accelerator"] == {"resourceName": "nvidia.com/gpu"}


@pytest.mark.parametrize("kind", list(objects.SPECS))
def test_an_unknown_field_is_refused_by_name(api: Api, kind: str) -> None:
    obj = objects.whole(kind)
    obj["spec"]["tensorParallelism"] = 2
    with pytest.raises(ApiRefusedError, match=r'unknown field "spec\.tensorParallelism"') as caught:
        api.request("POST", BY_KIND[kind].path("default"), obj, dryRun="All", fieldValidation="Strict")
    assert caught.value.status == 400


def test_options_keep_any_value(api: Api, space: str) -> None:
    options = {
        "cuda_graph_config": {"enable_padding": True, "batch_sizes": [1, 2]},
        "print_iter_log": False,
        "ratio": 0.5,
        "name": "x",
        "nothing": [],
    }
    obj = objects.whole("LLMService")
    obj["metadata"]["namespace"] = space
    obj["spec"]["serve"] = {"options": options}
    assert api.create(obj)["spec"]["serve"]["options"] == options


def test_status_is_a_subresource(api: Api, space: str) -> None:
    for kind in objects.SPECS:
        obj = objects.whole(kind)
        obj["metadata"]["namespace"] = space
        made = api.create({**obj, "status": {"observedGeneration": 7}})
        assert made["status"] == {"observedGeneration": -1}, "not yet seen, so that kstatus does not take it for settled"
        done = api.patch(kind, "x", {"spec": {"suspend": True}, "status": {"observedGeneration": 1}}, space, "status")
        assert done["status"] == {"observedGeneration": 1}, "no defaults in a status: what was written is what is read"
        assert done["metadata"]["generation"] == 1


def test_conditions_of_two_managers_live_side_by_side(api: Api, space: str) -> None:
    obj = objects.whole("LLMEngine")
    obj["metadata"]["namespace"] = space
    api.create(obj)
    path = BY_KIND["LLMEngine"].path(space, "x", "status")
    for manager, condition in (("one", "Ready"), ("two", "Approved")):
        status = {"conditions": [{"type": condition, "status": "True", "reason": "Tested"}]}
        body = {"apiVersion": objects.API_VERSION, "kind": "LLMEngine", "metadata": {"name": "x"}, "status": status}
        done = api.request("PATCH", path, body, content_type=APPLY, fieldManager=manager)
    assert [condition["type"] for condition in done["status"]["conditions"]] == ["Ready", "Approved"]


def test_scale_subresource(api: Api, kubectl: Kubectl, space: str) -> None:
    obj = objects.whole("LLMService")
    obj["metadata"]["namespace"] = space
    api.create(obj)
    here = kubectl.within(space)
    here("scale", "llmservice/x", "--replicas=3")  # works although replicas was absent
    assert api.get("LLMService", "x", space)["spec"]["replicas"] == 3
    api.patch("LLMService", "x", {"status": {"replicas": 2, "selector": "trtllm.dev/service=x"}}, space, "status")
    scale = api.request("GET", BY_KIND["LLMService"].path(space, "x", "scale"))
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 2, "selector": "trtllm.dev/service=x"}


def test_scaling_what_an_autoscaler_owns_is_refused(api: Api, space: str) -> None:
    obj = objects.whole("LLMService")
    obj["metadata"]["namespace"] = space
    obj["spec"]["autoscaling"] = {"maxReplicas": 2, "metrics": [{"type": "resource", "name": "cpu", "averageUtilization": 50}]}
    api.create(obj)
    with pytest.raises(ApiRefusedError, match="replicas can't be set together with autoscaling"):
        api.request("PATCH", BY_KIND["LLMService"].path(space, "x", "scale"), {"spec": {"replicas": 2}}, content_type=MERGE)


def test_kubectl_get_is_readable(api: Api, kubectl: Kubectl, space: str) -> None:
    for kind in objects.SPECS:
        obj = objects.whole(kind)
        obj["metadata"]["namespace"] = space
        api.create(obj)
        ready = {"type": "Ready", "status": "Unknown", "reason": "Building", "message": "the engine is being built"}
        api.patch(kind, "x", {"status": {"conditions": [ready]}}, space, "status")
    progress = {"status": {"progress": {"stage": "build", "percent": 42}, "build": "llama-0123456789"}}
    api.patch("LLMEngine", "x", progress, space, "status")
    here = kubectl.within(space)
    header, row = here("get", "llme").splitlines()
    assert header.split() == ["NAME", "READY", "REASON", "STAGE", "PROGRESS", "%", "MODEL", "VERSION", "AGE"]
    assert row.split()[:-1] == ["x", "Unknown", "Building", "build", "42", "meta-llama/Llama-3.2-1B", "1.2.1"]
    assert "the engine is being built" in here("get", "llmengine", "--output=wide")
    assert here("get", "llmeb").splitlines()[1].split()[:4] == ["x", "Unknown", "Building", "TensorRTEngine"]
    assert here("get", "llms").splitlines()[0].split() == ["NAME", "READY", "REASON", "SERVING", "REPLICAS", "MODEL", "URL", "AGE"]
    listed = here("get", "trtllm", "--output=name").split()
    assert sorted(listed) == sorted(f"{definition.names.kind.lower()}.trtllm.dev/x" for definition in DEFINITIONS)
    assert here("get", "all", "--output=name").split() == [], "`kubectl delete all --all` must not take engines"


def test_kubectl_explain_tells_what_fields_mean(kubectl: Kubectl) -> None:
    said = kubectl("explain", "llmengine.spec.build")
    assert "Limits and options of a TensorRT engine" in said
    assert "GPUs that the build uses" in said


def test_people_meet_the_remedy(kubectl: Kubectl) -> None:
    obj = objects.whole("LLMService")
    obj["spec"]["rollout"] = {"progressDeadline": "10 minutes"}
    with pytest.raises(CommandError, match=r"spec\.rollout\.progressDeadline: .* must be a duration such as 90s, 10m or 1h30m"):
        kubectl("apply", "--dry-run=server", "--filename=-", stdin=yaml.safe_dump(obj))
