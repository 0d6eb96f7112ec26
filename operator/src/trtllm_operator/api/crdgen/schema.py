"""From the JSON schema of a pydantic model to the structural schema that Kubernetes takes.

Structural schemas know no references, unions, null or open key patterns, see
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema.
What can be said in other words is; what can't is an error here, and never silently lost: the API server drops unknown keywords.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from trtllm_operator.api.crdgen import rules

Schema = dict[str, Any]

_RULES = "x-kubernetes-validations"
_RULE = ("rule", "message", "messageExpression", "fieldPath", "reason", "optionalOldSelf")
_DROPPED = frozenset({"title", "examples", "$defs"})
_MARKS = frozenset({rules.REMEDY, rules.KEY_REMEDY})
_KEPT = (
    "description", "type", "format", "enum", "default", "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "pattern", "minItems", "maxItems", "minProperties", "maxProperties", "required", "properties",
    "additionalProperties", "items", "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-validations",
)  # fmt: skip
"""In the order in which a person reads them."""


class SchemaError(Exception):
    """A type that no structural schema can express; the message names the field and the remedy."""


def structural(model: type[BaseModel], *, defaults: bool) -> Schema:
    """The structural schema of a model.

    Args:
        model: the type of `spec` or `status`.
        defaults: whether the API server fills in the model's defaults. Not in a status: what is filled in there would differ from what
            was written, and so be written again for ever.

    Raises:
        SchemaError: a field has a type that Kubernetes can't express.
    """
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _Converter(raw.get("$defs", {}), defaults=defaults).convert(raw, model.__name__)


class _Converter:
    def __init__(self, definitions: Mapping[str, Schema], *, defaults: bool) -> None:
        self._definitions = definitions
        self._defaults = defaults

    def convert(self, raw: Mapping[str, Any], path: str, within: tuple[str, ...] = ()) -> Schema:
        """`within`: the types that this is a part of, which it can't have as parts."""
        node, within = self._inline(raw, path, within)
        marks = {mark: node.pop(mark) for mark in _MARKS & node.keys()}
        for word in _DROPPED & node.keys():
            del node[word]
        _say_otherwise(node, path)
        if node.get("x-kubernetes-int-or-string"):
            del node["type"]
            node["minimum"] = 0
        elif "type" not in node and node.keys() <= {"description", "default"}:
            node["x-kubernetes-preserve-unknown-fields"] = True
        keys = self._children(node, path, within)
        self._default(node)
        if found := [*node.get(_RULES, ()), *rules.of_marks(node, keys, marks, path)]:
            node[_RULES] = [{word: rule[word] for word in _RULE if word in rule} for rule in found]
        if unknown := node.keys() - set(_KEPT):
            raise SchemaError(f"{path}: a structural schema has no {', '.join(sorted(unknown))}: give the field another type")
        return {word: node[word] for word in _KEPT if word in node}

    def _inline(self, raw: Mapping[str, Any], path: str, within: tuple[str, ...]) -> tuple[Schema, tuple[str, ...]]:
        """Without references and without null. What stands beside a reference or a union wins over what it refers to."""
        beside = {word: value for word, value in raw.items() if word not in ("$ref", "anyOf")}
        if "$ref" in raw:
            name = raw["$ref"].removeprefix("#/$defs/")
            if name in within:
                raise SchemaError(f"{path}: {name} is a part of itself: Kubernetes has no recursive types; flatten it")
            inner, within = self._inline(self._definitions[name], path, (*within, name))
            return {**inner, **beside}, within
        if "anyOf" in raw:
            branches = [branch for branch in raw["anyOf"] if branch.get("type") != "null"]
            if len(branches) != 1:
                raise SchemaError(f"{path}: a union of {len(branches)} types: use optional fields side by side and a rule for exactly one")
            inner, within = self._inline(branches[0], path, within)
            return {**inner, **beside}, within
        return beside, within

    def _children(self, node: Schema, path: str, within: tuple[str, ...]) -> Schema | None:
        """Convert what is below. Returns the schema of a map's keys, for which structural schemas have no place."""
        if properties := node.pop("properties", None):
            node["properties"] = {name: self.convert(child, f"{path}.{name}", within) for name, child in properties.items()}
        if node.get("type") == "array":
            if "items" not in node:
                raise SchemaError(f"{path}: a list needs the type of its items")
            node["items"] = self.convert(node["items"], f"{path}[]", within)
        keys: Schema | None = node.pop("propertyNames", None)
        if patterns := node.pop("patternProperties", None):
            if len(patterns) != 1:
                raise SchemaError(f"{path}: keys with different patterns: use one pattern")
            [(pattern, values)] = patterns.items()
            keys, node["additionalProperties"] = {**(keys or {}), "pattern": pattern}, values
        values = node.pop("additionalProperties", False)
        if values is not False:  # else unknown fields are pruned anyway, and refused where validation is strict
            node["additionalProperties"] = self.convert({} if values is True else values, f"{path}.*", within)
        return keys

    def _default(self, node: Schema) -> None:
        """Keep a default where it changes anything.

        An absent object gets its fields' defaults only if it has a default itself. That is written out, although `{}` would do for most:
        the API server checks the rules of an object on its default as it is written.
        """
        value = node.pop("default", None)
        if not self._defaults or value is None:
            return
        if node.get("type") == "object":
            value = filled(node, _said(value))
        if value != {}:
            node["default"] = value


def _say_otherwise(node: Schema, path: str) -> None:
    if "const" in node:
        node["enum"] = [node.pop("const")]
    for word, inclusive, step in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
        bound = node.get(word)
        if bound is None or isinstance(bound, bool):
            continue
        if node.get("type") == "integer":
            node[inclusive] = node.pop(word) + step
        else:
            node[inclusive], node[word] = bound, True
    if node.pop("uniqueItems", False):
        node["x-kubernetes-list-type"] = "set"
    if node.get("type") == "null":
        raise SchemaError(f"{path}: is always null: remove the field")


def filled(schema: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the API server makes of an object by its defaults; of `{}` if not given."""
    result = dict(given or {})
    for name, child in schema.get("properties", {}).items():
        value = result.get(name, child.get("default"))
        if value is not None:
            result[name] = filled(child, value) if child.get("type") == "object" else value
    return result


def _said(value: Any) -> Any:
    """Without null, and without objects that hold nothing else."""
    if not isinstance(value, Mapping):
        return value
    return {name: said for name, item in value.items() if (said := _said(item)) is not None and said != {}}
