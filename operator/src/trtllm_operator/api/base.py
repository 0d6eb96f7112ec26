"""The pydantic base of every resource type, and the marks that the CRD generator reads.

pydantic checks what reaches the operator; the API server checks the same bounds from the generated schema, so a user meets
them at admission. Cross-field rules exist once, as CEL beside the type they belong to.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Rule(dict[str, Any]):
    """One CEL validation rule: `rule` must hold for `self`; `message` names field, cause and remedy."""

    def __init__(self, rule: str, message: str, *, field_path: str | None = None) -> None:
        super().__init__(rule=rule, message=message)
        if field_path is not None:
            self["fieldPath"] = field_path


def rules(*rule: Rule) -> dict[str, Any]:
    """`json_schema_extra` of a model that carries CEL rules."""
    return {"x-kubernetes-validations": list(rule)}


class Model(BaseModel):
    """Base of all types: camelCase outside, snake_case inside, immutable, and strict about unknown fields where we make objects.

    Objects from the API server may be newer than this code (a field that a later CRD knows), so unknown fields are ignored there.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", protected_namespaces=())

    def dump(self) -> dict[str, Any]:
        """Plain JSON with the names that users write; absent stays absent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def remedy(what: str, **more: Any) -> dict[str, Any]:
    """`json_schema_extra` of a string with a pattern: what it must be, for people; the API server's own message shows the pattern only."""
    return {"x-remedy": what, **more}


def _quantity(value: Any) -> Any:
    """`cpu: 4` is as good as `cpu: "4"`, as in pods."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


# Bounds: the API server refuses CEL over unbounded text, so every string, list and map has one.
Name = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        json_schema_extra=remedy("the name of an object: lower-case letters, digits, '-' and '.'"),
    ),
]
ShortText = Annotated[str, Field(max_length=256)]
Text = Annotated[str, Field(max_length=4096)]
ImageRef = Annotated[
    str,
    Field(
        min_length=1,
        max_length=512,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$",
        json_schema_extra=remedy("an image such as registry.example.com/team/image:tag"),
    ),
]
Duration = Annotated[
    str,
    Field(
        min_length=2,
        max_length=16,
        pattern=r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$",
        json_schema_extra=remedy("a duration such as 90s, 10m or 1h30m"),
    ),
]
Quantity = Annotated[
    str,
    Field(
        min_length=1,
        max_length=32,
        pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$",
        json_schema_extra=remedy("a quantity such as 500m, 4 or 16Gi", **{"x-kubernetes-int-or-string": True}),
    ),
    BeforeValidator(_quantity),
]
QualifiedName = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")]
"""Of labels and resources. The lengths are in the pattern because JSON schema has no place for those of a key with a pattern."""
LabelValue = Annotated[
    str,
    Field(
        max_length=63,
        pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
        json_schema_extra=remedy("a label value: at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit"),
    ),
]
Labels = Annotated[
    dict[QualifiedName, LabelValue],
    Field(max_length=32, json_schema_extra={"x-key-remedy": "the key of a label, such as app or example.com/pool"}),
]


def seconds(duration: str) -> int:
    """Length of a duration such as `1h30m` in seconds. The pattern of `Duration` has been checked before."""
    total, number = 0, ""
    for char in duration:
        if char.isdigit():
            number += char
        else:
            total += int(number) * {"h": 3600, "m": 60, "s": 1}[char]
            number = ""
    return total
