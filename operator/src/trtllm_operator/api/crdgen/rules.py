"""CEL rules that the generator adds: for keys of maps, which structural schemas can't bound, and for patterns, so that a refusal says
what to write instead. Without them the API server answers with the bare regular expression.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

REMEDY = "x-remedy"
"""On a string with a pattern: what it must be, for people."""

KEY_REMEDY = "x-key-remedy"
"""On a map whose keys have a pattern: what a key must be, for people."""


def of_marks(node: Mapping[str, Any], keys: Mapping[str, Any] | None, marks: Mapping[str, Any], path: str) -> Iterator[dict[str, Any]]:
    """Rules of one field.

    Args:
        node: its structural schema.
        keys: JSON schema of the keys where it is a map.
        marks: REMEDY and KEY_REMEDY, where the type has them.
        path: for messages; ends with the field's name.
    """
    field = _field(path)
    if REMEDY in marks and "pattern" in node:
        rule = f"self.matches({literal(node['pattern'])})"
        if node.get("x-kubernetes-int-or-string"):
            rule = f"type(self) == int || {rule}"
        yield {"rule": rule, "message": f"{field} must be {marks[REMEDY]}"}
    if keys and "x-kubernetes-preserve-unknown-fields" not in node.get("additionalProperties", {}):
        if "pattern" in keys:
            yield {
                "rule": f"self.all(key, key.matches({literal(keys['pattern'])}))",
                "message": f"each key of {field} must be {marks[KEY_REMEDY]}",
            }
        if "maxLength" in keys:
            yield {
                "rule": f"self.all(key, size(key) <= {keys['maxLength']})",
                "message": f"each key of {field} must have at most {keys['maxLength']} characters: shorten the key",
            }


def literal(text: str) -> str:
    """A CEL string that stands for exactly this text."""
    if "'" not in text and not text.endswith("\\"):
        return f"r'{text}'"
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _field(path: str) -> str:
    """Name of the field at the end of a path: `LLMEngineSpec.jobs.build.nodeSelector.*` -> `each value of nodeSelector`."""
    last = path.rsplit(".", 1)[-1]
    if last == "*":
        return f"each value of {path.rsplit('.', 2)[-2]}"
    return f"each item of {last.removesuffix('[]')}" if last.endswith("[]") else last
