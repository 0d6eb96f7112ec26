"""Fields of a request, checked. A request comes from the operator, so a fault in it is a fault of ours: InternalError."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtllm_operator.builder.report import Failure


class Request:
    """A request, see operator/docs/stage-program.md."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = fields

    @classmethod
    def parse(cls, text: str, stage: str) -> Request:
        """Read the JSON of a command line."""
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise Failure("InternalError", f"--request is not valid JSON: {error}") from error
        if not isinstance(fields, dict):
            raise Failure("InternalError", "--request is not a JSON object")
        if fields.get("stage", stage) != stage:
            raise Failure("InternalError", f"--request is for stage {fields['stage']!r}, and the command is {stage}")
        return cls(fields)

    def _get(self, name: str, kind: type, what: str) -> Any:
        value = self.fields.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise Failure("InternalError", f"--request: field {name} must be {what}")
        return value

    def text(self, name: str) -> str:
        return str(self._get(name, str, "a text"))

    def number(self, name: str) -> int:
        return int(self._get(name, int, "a whole number"))

    def table(self, name: str) -> dict[str, Any]:
        return dict(self._get(name, dict, "an object"))

    def path(self, name: str) -> Path:
        """An absolute path without `..`."""
        path = Path(self.text(name))
        if not path.is_absolute() or ".." in path.parts:
            raise Failure("InternalError", f"--request: field {name} must be an absolute path, not {str(path)!a}")
        return path

    def source(self) -> dict[str, Any]:
        source = self.table("source")
        wanted = {"huggingFace": ("repo", "revision"), "pvc": ("path",)}.get(str(source.get("kind")))
        if wanted is None or not all(isinstance(source.get(name), str) for name in wanted):
            raise Failure("InternalError", "--request: source must have kind huggingFace with repo and revision, or kind pvc with path")
        return source

    def steps(self) -> dict[str, dict[str, Any]]:
        """Steps by name, in order."""
        steps = self._get("steps", list, "a list")
        for step in steps:
            argv = step.get("argv") if isinstance(step, dict) else None
            env = step.get("env") or {} if isinstance(step, dict) else None
            if not isinstance(argv, list) or not argv or not all(isinstance(part, str) for part in argv) or not isinstance(env, dict):
                raise Failure("InternalError", "--request: each step must have a name, an argv of texts and, if any, an env")
        return {str(step.get("name")): step for step in steps}
