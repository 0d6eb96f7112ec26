"""What the API server takes, without one: the bounds and rules of our schemas in Python, and generated values within them.

It is held to the same cases as the real API server: those of tests/crd.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crd import objects, test_bounds, test_rules
from tests.crd.walk import ITEM, VALUE, Bound, CelRule, Path, bounds, dotted, nodes, rules
from trtllm_operator.api.crdgen.definition import DEFINITIONS
from trtllm_operator.api.crdgen.schema import filled
from trtllm_operator.api.llmengine import OWN_BUILD_FLAGS

Json = dict[str, Any]
SCHEMAS: dict[str, Json] = {definition.names.kind: definition.schema() for definition in DEFINITIONS}
KINDS = ("LLMEngine", "LLMService")
"""Those that users write."""

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": Mapping, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
}  # fmt: skip


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    # In RE2 `$` is the end of the text; in Python it is also the place before a last newline.
    return re.compile(re.sub(r"\$$", r"\\Z", pattern))


def _matches(pattern: str, text: str) -> bool:
    return _compiled(pattern).search(text) is not None


def _no_gpu(keys: Mapping[str, Any]) -> bool:
    return not any(key.endswith("/gpu") for key in keys)


# Each rule of ours by the start of its message. Rules that the generator makes are read from their text.
CEL: dict[str, Callable[[Any], bool]] = {
    "source must have exactly one of": lambda s: ("huggingFace" in s) != ("pvc" in s),
    "repo must not contain": lambda s: ".." not in s["repo"] and "--" not in s["repo"],
    "revision must not contain": lambda s: ".." not in s["revision"],
    "endpoint must not contain": lambda s: "@" not in s.get("endpoint", ""),
    "parallelism.tensor x parallelism.pipeline": lambda s: s["tensor"] * s["pipeline"] <= 16,
    "build.maxInputLen must not exceed": lambda s: s.get("maxInputLen", 0) <= s.get("maxSeqLen", s.get("maxInputLen", 0)),
    "build.optNumTokens must not exceed": lambda s: s.get("optNumTokens", 0) <= s.get("maxNumTokens", s.get("optNumTokens", 0)),
    "build.optNumTokens can't be combined": lambda s: "optNumTokens" not in s or s.get("plugins", {}).get("multipleProfiles") != "enable",
    "build.extraArgs names a flag": lambda s: (
        not any(own.startswith(arg["flag"]) for arg in s.get("extraArgs", ()) for own in OWN_BUILD_FLAGS)
    ),
    "storage.claimName can't be combined": lambda s: "claimName" not in s or not {"storageClassName", "accessModes", "size"} & s.keys(),
    "build.workers must not exceed": lambda s: s["build"]["workers"] <= s["parallelism"]["tensor"] * s["parallelism"]["pipeline"],
    "resources.requests must not name a GPU": lambda s: _no_gpu(s.get("requests", {})),
    "resources.limits must not name a GPU": lambda s: _no_gpu(s.get("limits", {})),
    "a toleration needs key": lambda s: bool(s.get("key")) or s.get("operator") == "Exists",
    "value of a toleration can't be": lambda s: not s.get("value") or s.get("operator", "Equal") == "Equal",
    "tolerationSeconds needs effect": lambda s: "tolerationSeconds" not in s or s.get("effect") == "NoExecute",
    "a metric needs exactly one of": lambda s: ("averageUtilization" in s) != ("averageValue" in s),
    "a metric of type pods needs averageValue": lambda s: s["type"] != "pods" or "averageValue" in s,
    "a metric of type resource must be named": lambda s: s["type"] != "resource" or s["name"] in ("cpu", "memory"),
    "autoscaling.minReplicas must not exceed": lambda s: s["minReplicas"] <= s["maxReplicas"],
    "a client of networkPolicy needs": lambda s: "namespaceLabels" in s or "podLabels" in s,
    "replicas can't be set together": lambda s: not {"replicas", "autoscaling"} <= s.keys(),
    "metadata.name must have at most 63": lambda s: len(s["metadata"]["name"]) <= 63,
    "metadata.name must be a DNS label": lambda s: (
        _matches("^[a-z]([-a-z0-9]*[a-z0-9])?$", s["metadata"]["name"]) and len(s["metadata"]["name"]) <= 52
    ),
    "spec of an LLMEngineBuild is immutable": lambda _: True,  # of changes only
}


@cache
def _by_message(message: str) -> str | None:
    return next((start for start in CEL if message.startswith(start)), None)


def _cel(rule: Mapping[str, Any], schema: Mapping[str, Any], value: Any) -> bool:
    """Does the rule hold?"""
    text = rule["rule"]
    if (ours := _by_message(rule["message"])) is not None:
        return CEL[ours](value)
    if match := re.fullmatch(r"self\.all\(key, size\(key\) <= (\d+)\)", text):
        return all(len(key) <= int(match[1]) for key in value)
    if match := re.fullmatch(r"self\.all\(key, key\.matches\(r'(.*)'\)\)", text):
        return all(_matches(match[1], key) for key in value)
    if ".matches(" in text and "pattern" in schema:
        return isinstance(value, int) or _matches(schema["pattern"], value)
    raise NotImplementedError(f"add the rule to CEL: {rule['message']}")


def faults(schema: Mapping[str, Any], value: Any, path: str = "") -> Iterator[str]:
    """Why the API server would refuse a value; nothing where it takes it."""
    where = path or "the object"
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, int | str) or isinstance(value, bool):
            yield f"{where}: no number or text"
            return
    elif "type" in schema and (not isinstance(value, _TYPES[schema["type"]]) or (isinstance(value, bool) and schema["type"] != "boolean")):
        yield f"{where}: not of type {schema['type']}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: not one of the values"
    if isinstance(value, str):
        yield from _text_faults(schema, value, where)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            yield f"{where}: out of bounds"
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{where}: too few or many items"
        for i, item in enumerate(value):
            yield from faults(schema.get("items", {}), item, f"{path}[{i}]")
    elif isinstance(value, Mapping):
        yield from _object_faults(schema, value, path)
    for rule in schema.get("x-kubernetes-validations", ()):
        complete = filled(schema, value) if schema.get("type") == "object" else value
        try:
            holds = _cel(rule, schema, complete)
        except (KeyError, TypeError, AttributeError):
            continue  # a field that it speaks of is missing or of another type, which is told already
        if not holds:
            yield f"{where}: {rule['message']}"


def _text_faults(schema: Mapping[str, Any], value: str, where: str) -> Iterator[str]:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{where}: too short or long"
    if "pattern" in schema and not _matches(schema["pattern"], value):
        yield f"{where}: does not match"


def _object_faults(schema: Mapping[str, Any], value: Mapping[str, Any], path: str) -> Iterator[str]:
    where = path or "the object"
    if missing := [name for name in schema.get("required", ()) if name not in value]:
        yield f"{where}: lacks {', '.join(missing)}"
    if len(value) > schema.get("maxProperties", len(value)):
        yield f"{where}: too many entries"
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    for name, item in value.items():
        if name in known:
            yield from faults(known[name], item, f"{path}.{name}")
        elif others is not None:
            yield from faults(others, item, f"{path}[{name}]")
        elif known and path != ".metadata":
            yield f"{where}: has no field {name}"


def refusals(obj: Mapping[str, Any]) -> list[str]:
    """Why the API server would refuse an object."""
    return list(faults(SCHEMAS[obj["kind"]], obj))


def texts(kind: str) -> list[tuple[Path, Mapping[str, Any]]]:
    """Every field of a spec into which a user may write text of their own, with its schema. `*` at the end of a free value stands for anything."""
    found = []
    for path, node in nodes(SCHEMAS[kind]["properties"]["spec"], ("spec",)):
        free = node.get("x-kubernetes-preserve-unknown-fields") or node.get("x-kubernetes-int-or-string")
        if (node.get("type") == "string" or free) and "enum" not in node:
            found.append((path, node))
    return found


def maps(kind: str) -> list[Path]:
    """Every map of a spec, whose keys users write."""
    return [path for path, node in nodes(SCHEMAS[kind]["properties"]["spec"], ("spec",)) if "additionalProperties" in node]


def values(schema: Mapping[str, Any], path: Path, special: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """Values that keep the bounds of a schema. `special`: what is drawn for the field at a path; None leaves an optional field out."""
    if (shown := dotted(path)) in special:
        return special[shown]
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return st.recursive(
            st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8), lambda v: st.lists(v, max_size=2), max_leaves=3
        )
    match schema.get("type", "string"):
        case "object" if "additionalProperties" in schema:
            pattern = any(".matches(" in rule["rule"] for rule in schema.get("x-kubernetes-validations", ()))
            keys = st.sampled_from(["app", "example.com/pool", "memory"]) if pattern else st.text(max_size=9)
            return st.dictionaries(keys, values(schema["additionalProperties"], (*path, VALUE), special), max_size=2)
        case "object":
            fields = {name: values(child, (*path, name), special) for name, child in schema.get("properties", {}).items()}
            needed = {name: strategy for name, strategy in fields.items() if name in schema.get("required", ())}
            made = st.fixed_dictionaries(needed, optional={name: s for name, s in fields.items() if name not in needed})
            return made.map(lambda found: {name: value for name, value in found.items() if value is not None})
        case "array":
            least, most = schema.get("minItems", 0), schema["maxItems"]
            return st.lists(values(schema["items"], (*path, ITEM), special), min_size=least, max_size=min(most, least + 2))
        case "integer":
            low, high = schema.get("minimum", 0), schema.get("maximum", 2**31 - 1)
            return st.integers(low, min(high, low + 4)) | st.just(high)
        case "number":
            return st.floats(schema["minimum"], schema["maximum"])
        case "boolean":
            return st.booleans()
        case _:
            return _texts(schema)


def _texts(schema: Mapping[str, Any]) -> st.SearchStrategy[str]:
    if "pattern" not in schema or objects.PATTERNS[schema["pattern"]].wrong == "a\0b":
        return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=schema.get("minLength", 0), max_size=12)
    lengths = {schema.get("minLength", 0) + 3, schema.get("minLength", 0) + 9, schema.get("maxLength", 30)}
    known = [text for length in lengths if not list(faults(schema, text := objects.text(schema, min(length, 60))))]
    return st.sampled_from(known or [objects.text(schema)])


BOUNDS = [(kind, bound) for kind, schema in SCHEMAS.items() for bound in bounds(schema) if bound.path[:1] == ("spec",)]


@pytest.mark.parametrize("kind", SCHEMAS)
def test_it_judges_bounds_as_the_api_server_does(kind: str) -> None:
    """The cases of tests/crd/test_bounds.py."""
    for bound in (bound for of, bound in BOUNDS if of == kind and bound.keyword != "required"):
        inside, beyond = test_bounds.values(bound)
        for value in inside:
            assert refusals(_with(kind, bound, value)) == [], bound
        assert refusals(_with(kind, bound, beyond)), bound


def _with(kind: str, bound: Bound, value: Any) -> Json:
    return objects.with_value(kind, SCHEMAS[kind], bound.path, lambda _: value)


RULES = [(kind, rule) for kind, schema in SCHEMAS.items() for rule in rules(schema)]


@pytest.mark.parametrize(("kind", "rule"), RULES, ids=[f"{kind}.{rule}" for kind, rule in RULES])
def test_it_judges_rules_as_the_api_server_does(kind: str, rule: CelRule) -> None:
    """The cases of tests/crd/test_rules.py."""
    schema = SCHEMAS[kind]
    if (made := test_rules.patches(rule)) is not None:
        good, bad = ([objects.with_value(kind, schema, rule.path, test_rules._to(value)) for value in some] for some in made)
    else:
        [start] = [start for start in {**test_rules.CASES, **test_rules.CHANGES} if rule.message.startswith(start)]
        if start in test_rules.CHANGES:
            return
        good, bad = (
            [objects.with_value(kind, schema, rule.path, test_rules._patched(patch)) for patch in case] for case in test_rules.CASES[start]
        )
    assert [refusals(obj) for obj in good] == [[]] * len(good)
    assert all(any(rule.message in fault for fault in refusals(obj)) for obj in bad)


def test_no_rule_without_a_rule_of_the_schemas() -> None:
    assert [start for start in CEL if not any(rule.message.startswith(start) for _, rule in RULES)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_generated_values_keep_the_bounds(kind: str) -> None:
    spec = SCHEMAS[kind]["properties"]["spec"]

    @settings(max_examples=40, deadline=None)
    @given(value=values(spec, (), {}))
    def check(value: Json) -> None:
        messages = {rule.message for _, rule in RULES}
        assert [fault for fault in faults(spec, value) if not any(message in fault for message in messages)] == []

    check()
