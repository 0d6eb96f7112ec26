"""Each bound of each field, on a real API server: a value at the bound is taken, one beyond is refused, and the refusal names field and bound.

The bounds are walked from the generated schema, so a new field is tested without a new line here; a new pattern fails until
`objects.PATTERNS` knows text for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.crd import objects
from tests.crd.conftest import Judge
from tests.crd.walk import Bound, bounds, nodes
from trtllm_operator.api.crdgen.definition import DEFINITIONS

SCHEMAS = {definition.names.kind: definition.schema() for definition in DEFINITIONS}
ALL = [(kind, bound) for kind, schema in SCHEMAS.items() for bound in bounds(schema) if bound.path[:1] in {(), ("spec",), ("status",)}]

# What the server says, with the bound in it.
SAID = {
    "enum": "Unsupported value",
    "pattern": "should match '{}'",
    "minimum": "should be greater than or equal to {}",
    "maximum": "should be less than or equal to {}",
    "minLength": "should be at least {} chars long",
    "maxLength": "may not be more than {} bytes",
    "minItems": "should have at least {} items",
    "maxItems": "must have at most {} items",
    "minProperties": "should have at least {} properties",
    "maxProperties": "must have at most {} items",
    "required": "Required value",
}


def values(bound: Bound) -> tuple[list[Any], Any]:
    """Values that the bound allows, and one that it does not."""
    schema, number = bound.schema, bound.value
    match bound.keyword:
        case "enum":
            return list(number), "none-of-these"
        case "pattern":
            return [objects.text(schema)], objects.PATTERNS[number].wrong
        case "minimum":
            return [number], number - 1
        case "maximum":
            return [number], number + 1
        case "minLength":
            return [objects.text(schema, number)], objects.text(schema, number - 1) if number > 1 else ""
        case "maxLength":
            return [objects.text(schema, number)], objects.text(schema, number + 1)
        case "minItems" | "maxItems":
            beyond = number - 1 if bound.keyword == "minItems" else number + 1
            return [_items(bound, number)], _items(bound, beyond)
        case "maxProperties":
            return [_entries(bound, number)], _entries(bound, number + 1)
        case _:
            raise NotImplementedError(f"a test of {bound.keyword}")


def _always(value: Any) -> Callable[[Any], Any]:
    return lambda _: value


def _items(bound: Bound, number: int) -> list[Any]:
    schema = bound.schema["items"]
    items = [objects.smallest(schema, (*bound.path, "[]")) for _ in range(number)]
    for key in bound.schema.get("x-kubernetes-list-map-keys", ()):
        names = schema["properties"][key].get("enum")
        if names and number == bound.value:
            del items[len(names) :]  # a list by this key can't be longer
        items = [{**item, key: names[i % len(names)] if names else f"Item{i}"} for i, item in enumerate(items)]
    return items


def _entries(bound: Bound, number: int) -> dict[str, Any]:
    value = objects.smallest(bound.schema["additionalProperties"], (*bound.path, "*"))
    return {f"key{i}": value for i in range(number)}


@pytest.mark.parametrize(("kind", "bound"), ALL, ids=[f"{kind}.{bound}" for kind, bound in ALL])
def test_bound(judge: Judge, kind: str, bound: Bound) -> None:
    part = bound.path[0] if bound.path else "spec"
    if bound.keyword == "required":
        good = objects.with_value(kind, SCHEMAS[kind], bound.path, lambda value: value)
        assert bound.value in objects.get(good, bound.path)
        bad = objects.with_value(
            kind, SCHEMAS[kind], bound.path, lambda value: {key: item for key, item in value.items() if key != bound.value}
        )
        allowed, field = [good], objects.field((*bound.path, bound.value))
    else:
        inside, beyond = values(bound)
        allowed = [objects.with_value(kind, SCHEMAS[kind], bound.path, _always(value)) for value in inside]
        bad, field = objects.with_value(kind, SCHEMAS[kind], bound.path, _always(beyond)), objects.field(bound.path)
    for obj in allowed:
        refusal = judge(obj, part=part)
        assert refusal is None, f"refused: {refusal}"
    refusal = judge(bad, part=part)
    assert refusal is not None, f"taken: {bad}"
    assert refusal.names(field, SAID[bound.keyword].format(bound.value)), refusal


def test_no_bound_is_of_a_kind_that_is_not_tested() -> None:
    others = {"exclusiveMinimum", "exclusiveMaximum", "multipleOf", "format", "x-kubernetes-list-type=set"}
    words = {
        word
        for schema in SCHEMAS.values()
        for _, node in nodes(schema)
        for word in (*node, f"x-kubernetes-list-type={node.get('x-kubernetes-list-type')}")
    }
    assert not others & words, "write a test for it in `values`"
