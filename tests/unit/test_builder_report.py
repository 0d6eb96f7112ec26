"""Reports, redaction, progress, space: what the operator is told."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_builder_support import Stage, outcome
from trtllm_operator import builder
from trtllm_operator.api import reasons
from trtllm_operator.builder import disk, report
from trtllm_operator.builder.console import PROGRESS, Progress, Rate
from trtllm_operator.builder.redact import REPLACEMENT, Redactor
from trtllm_operator.builder.report import LIMIT, Failure

NOTHING = Redactor({})


def test_every_reason_is_known() -> None:
    assert set(get_args(report.Reason)) <= set(reasons.REASONS)


def test_every_reason_is_used() -> None:
    source = "".join(path.read_text() for path in Path(builder.__file__).parent.glob("*.py") if path.name != "report.py")
    assert [name for name in get_args(report.Reason) if f'"{name}"' not in source] == []


def test_short_reports_are_whole() -> None:
    said = report.failed("build", Failure("GPUOutOfMemory", "it is full: ä", step="build", detail="line"))
    assert json.loads(report.encode(said, NOTHING)) == {
        "ok": False,
        "stage": "build",
        "reason": "GPUOutOfMemory",
        "message": "it is full: ä",
        "step": "build",
        "detail": "line",
    }


def test_detail_is_cut_first() -> None:
    said = report.failed("build", Failure("BuildFailed", "m" * 1000, step="build", detail="ä\n" * 9000))
    data = report.encode(said, NOTHING)
    assert LIMIT - 8 < len(data) <= LIMIT
    shown = json.loads(data)
    assert shown["message"] == "m" * 1000
    assert shown["detail"].startswith("ä\nä")
    assert shown["detail"].endswith("…")


@given(st.text(max_size=6000), st.text(max_size=6000), st.text(max_size=6000), st.integers(0, 80))
def test_any_report_fits(message: str, detail: str, output: str, gpus: int) -> None:
    gpu = {"name": "NVIDIA H100 80GB HBM3", "computeCapability": "9.0", "memoryMiB": 81559, "driver": "570.86.15", "mig": "Disabled"}
    for said in (
        report.failed("build", Failure("BuildFailed", message, detail=detail)),
        report.success("verify", {"output": output, "tokens": 1, "gpus": [gpu] * gpus}),
    ):
        data = report.encode(said, NOTHING)
        assert len(data) <= LIMIT
        assert json.loads(data)["stage"] == said["stage"]


def test_undecodable_text_does_not_lose_the_report() -> None:
    said = report.failed("build", Failure("BuildFailed", b"\xff\xfe".decode(errors="surrogateescape")))
    assert json.loads(report.encode(said, NOTHING))["reason"] == "BuildFailed"


def test_secrets_are_replaced() -> None:
    redactor = Redactor(
        {"HF_TOKEN": "sesame-open", "my_password": 'qu"ote', "AWS_SECRET_ACCESS_KEY": "wJalrX", "PLAIN": "visible", "A_KEY": "1"}
    )
    said = report.failed(
        "fetch", Failure("HubUnreachable", 'sesame-open qu"ote visible 1', detail="https://user:pa55@host/x wJalrX hf_0123456789abcdef01")
    )
    text = report.encode(said, redactor).decode()
    assert json.loads(text)["message"] == f"{REPLACEMENT} {REPLACEMENT} visible 1"
    assert json.loads(text)["detail"] == f"https://{REPLACEMENT}@host/x {REPLACEMENT} {REPLACEMENT}"


def test_progress_rises_and_is_rare(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    clock = [0.0]
    progress = Progress("fetch", lambda: clock[0])
    for second, percent in ((0.0, 10), (0.5, 20), (1.0, 30), (2.0, 5), (3.5, 30), (5.0, 250)):
        clock[0] = second
        progress.update(percent, "downloading", 1.2)
    lines = capfdbinary.readouterr().out.decode().splitlines()
    said = [json.loads(line.removeprefix(PROGRESS)) for line in lines]
    assert [line["percent"] for line in said] == [10, 30, 100]
    assert said[0] == {"stage": "fetch", "percent": 10, "message": "downloading", "eta": 2}


def test_eta() -> None:
    clock = [0.0]
    rate = Rate(1000, 100, lambda: clock[0])
    assert rate.eta(100) is None
    clock[0] = 10.0
    assert rate.eta(400) == 20.0


def test_room_is_checked_with_numbers(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"needs 1048576\.0 GiB.*Set storage\.size of the LLMEngine to \d+Gi") as caught:
        disk.require(tmp_path, 2**50, "the download")
    assert caught.value.reason == "DiskFull"
    disk.require(tmp_path, 1, "the download")


def test_full_volume_anywhere_is_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a library wraps it") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source / "x"))

    monkeypatch.setattr("trtllm_operator.builder.files.scan", fail)
    result = outcome("resolve", {"source": {"kind": "pvc", "path": str(source)}})
    assert result.reason == "DiskFull"
    assert str(source) in result.report["message"]
    assert re.search(r"storage\.size", result.report["message"])


def test_the_unexpected_is_an_internal_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "sesame-open")

    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("with sesame-open")

    monkeypatch.setattr("trtllm_operator.builder.files.scan", fail)
    result = outcome("resolve", {"source": {"kind": "pvc", "path": str(tmp_path)}})
    assert result.reason == "InternalError"
    assert f"ZeroDivisionError: with {REPLACEMENT}" in result.report["message"]
    assert "sesame" not in json.dumps(result.report)


@pytest.mark.parametrize(
    "request_text",
    [
        "",
        "[]",
        "{",
        '{"stage":"fetch"}',
        '{"source":{"kind":"ftp"}}',
        '{"source":{"kind":"huggingFace","repo":1,"revision":"x"}}',
        '{"source":7}',
    ],
)
def test_a_bad_request_is_reported(tmp_path: Path, request_text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from trtllm_operator.builder import cli  # noqa: PLC0415
    from trtllm_operator.builder.stopping import Stop  # noqa: PLC0415

    monkeypatch.chdir(tmp_path)
    said = cli.outcome("resolve", request_text, Stop())
    assert said["reason"] == "InternalError"
    assert "--request" in said["message"]


def test_a_report_that_cannot_be_left_is_said(tmp_path: Path) -> None:
    stage = Stage(tmp_path, {"TERMINATION_LOG": str(tmp_path / "absent/log")})
    process = stage.start("resolve", {"source": {"kind": "pvc", "path": "/absent"}})
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert b"can't write the report" in output
    assert b"InvalidModel" in output


def test_command_line_mistakes_exit_with_two() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "trtllm_operator.builder", "destroy"], capture_output=True, env={**os.environ, "PYTHONPATH": "operator/src"}
    )
    assert ended.returncode == 2
