"""Properties of every LLMService: conditions by kstatus' and Flux' rules, pods by Pod Security `restricted`, and passes that settle."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.unit.test_service_world import Json, World, build_object, engine_object, service_object, unschedulable
from trtllm_operator.api.llmservice import LLMServiceSpec

_NEGATIVE = ("Reconciling", "Stalled")


def check_conditions(service: Json) -> None:
    """FAIL0001 to FAIL0011 of fluxcd/pkg/runtime/conditions/check."""
    status, generation = service["status"], service["metadata"]["generation"]
    by_type = {c["type"]: c for c in status["conditions"]}
    assert len(by_type) == len(status["conditions"])
    ready = by_type["Ready"]["status"]  # 2
    for kind in _NEGATIVE:
        assert by_type.get(kind, {"status": "True"})["status"] == "True"  # only while true
    if ready == "True":
        assert not any(kind in by_type for kind in _NEGATIVE)  # 1, 3, 4
        assert status["observedGeneration"] == generation  # 7
        assert all(c["observedGeneration"] == generation for c in status["conditions"])  # 8, 9
    assert not all(kind in by_type for kind in _NEGATIVE)  # 5
    assert status["observedGeneration"] <= generation  # 6
    if ready == "Unknown":
        assert "Reconciling" in by_type  # 11
    if "Stalled" in by_type:
        assert ready == "False"
    if ready == "False":
        assert "Stalled" in by_type
    assert all(c["reason"] and c["lastTransitionTime"] for c in status["conditions"])


def check_restricted(pod: Json) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, and what we promise beyond it."""
    spec = pod["spec"]
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    assert all(set(volume) - {"name"} <= allowed for volume in spec["volumes"])
    assert not any(spec.get(field) for field in ("hostNetwork", "hostPID", "hostIPC"))
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert not any("hostPort" in port for port in container.get("ports", ()))
        assert container["command"][0] not in ("sh", "bash", "/bin/sh", "/bin/bash")
        assert not any(mount["mountPath"] == "/" for mount in container["volumeMounts"])
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(mounts) == len(set(mounts))
        assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in spec["volumes"]}
        env = [entry["name"] for entry in container["env"]]
        assert len(env) == len(set(env))  # the API server answers 500 to a name that is there twice


_name = st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True)
_label = st.from_regex(r"[A-Za-z0-9]{1,10}", fullmatch=True)
_labels = st.dictionaries(_label, _label, max_size=3)
_duration = st.sampled_from(["5s", "90s", "10m", "1h", "1h30m", "99999999999h"])
_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=2), max_leaves=4
)
_resources = st.fixed_dictionaries({"limits": st.just({"memory": "64Gi"})}, optional={"requests": st.just({"cpu": "500m"})})
_metric = st.sampled_from(
    [
        {"type": "resource", "name": "cpu", "averageUtilization": 70},
        {"type": "pods", "name": "trtllm_num_requests_waiting", "averageValue": "4"},
        {"type": "resource", "name": "memory", "averageValue": "2Gi"},
    ]
)
_peer = st.fixed_dictionaries({"podLabels": _labels}, optional={"namespaceLabels": _labels})


