"""Every bound and every rule of a structural schema, found by walking it, so that no test can forget one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

BOUNDS = (
    "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "required",
)  # fmt: skip

ITEM, VALUE = "[]", "*"
Path = tuple[str, ...]
"""Names of fields; `[]` is an item of a list, `*` a value of a map."""


@dataclass(frozen=True)
class Bound:
    """One bound of one field."""

    path: Path
    keyword: str
    value: Any
    schema: Mapping[str, Any]

    def __str__(self) -> str:
        shown = self.value if self.keyword == "required" else ""
        return f"{dotted(self.path)}:{self.keyword}{shown and f'={shown}'}"


@dataclass(frozen=True)
class CelRule:
    """One rule of one field."""

    path: Path
    rule: str
    message: str
    schema: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.message}"


def dotted(path: Path) -> str:
    """As people write it."""
    return ".".join(path).replace(f".{ITEM}", ITEM) or "the object"


def nodes(schema: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The schema and all below it."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, (*path, name))
    if "items" in schema:
        yield from nodes(schema["items"], (*path, ITEM))
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], (*path, VALUE))


def bounds(schema: Mapping[str, Any]) -> Iterator[Bound]:
    """All bounds; one for each required field."""
    for path, node in nodes(schema):
        for keyword in BOUNDS:
            if keyword == "required":
                for name in node.get("required", ()):
                    yield Bound(path, keyword, name, node)
            elif keyword in node:
                yield Bound(path, keyword, node[keyword], node)


def rules(schema: Mapping[str, Any]) -> Iterator[CelRule]:
    """All CEL rules."""
    for path, node in nodes(schema):
        for rule in node.get("x-kubernetes-validations", ()):
            yield CelRule(path, rule["rule"], rule.get("message", ""), node)
