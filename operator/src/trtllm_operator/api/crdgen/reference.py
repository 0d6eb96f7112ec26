"""The reference of each kind for people: every field with type, default, bounds and meaning, from the same schema that the API server checks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from trtllm_operator.api.crdgen.definition import Definition


def markdown(definition: Definition) -> str:
    """The page of one kind, operator/docs/reference/<kind>.md; a test holds the files to it."""
    version = definition.document()["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    lines = [
        f"# {definition.names.kind}",
        "",
        f"{definition.description} Short name `{definition.names.short_name}`. Made from the types by `make docs`.",
        "",
    ]
    for part in ("spec", "status"):
        lines += [f"## {part}", "", "| field | type | default | meaning |", "|---|---|---|---|", *_rows(schema["properties"][part], ""), ""]
    rules = list(_rules({"spec": schema["properties"]["spec"]}, ""))
    if rules:
        lines += ["## What is refused at once", "", *(f"- {rule}" for rule in rules), ""]
    return "\n".join(lines)


def _rows(node: Mapping[str, Any], path: str) -> Iterator[str]:
    required = set(node.get("required", ()))
    for name, child in node.get("properties", {}).items():
        where = f"{path}.{name}" if path else name
        kind, inner = _type(child)
        default = (
            f"`{json.dumps(child['default'])}`"
            if "default" in child and child.get("type") != "object"
            else "required"
            if name in required
            else ""
        )
        yield f"| `{where}` | {kind} | {default} | {_text(child.get('description', ''))} |"
        if inner is not None:
            yield from _rows(inner, where + ("[]" if child.get("type") == "array" else ""))


def _type(node: Mapping[str, Any]) -> tuple[str, Mapping[str, Any] | None]:
    """Type and bounds for the table, and the schema of what is inside."""
    if "enum" in node:
        return " \\| ".join(f"`{value}`" for value in node["enum"]), None
    if node.get("x-kubernetes-int-or-string"):
        return "quantity", None
    match node.get("type"):
        case "array":
            kind, inner = _type(node["items"])
            return f"list of {kind}", inner
        case "object" if "additionalProperties" in node:
            return "map", None
        case "object":
            return "object", node
        case "integer" | "number" as kind:
            low, high = node.get("minimum"), node.get("maximum")
            return f"{kind} {low} to {high}" if low is not None and high is not None else str(kind), None
        case kind:
            return str(kind or "any"), None


def _rules(properties: Mapping[str, Any], path: str) -> Iterator[str]:
    """Messages of the cross-field rules; those that only repeat a field's own form are left to the table."""
    for name, node in properties.items():
        where = f"{path}.{name}" if path else name
        for rule in node.get("x-kubernetes-validations", ()):
            if node.get("type") in ("object", "array"):
                yield f"`{where}`: {_text(rule['message'])}"
        inner = node.get("items", node)
        yield from _rules(inner.get("properties", {}), where)


def _text(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
