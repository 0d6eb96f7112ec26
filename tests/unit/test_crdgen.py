"""The generator: what becomes of a type, what it refuses, and that crds/ is what it makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field

from trtllm_operator.__main__ import main
from trtllm_operator.api.base import Labels, Model, Quantity, Rule, remedy, rules
from trtllm_operator.api.crdgen.definition import CATEGORY, DEFINITIONS
from trtllm_operator.api.crdgen.rules import literal
from trtllm_operator.api.crdgen.schema import SchemaError, filled, structural

ROOT = Path(__file__).parents[2]


def field(annotation: Any, default: Any = ...) -> dict[str, Any]:
    """The schema of one field of this type."""
    made = type("Made", (Model,), {"__annotations__": {"some_field": annotation}, "some_field": default, "__module__": __name__})
    result: dict[str, Any] = structural(made, defaults=True)["properties"]["someField"]
    return result


class Inner(Model):
    """An inner object."""

    size: Annotated[int, Field(ge=1)] = 1
    name: Annotated[str, Field(max_length=9)] | None = None


class Bare(Model):
    """Nothing is filled in."""

    name: Annotated[str, Field(max_length=9)] | None = None


class Ruled(Model):
    size: int

    model_config = Model.model_config | {"json_schema_extra": rules(Rule("self.size > 1", "size must be more", field_path=".size"))}


class Tree(Model):
    below: Tree | None = None


class Keyed(Model):
    labels: Annotated[dict[Annotated[str, Field(max_length=5)], str], Field(max_length=2)]


class Deep(Model):
    inner: Inner = Inner(size=3)
    bare: Bare = Bare()


@pytest.mark.parametrize(
    ("annotation", "default", "wanted"),
    [
        (Annotated[str, Field(max_length=5)], ..., {"type": "string", "maxLength": 5}),
        (Annotated[str, Field(max_length=5)] | None, None, {"type": "string", "maxLength": 5}),
        (Literal["only"], ..., {"type": "string", "enum": ["only"]}),
        (Annotated[int, Field(gt=0, lt=9)], ..., {"type": "integer", "minimum": 1, "maximum": 8}),
        (Annotated[float, Field(gt=0)], ..., {"type": "number", "minimum": 0, "exclusiveMinimum": True}),
        (set[bool], ..., {"type": "array", "items": {"type": "boolean"}, "x-kubernetes-list-type": "set"}),
        (bool, False, {"type": "boolean", "default": False}),
        (Any, ..., {"x-kubernetes-preserve-unknown-fields": True}),
        (dict[str, int], ..., {"type": "object", "additionalProperties": {"type": "integer"}}),
        (dict[str, Any], ..., {"type": "object", "additionalProperties": {"x-kubernetes-preserve-unknown-fields": True}}),
    ],
    ids=str,
)
def test_what_a_type_becomes(annotation: Any, default: Any, wanted: dict[str, Any]) -> None:
    assert field(annotation, default) == wanted


def test_an_optional_part_has_no_default() -> None:
    assert "default" not in field(Inner | None, None)


def test_a_part_with_defaults_is_completed_where_it_is_absent() -> None:
    schema = structural(Deep, defaults=True)["properties"]
    assert schema["inner"]["default"] == {"size": 3}
    assert schema["inner"]["properties"]["size"]["default"] == 1
    assert "default" not in schema["bare"], "an empty object would say nothing"
    assert filled(structural(Deep, defaults=True)) == {"inner": {"size": 3}}


def test_a_status_has_no_defaults() -> None:
    assert "default" not in str(structural(Deep, defaults=False))


def test_description_of_the_field_wins_over_that_of_its_type() -> None:
    assert field(Inner, Field(description="Mine."))["description"] == "Mine."
    assert field(Inner)["description"] == "An inner object."


def test_rules_come_from_the_type() -> None:
    [rule] = field(Ruled)["x-kubernetes-validations"]
    assert rule == {"rule": "self.size > 1", "message": "size must be more", "fieldPath": ".size"}


def test_a_pattern_gets_a_rule_that_says_the_remedy() -> None:
    schema = field(Annotated[str, Field(max_length=9, pattern="^a+$", json_schema_extra=remedy("some a, such as aa"))])
    assert schema["pattern"] == "^a+$"
    assert schema["x-kubernetes-validations"] == [{"rule": "self.matches(r'^a+$')", "message": "someField must be some a, such as aa"}]


def test_a_quantity_is_a_number_or_text() -> None:
    schema = field(Quantity)
    assert schema["x-kubernetes-int-or-string"] is True
    assert "type" not in schema
    assert schema["x-kubernetes-validations"][0]["rule"].startswith("type(self) == int || ")


def test_keys_of_maps_are_bounded_by_rules() -> None:
    [rule] = structural(Keyed, defaults=True)["properties"]["labels"]["x-kubernetes-validations"]
    assert rule["rule"] == "self.all(key, size(key) <= 5)"
    [rule] = field(Labels)["x-kubernetes-validations"]
    assert rule["rule"].startswith("self.all(key, key.matches(r'^")


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        (int | str, "union of 2 types"),
        (tuple[int, str], "list needs the type of its items"),
        (Tree, "part of itself"),
        (None, "always null"),
    ],
    ids=str,
)
def test_what_no_structural_schema_can_say_is_refused(annotation: Any, says: str) -> None:
    with pytest.raises(SchemaError, match=f"someField.*{says}"):
        field(annotation)


def test_an_unknown_keyword_is_refused() -> None:
    with pytest.raises(SchemaError, match="someField: a structural schema has no contentEncoding"):
        field(Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})])


@pytest.mark.parametrize(("text", "wanted"), [("a", "r'a'"), (r"a\.b", r"r'a\.b'"), (r"it's\.", r"'it\'s\\.'"), ("a\\", r"'a\\'")])
def test_cel_text(text: str, wanted: str) -> None:
    assert literal(text) == wanted


def test_crds_are_those_of_the_types() -> None:
    assert main(["crds", "--check", "--output", str(ROOT / "crds")]) == 0, "run `trtllm-operator crds`"


def test_check_finds_what_differs_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crds", "--output", str(tmp_path)]) == 0
    assert main(["crds", "--output", str(tmp_path), "--check"]) == 0
    changed, missing = tmp_path / DEFINITIONS[0].file_name, tmp_path / DEFINITIONS[1].file_name
    changed.write_text(changed.read_text().replace("Namespaced", "Cluster"))
    missing.unlink()
    (tmp_path / "old.yaml").write_text("kind: Old\n")
    capsys.readouterr()
    assert main(["crds", "--output", str(tmp_path), "--check"]) == 1
    said = capsys.readouterr().err
    for path in (changed, missing):
        assert f"{path} is not what the types say: run `trtllm-operator crds" in said
    assert "old.yaml belongs to no kind: remove it" in said
    assert not missing.exists()
    assert "Cluster" in changed.read_text()


def test_a_missing_directory_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crds", "--output", str(tmp_path / "none")]) == 1
    assert "is not a directory: make it, or name another with --output" in capsys.readouterr().err


def test_definitions_have_what_people_use() -> None:
    for definition in DEFINITIONS:
        [version] = definition.document()["spec"]["versions"]
        names = definition.document()["spec"]["names"]
        assert names["shortNames"] == [definition.names.short_name]
        assert names["categories"] == [CATEGORY]
        assert version["subresources"]["status"] == {}
        assert [column["name"] for column in version["additionalPrinterColumns"]][:2] == ["Ready", "Reason"]
        assert version["additionalPrinterColumns"][-1]["name"] == "Age"


def test_files_hold_one_definition_each() -> None:
    for definition in DEFINITIONS:
        [document] = yaml.safe_load_all((ROOT / "crds" / definition.file_name).read_text())
        assert document == definition.document()


_HELP = """
import sys
from trtllm_operator.__main__ import main
try:
    main(["--help"])
finally:
    print(sorted({"pydantic", "kopf", "kubernetes", "yaml"} & sys.modules.keys()))
"""


def test_help_comes_at_once_because_it_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", _HELP], capture_output=True, text=True, check=True)
    assert "usage: trtllm-operator" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["crds", "render"])
def test_each_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: trtllm-operator {command}" in capsys.readouterr().out


def test_a_wrong_command_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve"])
    assert ended.value.code == 2
    assert "serve" in capsys.readouterr().err
