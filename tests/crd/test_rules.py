"""Each CEL rule, on a real API server: an object that keeps it is taken, one that breaks it is refused with the rule's own message.

Rules that the generator makes from patterns and keys are found and tested by themselves; each other rule needs a line in CASES.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.crd import objects
from tests.crd.conftest import Judge, Refusal
from tests.crd.objects import merged
from tests.crd.walk import VALUE, CelRule, rules
from trtllm_operator.api.crdgen.definition import DEFINITIONS
from trtllm_operator.api.llmengine import OWN_BUILD_FLAGS

SCHEMAS = {definition.names.kind: definition.schema() for definition in DEFINITIONS}
ALL = [(kind, rule) for kind, schema in SCHEMAS.items() for rule in rules(schema)]

_PVC = {"claimName": "models"}
_CPU = {"type": "resource", "name": "cpu", "averageUtilization": 50}
_AUTOSCALING = {"maxReplicas": 2, "metrics": [_CPU]}
_BOTH = {"requests": {"cpu": 4}, "limits": {"memory": "1Gi"}}

Patch = Mapping[str, Any]

# By the start of the message: patches of what the rule is about, those that keep it and those that break it. None removes.
CASES: dict[str, tuple[list[Patch], list[Patch]]] = {
    "source must have exactly one of": (
        [{"pvc": None}, {"huggingFace": None, "pvc": _PVC}],
        [{"pvc": _PVC}, {"huggingFace": None}],
    ),
    "repo must not contain": (
        [{"repo": "owner/name-1.0_x"}, {"repo": "gpt2"}],
        [{"repo": "owner/a..b"}, {"repo": "owner/a--b"}],
    ),
    "revision must not contain": ([{"revision": "refs/pr/1"}], [{"revision": "a..b"}]),
    "endpoint must not contain": (
        [{"endpoint": "https://hub.example.com:8443/mirror"}, {}],
        [{"endpoint": "https://user:secret@hub.example.com"}, {"endpoint": "https://token@hub.example.com"}],
    ),
    "parallelism.tensor x parallelism.pipeline": (
        [{"tensor": 4, "pipeline": 4}, {"pipeline": 16}],
        [{"tensor": 4, "pipeline": 5}, {"tensor": 16, "pipeline": 2}],
    ),
    "build.maxInputLen must not exceed": (
        [{"maxInputLen": 8, "maxSeqLen": 8}, {"maxInputLen": 9}, {"maxSeqLen": 1}],
        [{"maxInputLen": 9, "maxSeqLen": 8}],
    ),
    "build.optNumTokens must not exceed": (
        [{"optNumTokens": 8, "maxNumTokens": 8}, {"optNumTokens": 9}],
        [{"optNumTokens": 9, "maxNumTokens": 8}],
    ),
    "build.optNumTokens can't be combined": (
        [{"optNumTokens": 8, "plugins": {"multipleProfiles": "disable"}}, {"optNumTokens": 8, "plugins": {}}],
        [{"optNumTokens": 8, "plugins": {"multipleProfiles": "enable"}}],
    ),
    "build.extraArgs names a flag": (
        [{"extraArgs": [{"flag": "--profiling_verbosity", "value": "detailed"}, {"flag": "--strongly_typed"}]}],
        [{"extraArgs": [{"flag": "--strongly_typed"}, {"flag": flag, "value": "1"}]} for flag in (*OWN_BUILD_FLAGS, "--output_di", "--w")],
    ),
    "storage.claimName can't be combined": (
        [{"claimName": "models"}, {"storageClassName": "fast", "accessModes": ["ReadWriteMany"], "size": "1Ti"}],
        [
            {"claimName": "models", "storageClassName": "fast"},
            {"claimName": "models", "accessModes": ["ReadWriteMany"]},
            {"claimName": "models", "size": 1},
        ],
    ),
    "build.workers must not exceed": (
        [{"build": {"workers": 8}, "parallelism": {"tensor": 4, "pipeline": 2}}, {"build": {"workers": 1}}],
        [{"build": {"workers": 2}}, {"build": {"workers": 9}, "parallelism": {"tensor": 4, "pipeline": 2}}],
    ),
    "resources.requests must not name a GPU": (
        [_BOTH],
        [{"requests": {"nvidia.com/gpu": 1}}, {"requests": {"cpu": 1, "amd.com/gpu": "1"}}],
    ),
    "resources.limits must not name a GPU": ([_BOTH], [{"limits": {"nvidia.com/gpu": 1}}]),
    "a toleration needs key": (
        [{"effect": None}, {"key": None, "operator": "Exists"}, {"key": "", "operator": "Exists"}],
        [{"key": None}, {"key": ""}, {"key": None, "operator": "Equal"}],
    ),
    "value of a toleration can't be": (
        [{"value": "a"}, {"operator": "Equal", "value": "a"}, {"operator": "Exists", "value": ""}],
        [{"operator": "Exists", "value": "a"}],
    ),
    "tolerationSeconds needs effect": (
        [{"tolerationSeconds": 5}],
        [{"effect": None, "tolerationSeconds": 5}, {"effect": "NoSchedule", "tolerationSeconds": 5}],
    ),
    "a metric needs exactly one of": (
        [_CPU, {"averageUtilization": None, "averageValue": "500m"}],
        [{"averageValue": "500m"}, {"averageUtilization": None}],
    ),
    "a metric of type pods needs averageValue": (
        [{"type": "pods", "name": "queue", "averageUtilization": None, "averageValue": 8}],
        [{"type": "pods", "name": "queue", "averageUtilization": 50}],
    ),
    "a metric of type resource must be named": ([{"name": "memory"}], [{"name": "queue"}]),
    "autoscaling.minReplicas must not exceed": (
        [{"minReplicas": 2, "maxReplicas": 2}, {"minReplicas": None, "maxReplicas": 1}],
        [{"minReplicas": 3, "maxReplicas": 2}],
    ),
    "a client of networkPolicy needs": (
        [{"podLabels": {"app": "x"}}, {"podLabels": None, "namespaceLabels": {"team": "x"}}, {"namespaceLabels": {"team": "x"}}],
        [{"podLabels": None}],
    ),
    "replicas can't be set together with autoscaling": (
        [{"replicas": 2}, {"autoscaling": _AUTOSCALING}, {}],
        [{"replicas": 2, "autoscaling": _AUTOSCALING}, {"replicas": 0, "autoscaling": _AUTOSCALING}],
    ),
    "metadata.name must have at most 63": (
        [{"metadata": {"name": "a" * 63}}, {"metadata": {"name": "1a.b"}}],
        [{"metadata": {"name": "a" * 64}}],
    ),
    "metadata.name must be a DNS label": (
        [{"metadata": {"name": "a" * 52}}, {"metadata": {"name": "llama-3-1-8b"}}],
        [{"metadata": {"name": name}} for name in ("a" * 53, "3-llama", "llama-3.1")],
    ),
}
CHANGES: dict[str, tuple[list[Patch], list[Patch]]] = {
    "spec of an LLMEngineBuild is immutable": (
        [{}],
        [{"runtimeVersion": "1.2.0"}, {"computeCapability": "9.0"}, {"source": {"repo": "gpt2"}}, {"parallelism": {"tensor": 2}}],
    )
}


def field_of(rule: CelRule) -> str:
    """The field that the server names."""
    found = next(known.get("fieldPath", "") for known in rule.schema["x-kubernetes-validations"] if known["rule"] == rule.rule)
    field = objects.field(rule.path)
    if rule.path[-1:] == (VALUE,):
        field = f"{objects.field(rule.path[:-1])}[{objects.KEY}]"
    return f"{field}{found}".removeprefix(".")


def patches(rule: CelRule) -> tuple[list[Any], list[Any]] | None:
    """Values that keep and break a rule that the generator made; None for others."""
    pattern = re.search(r"matches\(r?'(.*)'\)", rule.rule)
    if pattern and rule.schema.get("pattern") == pattern[1].replace("\\\\", "\\"):
        integer = [7] if "x-kubernetes-int-or-string" in rule.schema else []
        return [objects.text(rule.schema), *integer], [objects.PATTERNS[pattern[1]].wrong]
    if pattern and rule.message.startswith("each key of"):
        value = objects.smallest(rule.schema["additionalProperties"], (*rule.path, "*"))
        return [{"app": value, "example.com/app": value}], [
            {objects.BAD_KEYS[pattern[1]]: value, "app": value},
            {"a" * 64: value},
            {"/a": value},
        ]
    return None


@pytest.mark.parametrize(("kind", "rule"), ALL, ids=[f"{kind}.{rule}" for kind, rule in ALL])
def test_rule(judge: Judge, kind: str, rule: CelRule) -> None:
    schema = SCHEMAS[kind]
    ask: Callable[[Mapping[str, Any]], Refusal | None] = judge
    made = patches(rule)
    if made is not None:
        good, bad = ([objects.with_value(kind, schema, rule.path, _to(value)) for value in values] for values in made)
    else:
        known = {**CASES, **CHANGES}
        start = [start for start in known if rule.message.startswith(start)]
        assert len(start) == 1, f"no case (or more than one) for the rule {rule.message!r}: add one to CASES"
        good, bad = ([objects.with_value(kind, schema, rule.path, _patched(patch)) for patch in case] for case in known[start[0]])
        ask = judge.update if start[0] in CHANGES else judge
    assert good, "a rule that nothing keeps"
    assert bad, "a rule that nothing breaks"
    for obj in good:
        refusal = ask(obj)
        assert refusal is None, f"refused: {refusal}"
    for obj in bad:
        refusal = ask(obj)
        assert refusal is not None, f"taken: {obj}"
        assert refusal.names(field_of(rule), rule.message), refusal


def _to(value: Any) -> Any:
    return lambda _: value


def _patched(patch: Patch) -> Any:
    return lambda value: merged(value, patch)


@pytest.mark.parametrize("start", [*CASES, *CHANGES])
def test_no_case_without_a_rule(start: str) -> None:
    assert any(rule.message.startswith(start) for _, rule in ALL)


@pytest.mark.parametrize(("kind", "rule"), ALL, ids=[f"{kind}.{rule}" for kind, rule in ALL])
def test_message_says_field_cause_and_remedy(kind: str, rule: CelRule) -> None:
    del kind
    fields = {*rule.path, *rule.schema.get("properties", {}), "name", "metric", "client"}
    assert any(re.search(rf"\b{re.escape(field)}\b", rule.message) for field in fields - {"*", "[]"}), "names no field"
    assert re.search(r"\b(must|can't|needs|immutable|names a flag)\b", rule.message), "says no cause"
    assert re.search(r": \w|; \w|such as|must be (the|text|an address)", rule.message), "says no remedy"
