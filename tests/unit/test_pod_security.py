"""Every pod, from any specs that the API server takes: `restricted` by Pod Security, no service account token, no field of which nobody knows,
and less of that only where the spec asks for less. The specs are generated from the schemas, so a new field takes part by itself.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.flow import CONFIG, engine_object
from tests.unit.test_injection import SECRETS, check_all
from tests.unit.test_injection_rendering import containers, pod_templates, render
from tests.unit.test_injection_schema import SCHEMAS, refusals, values
from tests.unit.test_pod_security_checker import strange, violations
from tests.unit.test_service_world import service_object
from trtllm_operator.desired import names

Json = dict[str, Any]

_METRICS = [
    {"type": "resource", "name": "cpu", "averageUtilization": 70},
    {"type": "pods", "name": "trtllm_num_requests_waiting", "averageValue": "4"},
]
_ABSENT = st.none()
_TOLERATIONS = st.sampled_from(
    [
        {"operator": "Exists"},
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "team", "value": "a"},
        {"key": "team", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
    ]
)

# What must be so that something is made: versions that exist, GPUs that are known, and no two fields that exclude each other.
ENGINE: dict[str, st.SearchStrategy[Any]] = {
    "runtime.version": st.sampled_from(["1.0.0", "1.1.0", "1.2.1", "1.3.0rc20", "1.3.0rc29"]),
    "runtime.backend": st.sampled_from(["auto", "pytorch"]),
    "accelerator.computeCapability": st.just("9.0"),
    "parallelism.tensor": st.sampled_from([1, 2, 4]),
    "parallelism.pipeline": st.sampled_from([1, 2, 4]),
    "build.workers": st.just(1),
    "build.maxInputLen": _ABSENT,
    "build.optNumTokens": _ABSENT,
    "build.extraArgs[].flag": st.sampled_from(["--profiling_verbosity", "--strip_plan", "--logits_dtype"]),
    "suspend": st.just(value=False),
    **{f"jobs.{stage}.tolerations[]": _TOLERATIONS for stage in ("fetch", "build", "verify")},
}
SERVICE: dict[str, st.SearchStrategy[Any]] = {
    "engineRef.name": st.just("llama"),
    "placement.tolerations[]": _TOLERATIONS,
    "autoscaling.minReplicas": st.just(1),
    "autoscaling.metrics": st.lists(st.sampled_from(_METRICS), min_size=1, max_size=2, unique_by=lambda metric: str(metric["name"])),
    "autoscaling.scaleDownStabilization": st.just("10m"),
    "networkPolicy.clients": st.lists(st.just({"podLabels": {"app": "chat"}}), max_size=2),
    "serve.options": st.dictionaries(st.from_regex("x[a-z]{0,5}", fullmatch=True), st.integers(0, 9), max_size=2),
}


def _engine(spec: Json, from_hub: bool) -> Json:
    source = {"huggingFace": {"repo": "acme/llama", **spec["source"].get("huggingFace", {})}}
    pvc = {"pvc": {"claimName": "models", **spec["source"].get("pvc", {})}}
    storage = spec.get("storage", {})
    if "claimName" in storage:
        storage = {key: value for key, value in storage.items() if key == "claimName"}
    accelerator = {**spec.get("accelerator", {}), "computeCapability": "9.0"}
    return {**spec, "source": source if from_hub else pvc, "storage": storage, "accelerator": accelerator}


def _service(spec: Json, scaled: bool) -> Json:
    left_out = "replicas" if scaled else "autoscaling"
    return {key: value for key, value in spec.items() if key != left_out}


ENGINES = st.builds(_engine, values(SCHEMAS["LLMEngine"]["properties"]["spec"], (), ENGINE), st.booleans())
SERVICES = st.builds(_service, values(SCHEMAS["LLMService"]["properties"]["spec"], (), SERVICE), st.booleans())


def made_from(engine_spec: Json, service_spec: Json) -> list[Json]:
    """All objects. The specs must be such that the LLMEngine gets ready."""
    engine, service = {**engine_object(), "spec": engine_spec}, {**service_object(), "spec": service_spec}
    assert refusals(engine) == refusals(service) == []
    made = render(engine, service)
    ready = next(c for c in engine["status"]["conditions"] if c["type"] == "Ready")
    assert ready["status"] == "True", ready
    if not any(obj["kind"] == "Deployment" for obj in made):
        assert {c["reason"] for c in service["status"]["conditions"] if c["type"] == "Stalled"} <= {"UnsupportedOption", "InvalidSpec"}
    return made


def check_pod(obj: Json, template: Json, engine: Json, service: Json) -> None:
    """One pod, against what its spec asks for."""
    spec = template["spec"]
    asked = (service if obj["kind"] == "Deployment" else engine).get("podSecurity", {})
    runtime_image = obj["kind"] == "Deployment" or obj["metadata"]["labels"][names.STAGE] in ("build", "verify")
    assert violations(template) == ({"Running as Non-root", "Running as Non-root user"} if asked.get("runAsRoot") else set())
    assert strange(template) == set()
    assert spec["automountServiceAccountToken"] is False
    user = 0 if asked.get("runAsRoot") else asked.get("runAsUser", 1000)
    assert {spec["securityContext"][field] for field in ("runAsUser", "runAsGroup", "fsGroup")} == {user}
    for container in spec["containers"]:
        writable = bool(asked.get("writableRootFilesystem")) and runtime_image
        assert container["securityContext"]["readOnlyRootFilesystem"] is not writable
        assert (container["image"] == CONFIG.tools_image) is not runtime_image
    for container in spec.get("initContainers", ()):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["image"] == CONFIG.tools_image
    check_places(template)
    gpus = [key for c in containers(template) for key in c["resources"].get("limits", {}) if key == engine_gpu(engine)]
    assert len(gpus) == int(runtime_image), "a GPU is held only while a GPU works"


def engine_gpu(engine: Json) -> str:
    """Name of the resource."""
    return str(engine.get("accelerator", {}).get("resourceName", "nvidia.com/gpu"))


def check_places(template: Json) -> None:
    """Volumes and mounts agree; what is shared with others is where it should be."""
    spec = template["spec"]
    known = {volume["name"] for volume in spec["volumes"]}
    assert len(known) == len(spec["volumes"])
    for container in containers(template):
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(mounts) == len(set(mounts))
        assert {mount["name"] for mount in container["volumeMounts"]} <= known
        variables = [entry["name"] for entry in container.get("env", ())]
        assert len(variables) == len(set(variables))
        assert container["command"][0] in ("python3", "trtllm-serve")


_SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
_ALL_OUT = {"runAsRoot": True, "writableRootFilesystem": True}


@_SLOW
@given(engine=ENGINES, service=SERVICES)
@example(
    engine=_engine({"source": {}, "runtime": {"version": "1.2.1"}, "podSecurity": _ALL_OUT}, from_hub=True),
    service={"engineRef": {"name": "llama"}, "podSecurity": _ALL_OUT},
)
@example(
    engine=_engine({"source": {}, "runtime": {"version": "1.2.1"}, "storage": {"claimName": "models"}}, from_hub=False),
    service={"engineRef": {"name": "llama"}, "podSecurity": {"writableRootFilesystem": True}},
)
def test_any_pod(engine: Json, service: Json) -> None:
    made = made_from(engine, service)
    templates = list(pod_templates(made))
    assert len(templates) >= 3
    for obj, template in templates:
        check_pod(obj, template, engine, service)
    check_all(made)


@_SLOW
@given(engine=ENGINES, service=SERVICES)
def test_nothing_but_pods_holds_power(engine: Json, service: Json) -> None:
    """Kinds that are made, and whose they are: nothing that grants rights, nothing outside the namespace, nothing without an owner."""
    for obj in made_from(engine, service):
        assert obj["kind"] in {
            "LLMEngine", "LLMService", "LLMEngineBuild", "Job", "PersistentVolumeClaim", "Deployment", "Service", "ConfigMap",
            "PodDisruptionBudget", "NetworkPolicy", "HorizontalPodAutoscaler",
        }  # fmt: skip
        assert obj["metadata"]["namespace"] == "default"
        if obj["kind"] not in ("LLMEngine", "LLMService"):
            assert obj["metadata"]["ownerReferences"]
            assert all(reference["apiVersion"] == "trtllm.dev/v1alpha1" for reference in obj["metadata"]["ownerReferences"])


def test_the_token_goes_only_where_it_is_needed() -> None:
    """See test_pod_security_secrets.py for what else holds of it."""
    assert SECRETS.keys() == {"HF_TOKEN"}
    for name, wanted in (("hub", {"resolve", "fetch"}), (None, set())):
        source: Json = {"repo": "acme/llama", **({"tokenSecretRef": {"name": name}} if name else {})}
        made = render(engine_object(source={"huggingFace": source}), service_object())
        with_token = {
            obj["metadata"]["labels"].get(names.STAGE, "serve")
            for obj, template in pod_templates(made)
            for container in containers(template)
            for entry in container.get("env", ())
            if "valueFrom" in entry
        }
        assert with_token == wanted