def _some(**optional: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries({}, optional=optional)


def _autoscaling(least: int, metrics: list[Json], window: str | None) -> Json:
    return {"minReplicas": least, "maxReplicas": 9, "metrics": metrics} | ({"scaleDownStabilization": window} if window else {})


def _expose(kind: str, port: int) -> Json:
    return {"service": {"type": kind, "port": port}}


_image = {"image": st.just("registry.example.test/trtllm:1"), "imagePullSecrets": st.just([{"name": "pull"}])}
SPECS = st.fixed_dictionaries(
    {"engineRef": st.just({"name": "llama"})},
    optional={
        "runtime": st.fixed_dictionaries({}, optional=_image),
        "replicas": st.integers(0, 1000),
        "serve": st.fixed_dictionaries(
            {},
            optional={
                "servedModelName": st.sampled_from(["chat", "acme/llama", "$(HOME)", "a.b-c_d"]),
                "maxBatchSize": st.integers(1, 64),
                "kvCacheFreeGpuMemoryFraction": st.floats(0.01, 1),
                "chunkedPrefill": st.booleans(),
                "reasoningParser": st.just("deepseek-r1"),
                "toolParser": st.just("qwen3"),
                "options": st.dictionaries(st.from_regex(r"x[a-z_]{1,8}", fullmatch=True), _value, max_size=3),
            },
        ),
        "autoscaling": st.builds(_autoscaling, st.integers(1, 9), st.lists(_metric, min_size=1, max_size=3), st.none() | _duration),
        "rollout": _some(strategy=st.sampled_from(["auto", "surge", "inPlace"]), progressDeadline=_duration),
        "expose": st.builds(_expose, st.sampled_from(["ClusterIP", "NodePort"]), st.integers(1, 65535)),
        "availability": _some(maxUnavailable=st.integers(0, 9), terminationGracePeriod=_duration, startupTimeout=_duration),
        "networkPolicy": _some(enabled=st.booleans(), clients=st.lists(_peer, max_size=3)),
        "placement": st.fixed_dictionaries({}, optional={"resources": _resources, "nodeSelector": _labels, "priorityClassName": _name}),
        "podSecurity": st.fixed_dictionaries({}, optional={"runAsUser": st.integers(1, 2**31 - 1)}),
    },
)  # fmt: skip

_QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _valid(spec: Json) -> bool:
    try:
        LLMServiceSpec.model_validate(spec)
    except ValidationError:
        return False
    return not ("replicas" in spec and "autoscaling" in spec)


@_QUICK
@given(
    spec=SPECS.filter(_valid),
    build=st.sampled_from([("TensorRTEngine", "1.1.0"), ("TensorRTEngine", "1.2.1"), ("HFCheckpoint", "1.3.0rc29")]),
    tensor=st.integers(1, 4),
)
def test_any_valid_spec_settles_with_restricted_pods_and_lawful_conditions(spec: Json, build: tuple[str, str], tensor: int) -> None:
    world = World(service_object(**spec), engine=False)
    world.settle()
    check_conditions(world.service)
    world.verified(build_object(recipe=build[0], version=build[1], tensor=tensor))
    world.settle()
    check_conditions(world.service)
    deployment = world.get("Deployment")
    if deployment is None:
        assert world.condition("Stalled")[0] == "True"
        return
    check_restricted(deployment["spec"]["template"])
    for field in ("progressDeadlineSeconds", "minReadySeconds"):
        assert 0 < deployment["spec"][field] < 2**31
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == str(tensor)
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] < 2**31
    assert world.condition("Ready")[0] == "Unknown"
    world.controller()
    world.settle()
    check_conditions(world.service)
    assert world.condition("Ready")[0] == "True", world.condition("Ready")
    written = list(world.log)
    world.step()
    assert world.log == written


_DEPLOYMENT: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"updated": st.integers(0, 3), "available": st.integers(0, 3), "total": st.integers(0, 3)}
)


@_QUICK
@given(data=st.data(), spec=SPECS.filter(_valid))
def test_no_path_through_the_life_of_a_service_breaks_a_rule(data: st.DataObject, spec: Json) -> None:
    world = World(service_object(**spec), engine=data.draw(st.booleans()))
    for _ in range(data.draw(st.integers(1, 5))):
        match data.draw(
            st.sampled_from(["spec", "engine gone", "engine waits", "artifact", "controller", "deadline", "pod", "deployment gone"])
        ):
            case "spec":
                world.service["spec"] = data.draw(SPECS.filter(_valid))
                world.service["metadata"]["generation"] += 1
            case "engine gone":
                world.engine = None
            case "engine waits":
                world.engine = engine_object(ready=data.draw(st.sampled_from([("Unknown", "Building"), ("False", "Suspended")])))
            case "artifact":
                version = data.draw(st.sampled_from(["1.1.0", "1.2.1"]))
                world.verified(build_object(data.draw(st.sampled_from(["llama-aaaaaaaaaa", "llama-bbbbbbbbbb"])), version=version))
            case "controller" if world.get("Deployment"):
                world.controller(**data.draw(_DEPLOYMENT))
            case "deadline" if world.get("Deployment"):
                world.controller(available=0, Progressing={"status": "False", "reason": "ProgressDeadlineExceeded", "message": "late"})
            case "pod" if world.get("Deployment"):
                world.pod("chat-x", phase="Pending", node=None, **unschedulable("0/1 nodes: Insufficient nvidia.com/gpu"))
            case "deployment gone":
                world.objects.pop(("Deployment", "chat"), None)
            case _:
                pass
        world.settle()
        check_conditions(world.service)
        if world.condition("Ready")[0] == "True":
            deployment = world.deployment()
            status = deployment["status"]
            assert status["observedGeneration"] >= deployment["metadata"]["generation"]
            assert status["updatedReplicas"] == status["replicas"] == status["availableReplicas"] == deployment["spec"]["replicas"]
            assert world.service["status"]["current"] == world.service["status"]["target"]
