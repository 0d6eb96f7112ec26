"""Small valid objects of each kind, and values at, inside and beyond a bound."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.crd.walk import ITEM, VALUE, Path, dotted

API_VERSION = "trtllm.dev/v1alpha1"
KEY = "key"
"""Key of the one entry that a map gets."""

SPECS: dict[str, dict[str, Any]] = {
    "LLMEngine": {"source": {"huggingFace": {"repo": "meta-llama/Llama-3.2-1B"}}, "runtime": {"version": "1.2.1"}},
    "LLMEngineBuild": {
        "source": {"kind": "huggingFace", "repo": "meta-llama/Llama-3.2-1B", "revision": "c" * 40},
        "model": {"architecture": "LlamaForCausalLM", "bytes": 1, "files": 1},
        "recipe": "TensorRTEngine",
        "runtimeVersion": "1.2.1",
        "runtimeImage": "nvcr.io/nvidia/tensorrt-llm/release:1.2.1",
        "precision": {"dtype": "auto"},
        "parallelism": {"tensor": 1, "pipeline": 1},
    },
    "LLMService": {"engineRef": {"name": "llama"}},
}

# What else must be so that a field may have any value within its bounds: patches of the object, by the start of the field's path.
# The longest start counts.
SURROUNDINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("LLMEngine", "spec.source.pvc"): {"spec": {"source": {"huggingFace": None}}},
    ("LLMEngine", "spec.build.workers"): {"spec": {"parallelism": {"tensor": 16}}},
    ("LLMService", "spec.autoscaling.minReplicas"): {"spec": {"autoscaling": {"maxReplicas": 1000}}},
    ("LLMService", "spec.autoscaling.metrics[].type"): {
        "spec": {"autoscaling": {"metrics": [{"name": "cpu", "averageUtilization": None, "averageValue": "1"}]}}
    },
    ("LLMService", "spec.autoscaling.metrics[].name"): {
        "spec": {"autoscaling": {"metrics": [{"type": "pods", "averageUtilization": None, "averageValue": "1"}]}}
    },
    ("LLMService", "spec.autoscaling.metrics[].averageValue"): {"spec": {"autoscaling": {"metrics": [{"averageUtilization": None}]}}},
}

# Objects that need more than their required fields, by the end of their path.
SMALLEST: dict[str, dict[str, Any]] = {
    "tolerations[]": {"key": "gpu", "effect": "NoExecute"},
    "autoscaling.metrics[]": {"type": "resource", "name": "cpu", "averageUtilization": 50},
    "networkPolicy.clients[]": {"podLabels": {"app": "chat"}},
}


@dataclass(frozen=True)
class Sample:
    """Text for a pattern: `head`, as many `fill` as a length asks for, `tail`; and text of an allowed length that does not match."""

    wrong: str
    head: str = ""
    fill: str = "a"
    tail: str = ""

    def text(self, length: int) -> str:
        """Text of a length. It matches where there is room for one `fill` at least."""
        room = length - len(self.head) - len(self.tail)
        return self.head + self.fill * room + self.tail if room >= 0 else (self.head + self.tail)[:length]


PATTERNS: dict[str, Sample] = {
    r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$": Sample("Not_A_Name"),
    r"^[-._a-zA-Z0-9]+$": Sample("a key"),
    r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$": Sample("an image"),
    r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$": Sample("10 minutes", fill="1", tail="s"),
    r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$": Sample("16GB", fill="1"),
    r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$": Sample("not a label"),
    r"^[0-9]+\.[0-9]+\.[0-9]+(rc[0-9]+)?(\.post[0-9]+)?$": Sample("v1.2.1", head="1.2.", fill="1"),
    r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?$": Sample("https://huggingface.co/meta-llama/Llama-3.2-1B"),
    r"^[A-Za-z0-9_][A-Za-z0-9._/-]*$": Sample("-main"),
    r"^https?://[^\s]+$": Sample("huggingface.co", head="http://"),
    r"^([A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*)?$": Sample("../secrets"),
    r"^--[a-z][a-z0-9_]*$": Sample("--log_level=verbose", head="--"),
    r"^(([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$": Sample("a key", tail="/" + "a" * 63),
    r"^[^\x00]*$": Sample("a\0b"),
    r"^[0-9]+\.[0-9]$": Sample("sm90", fill="1", tail=".0"),
    r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$": Sample("gpu", head="nvidia.com/"),
    r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$": Sample("a/b/c"),
    r"^[A-Za-z0-9][A-Za-z0-9_.-]*$": Sample("deep seek"),
    r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$": Sample("queue depth"),
    r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$": Sample("not a reason"),
}
_ANY_TEXT = Sample("")

# For each pattern of keys: one that does not match it.
BAD_KEYS = {
    r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$": "not a key",
}


def text(schema: Mapping[str, Any], length: int | None = None) -> str:
    """Text that keeps the pattern, of this length or a short one."""
    sample = PATTERNS[schema["pattern"]] if "pattern" in schema else _ANY_TEXT
    if length is None:
        length = max(schema.get("minLength", 0), len(sample.head) + len(sample.tail) + 1)
    return sample.text(length)


def smallest(schema: Mapping[str, Any], path: Path) -> Any:
    """A valid value: of an object, the required fields only."""
    shown = dotted(path)
    for end, value in SMALLEST.items():
        if shown.endswith(end):
            return copy.deepcopy(value)
    if "default" in schema and schema.get("type") != "object":
        return copy.deepcopy(schema["default"])
    match schema.get("type", "any"):
        case "object":
            return {name: smallest(schema["properties"][name], (*path, name)) for name in schema.get("required", ())}
        case "array":
            return [smallest(schema["items"], (*path, ITEM)) for _ in range(schema.get("minItems", 0))]
        case "string":
            return schema["enum"][0] if "enum" in schema else text(schema)
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case _:
            return 1


def merged(base: Any, patch: Any) -> Any:
    """A merge patch: None removes; a list is merged item by item."""
    if isinstance(patch, dict):
        result = dict(base) if isinstance(base, dict) else {}
        for key, value in patch.items():
            if value is None:
                result.pop(key, None)
            else:
                result[key] = merged(result.get(key), value)
        return result
    if isinstance(patch, list) and isinstance(base, list):
        return [merged(old, new) for old, new in zip(base, patch, strict=True)]
    return copy.deepcopy(patch)


def whole(kind: str, name: str = "x") -> dict[str, Any]:
    """A small valid object."""
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": copy.deepcopy(SPECS[kind])}


def get(obj: Any, path: Path) -> Any:
    """What is at a path; items and values of maps by the first."""
    for name in path:
        obj = obj[0] if name == ITEM else obj[KEY if name == VALUE else name]
    return obj


def with_value(kind: str, schema: Mapping[str, Any], path: Path, change: Callable[[Any], Any]) -> dict[str, Any]:
    """A valid object with what is at a path changed; what leads there is made."""
    obj: dict[str, Any] = _made(whole(kind), schema, path, ())
    shown = dotted(path)
    starts = [start for of, start in SURROUNDINGS if of == kind and shown.startswith(start)]
    if starts:
        obj = merged(obj, SURROUNDINGS[kind, max(starts, key=len)])
        obj = _made(obj, schema, path, ())
    result: dict[str, Any] = _changed(obj, path, change)
    return result


def _made(value: Any, schema: Mapping[str, Any], path: Path, done: Path) -> Any:
    if value is None:
        value = smallest(schema, done)
    if not path:
        return value
    name, rest = path[0], path[1:]
    if name == ITEM:
        return [_made(value[0] if value else None, schema["items"], rest, (*done, ITEM)), *value[1:]]
    if name == VALUE:
        return {KEY: _made(value.get(KEY), schema["additionalProperties"], rest, (*done, VALUE))}
    return {**value, name: _made(value.get(name), schema["properties"][name], rest, (*done, name))}


def _changed(obj: Any, path: Path, change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(obj)
    name, rest = path[0], path[1:]
    if name == ITEM:
        return [_changed(obj[0], rest, change), *obj[1:]]
    key = KEY if name == VALUE else name
    return {**obj, key: _changed(obj[key], rest, change)}


def field(path: Path) -> str:
    """As the API server names it."""
    return "".join("[0]" if name == ITEM else f".{KEY if name == VALUE else name}" for name in path).removeprefix(".")
