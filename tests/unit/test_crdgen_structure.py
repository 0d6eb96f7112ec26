"""Our schemas are structural and bounded: the rules of the API server that a type can break, and stricter ones of our own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.crd.walk import dotted, nodes
from trtllm_operator.api.crdgen.definition import DEFINITIONS, UNSEEN

SCHEMAS = {definition.names.kind: definition.schema() for definition in DEFINITIONS}

_WORDS = frozenset({
    "description", "type", "format", "enum", "default", "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "pattern", "minItems", "maxItems", "minProperties", "maxProperties", "required", "properties",
    "additionalProperties", "items", "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-validations",
})  # fmt: skip
_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}
# Not in RE2, see https://github.com/google/re2/wiki/Syntax: looking around, references back, possessive and atomic parts, conditions.
_NOT_RE2 = re.compile(r"\(\?[=!<>(#]|\\[1-9]|\\[gk]|[*+?}]\+|\(\?P[=>]")


def faults(schema: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a schema, each with its place."""
    for path, node in nodes(schema):
        for fault in _faults(node):
            yield f"{dotted(path)}: {fault}"


def _faults(node: Mapping[str, Any]) -> Iterator[str]:
    if strange := node.keys() - _WORDS:
        yield f"unknown words {sorted(strange)}"
    free = node.get("x-kubernetes-preserve-unknown-fields")
    either = node.get("x-kubernetes-int-or-string")
    if ("type" in node) == bool(free or either):
        yield "needs a type, or to be free, or to be a number or text"
    if not free and not either and node.get("type") not in _TYPES:
        yield f"no such type: {node.get('type')}"
    yield from _unbounded(node)
    if "pattern" in node:
        yield from _pattern(node["pattern"])
    if isinstance(node.get("exclusiveMinimum", True), bool) is False:
        yield "exclusiveMinimum must be true or false"
    if "default" in node and "type" in node and not isinstance(node["default"], _TYPES[node["type"]]):
        yield "the default has another type"
    if "enum" in node and "default" in node and node["default"] not in node["enum"]:
        yield "the default is not among the values"
    for name in node.get("required", ()):
        if name not in node.get("properties", {}):
            yield f"requires {name}, which it does not know"
    for rule in node.get("x-kubernetes-validations", ()):
        if not rule.get("message"):
            yield "a rule without a message"


def _unbounded(node: Mapping[str, Any]) -> Iterator[str]:
    match node.get("type"):
        case "array":
            if "items" not in node:
                yield "a list without the type of its items"
            if "maxItems" not in node:
                yield "a list without a bound"
            if node.get("x-kubernetes-list-type") == "map":
                for key in node.get("x-kubernetes-list-map-keys") or ("",):
                    item = node.get("items", {})
                    if key not in item.get("required", ()) and "default" not in item.get("properties", {}).get(key, {}):
                        yield f"a list by a key {key!r} that its items need not have"
        case "object":
            if "additionalProperties" in node and "properties" in node:
                yield "fields and a map at once"
            if "additionalProperties" in node and "maxProperties" not in node:
                yield "a map without a bound"
        case "string":
            if "maxLength" not in node and "enum" not in node:
                yield "text without a bound"
        case _:
            if node.get("x-kubernetes-int-or-string") and "maxLength" not in node:
                yield "text without a bound"


def _pattern(pattern: str) -> Iterator[str]:
    if _NOT_RE2.search(pattern):
        yield f"not RE2: {pattern}"
    if not (pattern.startswith("^") and pattern.endswith("$")):
        yield f"matches a part only: {pattern}"
    try:
        re.compile(pattern)
    except re.error as error:
        yield f"no pattern: {error}"


@pytest.mark.parametrize("kind", SCHEMAS)
def test_schema_is_structural_and_bounded(kind: str) -> None:
    schema = SCHEMAS[kind]
    # The API server itself bounds what is in metadata.
    assert list(faults(schema)) == []


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"type": "string", "maxLength": 1, "title": "X"}, "unknown words ['title']"),
        ({"description": "x"}, "needs a type"),
        ({"type": "string"}, "text without a bound"),
        ({"x-kubernetes-int-or-string": True}, "text without a bound"),
        ({"type": "array", "items": {"type": "integer"}}, "list without a bound"),
        ({"type": "array", "maxItems": 1}, "without the type of its items"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "map without a bound"),
        ({"type": "object", "additionalProperties": {"type": "integer"}, "properties": {}, "maxProperties": 1}, "fields and a map"),
        ({"type": "string", "maxLength": 1, "pattern": "^(?!a)$"}, "not RE2"),
        ({"type": "string", "maxLength": 1, "pattern": r"^(a)\1$"}, "not RE2"),
        ({"type": "string", "maxLength": 1, "pattern": "a"}, "matches a part only"),
        ({"type": "integer", "exclusiveMinimum": 0}, "exclusiveMinimum must be"),
        ({"type": "integer", "default": "1"}, "another type"),
        ({"type": "string", "enum": ["a"], "default": "b"}, "not among the values"),
        ({"type": "object", "required": ["x"]}, "requires x"),
        ({"type": "boolean", "x-kubernetes-validations": [{"rule": "self"}]}, "without a message"),
        (
            {
                "type": "array",
                "maxItems": 1,
                "items": {"type": "object"},
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["a"],
            },
            "a list by a key 'a'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_checker_finds(broken: dict[str, Any], says: str) -> None:
    assert any(says in fault for fault in faults({"type": "object", "properties": {"x": broken}}))


def test_only_the_values_of_options_are_free() -> None:
    free = [
        (kind, dotted(path))
        for kind, schema in SCHEMAS.items()
        for path, node in nodes(schema)
        if "x-kubernetes-preserve-unknown-fields" in node
    ]
    assert free == [("LLMService", "spec.serve.options.*")]


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_status_is_read_as_it_was_written(kind: str) -> None:
    status = SCHEMAS[kind]["properties"]["status"]
    assert status["default"] == UNSEEN, "only where there is no status at all"
    assert [dotted(path) for path, node in nodes(status) if path and "default" in node] == []
    conditions = status["properties"]["conditions"]
    assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])


@pytest.mark.parametrize("kind", SCHEMAS)
def test_what_people_write_is_described(kind: str) -> None:
    spec = SCHEMAS[kind]["properties"]["spec"]
    silent = [
        dotted(path) for path, node in nodes(spec) if node.get("type") == "object" and "properties" in node and "description" not in node
    ]
    assert silent == []


@pytest.mark.parametrize("kind", SCHEMAS)
def test_patterns_that_people_meet_say_what_to_write(kind: str) -> None:
    spec = SCHEMAS[kind]["properties"]["spec"]
    silent = [dotted(path) for path, node in nodes(spec) if "pattern" in node and "x-kubernetes-validations" not in node]
    assert silent == []
