"""The stage program's last word: one JSON object in the container's termination message, from which the operator decides."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from trtllm_operator.builder.redact import Redactor

LIMIT = 4096
"""Bytes that the kubelet keeps of a container's termination message."""

# By name only: this program stands alone. A test holds them to api/reasons.py.
Reason = Literal[
    "BadOptions",
    "BuildFailed",
    "ConvertFailed",
    "DiskFull",
    "EngineCorrupt",
    "EngineVersionMismatch",
    "Evicted",
    "GPUFailed",
    "GPUMismatch",
    "GPUNotFound",
    "GPUOutOfMemory",
    "HostOutOfMemory",
    "HubUnreachable",
    "InternalError",
    "InvalidModel",
    "MPISpawnFailed",
    "ModelAccessDenied",
    "ModelNotFound",
    "NCCLInitFailed",
    "NoEngineProduced",
    "ParallelismMismatch",
    "RevisionNotFound",
    "RuntimeVersionMismatch",
    "SourceChanged",
    "ToolNotFound",
    "UnsupportedArchitecture",
    "UnsupportedDtype",
    "VerifyFailed",
    "VolumeNotWritable",
]


class Failure(Exception):
    """A stage can't be done. `message` says what, with numbers, and the next step; `detail` holds the decisive lines of a log."""

    def __init__(self, reason: Reason, message: str, *, step: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.message = message
        self.step = step
        self.detail = detail


def success(stage: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Report of a stage that is done."""
    return {"ok": True, "stage": stage, "facts": dict(facts)}


def failed(stage: str, failure: Failure) -> dict[str, Any]:
    """Report of a stage that is not."""
    report: dict[str, Any] = {"ok": False, "stage": stage, "reason": failure.reason, "message": failure.message}
    if failure.step:
        report["step"] = failure.step
    if failure.detail:
        report["detail"] = failure.detail
    return report


def _dump(report: Mapping[str, Any]) -> bytes:
    # Lone surrogates come from undecodable bytes in a command line; they must not keep a report from being written.
    return json.dumps(report, separators=(",", ":"), ensure_ascii=False).encode("utf-8", errors="replace")


def _fit(report: dict[str, Any], holder: dict[str, Any], key: str) -> None:
    """Cut one text of the report, no more than needed."""
    text = str(holder[key])
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        holder[key] = text[:middle] + "…"
        low, high = (middle, high) if len(_dump(report)) <= LIMIT else (low, middle - 1)
    holder[key] = text[:low] + "…"


def encode(report: Mapping[str, Any], redactor: Redactor | None = None) -> bytes:
    """The report as JSON without secrets, in at most `LIMIT` bytes; what matters least is cut first."""
    cut: dict[str, Any] = (redactor or Redactor(os.environ)).value(dict(report))
    facts = cut.get("facts")
    texts: list[tuple[dict[str, Any], str]] = [(cut, "detail"), (cut, "message")]
    if isinstance(facts, dict):
        texts.append((facts, "output"))
    for holder, key in texts:
        if len(_dump(cut)) <= LIMIT:
            break
        if key in holder:
            _fit(cut, holder, key)
    while len(_dump(cut)) > LIMIT and isinstance(facts, dict) and facts.get("gpus"):
        facts["gpus"] = facts["gpus"][:-1]
    return _dump(cut)


def write(report: Mapping[str, Any]) -> None:
    """Leave the report for the operator, and one line for people who read the log."""
    data = encode(report)
    shown = json.loads(data)
    line = "done" if shown["ok"] else f"failed: {shown['reason']}: {shown['message']}"
    _say(f"trtllm-stage {shown['stage']} {line}")
    path = Path(os.environ.get("TERMINATION_LOG") or "/dev/termination-log")
    try:
        path.write_bytes(data)
    except OSError as error:
        _say(f"trtllm-stage: can't write the report to {path}: {error.strerror}")


def _say(line: str) -> None:
    # Not through sys.stderr: a signal handler may have interrupted a write there.
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="replace"))
