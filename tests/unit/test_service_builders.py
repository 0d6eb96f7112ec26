"""Golden pairs: golden/service/<case>/in.yaml gives golden/service/<case>/out.yaml, all objects of an LLMService.

After a wanted change: `GOLDEN=write pytest tests/unit/test_service_builders.py`, then read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.test_service_rules import check_restricted
from tests.unit.test_service_world import CONFIG, Json, World, build_object, engine_object, service_object
from trtllm_operator.api.llmservice import LLMServiceSpec, Rollout
from trtllm_operator.decide.decision import Apply
from trtllm_operator.desired.deployment import deadline_seconds, startup_seconds
from trtllm_operator.desired.options import conflict, content, options_hash

GOLDEN = Path(__file__).parent / "golden" / "service"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


def objects(case: Json) -> list[Json]:
    """What ends up in the cluster, in the order in which it is first applied."""
    world = World(service_object(**case["spec"]), engine=False)
    build = build_object(**case["build"])
    world.builds[build["metadata"]["name"]] = build
    world.engine = engine_object(build, **case.get("engine", {}))
    world.settle()
    return [
        {key: value for key, value in obj.items() if key != "status"} | {"metadata": _plain(obj["metadata"])}
        for obj in world.objects.values()
    ]


def _plain(metadata: Json) -> Json:
    return {key: value for key, value in metadata.items() if key not in ("uid", "resourceVersion", "generation")}


def test_there_are_cases() -> None:
    assert len(CASES) >= 4


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    made = objects(yaml.safe_load((GOLDEN / case / "in.yaml").read_text()))
    for obj in made:
        if obj["kind"] == "Deployment":
            check_restricted(obj["spec"]["template"])
    text = yaml.safe_dump_all(made, sort_keys=True, width=120)
    file = GOLDEN / case / "out.yaml"
    if os.environ.get("GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()


def deployment(version: str = "1.2.1", recipe: str = "TensorRTEngine", **spec: Any) -> Json:
    world = World(service_object(**spec), engine=False)
    world.verified(build_object(recipe=recipe, version=version))
    world.settle()
    return world.deployment()


def container(version: str = "1.2.1", recipe: str = "TensorRTEngine", **spec: Any) -> Json:
    return dict(deployment(version, recipe, **spec)["spec"]["template"]["spec"]["containers"][0])


@pytest.mark.parametrize(
    ("version", "recipe", "name", "path", "flag"),
    [
        ("1.2.1", "TensorRTEngine", "chat", "/models/chat", False),
        ("1.2.1", "TensorRTEngine", None, "/models/llama", False),
        ("1.3.0rc29", "HFCheckpoint", "acme/llama", "/models/llama", True),
        ("1.3.0rc29", "HFCheckpoint", None, "/models/llama", True),
    ],
)
def test_the_name_that_clients_use(version: str, recipe: str, name: str | None, path: str, flag: bool) -> None:
    """A version without the option names the model by the last component of its path."""
    made = container(version, recipe, serve={"servedModelName": name} if name else {})
    assert made["command"][:2] == ["trtllm-serve", path]
    assert path in [mount["mountPath"] for mount in made["volumeMounts"] if mount.get("readOnly")]
    assert ("--served_model_name" in made["command"]) is flag
    if flag:
        assert made["command"][made["command"].index("--served_model_name") + 1] == (name or "llama")


def test_everything_of_the_artifact_is_read_only() -> None:
    mounts = [mount for mount in container()["volumeMounts"] if mount["name"] in ("model", "options")]
    assert mounts
    assert all(mount["readOnly"] is True for mount in mounts)


def test_dollar_signs_reach_the_program_as_they_are() -> None:
    assert "$$(HOME)" not in container()["command"]
    made = container(serve={"reasoningParser": "x"}, runtime={"image": "example.test/a:1"})
    assert made["image"] == "example.test/a:1"


@pytest.mark.parametrize(("version", "path"), [("1.1.0", "/health_generate"), ("1.2.1", "/health")])
def test_liveness_by_version(version: str, path: str) -> None:
    probe = container(version)["livenessProbe"]
    assert probe["httpGet"]["path"] == path
    if path == "/health_generate":
        assert probe["timeoutSeconds"] >= 30
        assert probe["periodSeconds"] >= 60


@pytest.mark.parametrize(
    ("gib", "timeout", "wanted"),
    [(1, None, 1800), (75, None, 1800), (200, None, 3960), (400, None, 7560), (400, "10m", 600)],
)
def test_startup_time_grows_with_the_model(gib: int, timeout: str | None, wanted: int) -> None:
    spec = LLMServiceSpec.model_validate({"engineRef": {"name": "a"}, "availability": {"startupTimeout": timeout} if timeout else {}})
    assert startup_seconds(spec, gib * 2**30) == wanted


@pytest.mark.parametrize(
    ("deadline", "startup", "wanted"), [("1h", 1800, 3600), ("1h", 7560, 8160), ("10m", 7560, 600), ("2h", 7560, 7200), ("0s", 1, 6)]
)
def test_default_deadline_gives_way_to_slow_models(deadline: str, startup: int, wanted: int) -> None:
    assert deadline_seconds(Rollout(progress_deadline=deadline), startup) == wanted


def test_startup_probe_lasts_as_long_as_it_says() -> None:
    probe = container(availability={"startupTimeout": "33m"})["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 33 * 60


def test_drain_comes_out_of_the_grace_period() -> None:
    made = deployment(availability={"terminationGracePeriod": "1m"})["spec"]["template"]["spec"]
    drain = made["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert 5 <= drain <= 10
    assert made["terminationGracePeriodSeconds"] == 60 + drain


def test_equal_options_in_another_order_are_the_same_revision() -> None:
    one = deployment(serve={"options": {"a": 1, "b": {"c": 2, "d": 3}}})
    two = deployment(serve={"options": {"b": {"d": 3, "c": 2}, "a": 1}})
    assert one == two


@pytest.mark.parametrize(
    "change",
    [
        {"serve": {"options": {"a": 1}}},
        {"serve": {"maxBatchSize": 1}},
        {"runtime": {"image": "example.test/b:1"}},
        {"placement": {"nodeSelector": {"a": "b"}}},
    ],
)
def test_what_changes_the_pods_changes_the_revision(change: Json) -> None:
    def mark(obj: Json) -> str:
        return str(obj["spec"]["template"]["metadata"]["annotations"]["trtllm.dev/template-hash"])

    assert mark(deployment(**change)) != mark(deployment())


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": 3},
        {"expose": {"service": {"port": 80}}},
        {"rollout": {"progressDeadline": "2h"}},
        {"networkPolicy": {"enabled": False}},
    ],
)
def test_what_does_not_concern_the_pods_restarts_none(change: Json) -> None:
    assert deployment(**change)["spec"]["template"] == deployment()["spec"]["template"]


def test_no_label_of_the_resource_is_copied() -> None:
    service = service_object()
    service["metadata"] |= {"labels": {"app.kubernetes.io/instance": "argo"}, "annotations": {"argocd.argoproj.io/tracking-id": "x"}}
    world = World(service)
    world.settle()
    text = yaml.safe_dump_all([dict(obj) for obj in world.objects.values()])
    assert "argo" not in text


def test_no_clients_means_nobody() -> None:
    world = World(networkPolicy={"clients": []})
    world.settle()
    policy = world.objects["NetworkPolicy", "chat"]["spec"]
    assert policy["ingress"] == []
    assert policy["egress"] == []
    assert policy["policyTypes"] == ["Ingress", "Egress"]


def test_options_file() -> None:
    serve = LLMServiceSpec.model_validate({"engineRef": {"name": "a"}, "serve": {"options": {"b": [1, None], "a": {"x": True}}}}).serve
    assert content(serve) == "a:\n  x: true\nb:\n- 1\n- null\n"
    assert content(LLMServiceSpec.model_validate({"engineRef": {"name": "a"}}).serve) is None
    assert options_hash(serve)
    assert conflict(serve.options or {}) is None


def test_applies_carry_hash_and_owner() -> None:
    world = World(serve={"options": {"a": 1}})
    assert CONFIG.tools_image not in str(world.decide().apply), "nothing of the operator runs beside the server"
    for apply in world.decide().apply:
        assert isinstance(apply, Apply)
        metadata = apply.obj["metadata"]
        assert apply.manager == "trtllm-operator"
        assert metadata["annotations"]["trtllm.dev/desired-hash"]
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "trtllm-operator"
        owner = metadata["ownerReferences"][0]
        assert owner["controller"] is True
        assert "blockOwnerDeletion" not in owner


def test_pods_come_after_what_they_need_and_before_what_can_wait() -> None:
    """Pods that run before their NetworkPolicy would be open to all for so long."""
    world = World(serve={"options": {"x": 1}})
    order = [(apply.obj["kind"], apply.can_wait) for apply in world.decide().apply]
    needed = [("NetworkPolicy", False), ("ConfigMap", False), ("Deployment", False)]
    assert order == [*needed, ("Service", True), ("PodDisruptionBudget", True)]
