"""O4: what a user changes shows somewhere. Each leaf of a spec is changed in generated specs until some child differs; those that never do
are named here, with what they are for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.flow import engine_object
from tests.unit.test_injection_rendering import render
from tests.unit.test_injection_schema import SCHEMAS, refusals
from tests.unit.test_pod_security import ENGINES, SERVICES
from tests.unit.test_service_world import service_object

Json = dict[str, Any]
Leaf = tuple[str, ...]

SHOWS_NOWHERE: dict[str, dict[str, str]] = {
    "LLMEngine": {
        "suspend": "whether anything is made, which the specs here always want",
        "jobs.fetch.retries": "how often a Job is made anew",
        "jobs.build.retries": "how often a Job is made anew",
        "jobs.verify.retries": "how often a Job is made anew",
    },
    "LLMService": {"engineRef.name": "which engine is served; there is one here"},
}
_ABSENT = object()

# What the generated specs always have the same, or seldom have so that it can be changed alone.
BASES: dict[str, Json] = {
    "LLMEngine": {
        "source": {"huggingFace": {"repo": "acme/llama", "tokenSecretRef": {"name": "hub"}}},
        "runtime": {"version": "1.2.1"},
        "accelerator": {"computeCapability": "9.0"},
        "parallelism": {"tensor": 2},
        "build": {"maxSeqLen": 100, "maxNumTokens": 100},
    },
    "LLMService": {
        "engineRef": {"name": "llama"},
        "autoscaling": {"maxReplicas": 3, "metrics": [{"type": "resource", "name": "cpu", "averageUtilization": 70}]},
    },
}
CHANGES: dict[str, dict[str, Any]] = {
    "LLMEngine": {
        "accelerator.computeCapability": "8.0",
        "build.maxInputLen": 7,
        "build.optNumTokens": 9,
        "build.workers": 2,
        "source.huggingFace.tokenSecretRef.key": "k",
        "storage.accessModes": ["ReadWriteMany"],
        **{f"jobs.{stage}.tolerations": [{"operator": "Exists"}] for stage in ("fetch", "build", "verify")},
        **{f"jobs.{stage}.nodeSelector": {"pool": "a"} for stage in ("fetch", "build", "verify")},
        **{f"jobs.{stage}.resources.requests": {"cpu": "3"} for stage in ("fetch", "build", "verify")},
        **{f"jobs.{stage}.resources.limits": {"cpu": "3"} for stage in ("fetch", "build", "verify")},
    },
    "LLMService": {
        "autoscaling.minReplicas": 2,
        "autoscaling.maxReplicas": 4,
        "autoscaling.metrics": [{"type": "resource", "name": "memory", "averageUtilization": 70}],
        "autoscaling.scaleDownStabilization": "5m",
    },
}


def leaves(schema: Mapping[str, Any], path: Leaf = ()) -> Iterator[Leaf]:
    """Paths of the fields that hold values, maps and lists as a whole."""
    if schema.get("type") == "object" and "properties" in schema:
        for name, inner in schema["properties"].items():
            yield from leaves(inner, (*path, name))
    else:
        yield path


def _get(spec: Any, leaf: Leaf) -> Any:
    for name in leaf:
        if not isinstance(spec, Mapping) or name not in spec:
            return _ABSENT
        spec = spec[name]
    return spec


def _with(spec: Json, leaf: Leaf, value: Any) -> Json:
    changed = copy.deepcopy(spec)
    inner = changed
    for name in leaf[:-1]:
        inner = inner.setdefault(name, {})
    if value is _ABSENT:
        inner.pop(leaf[-1], None)
    else:
        inner[leaf[-1]] = value
    return changed


def _children(engine_spec: Json, service_spec: Json) -> list[Json] | None:
    """What is made; None where the API server or the operator refuses a spec."""
    engine, service = {**engine_object(), "spec": engine_spec}, {**service_object(), "spec": service_spec}
    if refusals(engine) or refusals(service):
        return None
    made = render(engine, service)
    if any(c["type"] == "Stalled" for obj in (engine, service) for c in obj["status"]["conditions"]):
        return None
    return [_plain(obj) for obj in made if obj["kind"] not in ("LLMEngine", "LLMService")]


def _plain(obj: Json) -> Json:
    """Without the digests, which change with everything."""
    metadata = {key: value for key, value in obj["metadata"].items() if key not in ("annotations", "resourceVersion", "uid")}
    return {**obj, "metadata": metadata}


Make = Callable[[Json, Json], list[Json] | None]


def _shown(kind: str, specs: st.SearchStrategy[Json], make: Make, others: st.SearchStrategy[Json]) -> set[Leaf]:
    """Leaves of a kind whose change has shown."""
    unseen = set(leaves(SCHEMAS[kind]["properties"]["spec"]))
    base, other_base = BASES[kind], next(spec for other, spec in BASES.items() if other != kind)
    plain = make(base, other_base)
    changes = {tuple(path.split(".")): value for path, value in CHANGES[kind].items()}
    shown = {leaf for leaf, value in changes.items() if make(_with(base, leaf, value), other_base) not in (None, plain)}
    assert shown == set(changes)

    @settings(
        max_examples=150, deadline=None, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(one=specs, two=specs, other=others)
    def look(one: Json, two: Json, other: Json) -> None:
        before: list[Json] | None = None
        for leaf in sorted(unseen - shown):
            value = _get(two, leaf)
            if value == _get(one, leaf):
                continue
            before = before or make(one, other)
            if before is None:
                return
            after = make(_with(one, leaf, value), other)
            if after is not None and after != before:
                shown.add(leaf)

    look()
    return shown


def _missing(kind: str, shown: set[Leaf]) -> set[str]:
    return {".".join(leaf) for leaf in set(leaves(SCHEMAS[kind]["properties"]["spec"])) - shown}


def test_every_field_of_an_engine_shows_in_a_child() -> None:
    shown = _shown("LLMEngine", ENGINES, _children, SERVICES)
    assert _missing("LLMEngine", shown) == set(SHOWS_NOWHERE["LLMEngine"])


def test_every_field_of_a_service_shows_in_a_child() -> None:
    shown = _shown("LLMService", SERVICES, lambda spec, other: _children(other, spec), ENGINES)
    assert _missing("LLMService", shown) == set(SHOWS_NOWHERE["LLMService"])
