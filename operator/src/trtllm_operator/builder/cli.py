"""The command line: `install DIR`, `preflight`, or a stage with `--request JSON`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trtllm_operator.builder import build, disk, fetch, gpus, install, nvml, publish, report, resolve, steps, verify
from trtllm_operator.builder.console import Progress
from trtllm_operator.builder.redact import Redactor
from trtllm_operator.builder.report import Failure
from trtllm_operator.builder.request import Request
from trtllm_operator.builder.stopping import Stop

Stage = Callable[[Request, Progress, Stop], dict[str, Any]]

STAGES: dict[str, Stage] = {
    "resolve": lambda request, progress, _stop: resolve.run(request, progress),
    "fetch": lambda request, progress, _stop: fetch.run(request, progress),
    "build": build.run,
    "publish": lambda request, progress, _stop: publish.run(request, progress),
    "verify": verify.run,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stage.pyz", description="Carries out one stage of a build of trtllm-operator.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="copy this program and the smoke test to a directory").add_argument("directory", type=Path)
    commands.add_parser("preflight", help="print what is known about the GPUs, as JSON")
    for name in STAGES:
        commands.add_parser(name, help=f"carry out stage {name}").add_argument("--request", required=True, metavar="JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0 or 1, or 2 for a command line that is not understood."""
    given = _parser().parse_args(argv)
    if given.command == "install":
        for path in install.run(given.directory):
            print(path)
        return 0
    if given.command == "preflight":
        return preflight()
    status = run_stage(given.command, given.request)
    if argv is None:
        sys.stdout.flush()
        os._exit(status)  # threads of a download that was given up would hold the process
    return status


def run_stage(stage: str, request: str) -> int:
    """Carry out a stage and leave its report."""

    def leave() -> None:
        report.write(
            report.failed(stage, Failure("Evicted", f"{stage} was stopped: the pod is being removed. It is tried again and not counted"))
        )
        os._exit(1)

    stop = Stop(leave)
    stop.install()
    said = outcome(stage, request, stop)
    stop.over()
    report.write(said)
    return 0 if said["ok"] else 1


def outcome(stage: str, request: str, stop: Stop) -> dict[str, Any]:
    """Carry out a stage; the report, whatever happens."""
    directory: str | None = None
    try:
        parsed = Request.parse(request, stage)
        directory = parsed.fields.get("attemptDirectory") or parsed.fields.get("directory")
        return report.success(stage, STAGES[stage](parsed, Progress(stage), stop))
    except Failure as failure:
        return report.failed(stage, failure)
    except MemoryError:
        return report.failed(
            stage, Failure("HostOutOfMemory", f"{stage} ran out of memory. Raise the memory limit of the stage under jobs")
        )
    except Exception as error:  # noqa: BLE001  whatever it is, the operator gets a report
        if (full := disk.is_full(error)) is not None:
            return report.failed(stage, disk.full(full, directory))
        refused = disk.is_refused(error)
        return report.failed(stage, disk.refused(refused) if refused is not None else _unknown(stage, error))


def _unknown(stage: str, error: Exception) -> Failure:
    trace = Redactor(os.environ).text("".join(traceback.format_exception(type(error), error, error.__traceback__)))
    print(trace, file=sys.stderr, flush=True)
    last = trace.strip().splitlines()[-1]
    return Failure("InternalError", f"{stage} failed: {last}. Look at the log of the pod", detail=trace[-1500:])


def preflight() -> int:
    """Print the GPUs that this container sees, for a person. By nvidia-smi, else by NVML."""
    source, found, problems = "nvidia-smi", [], []
    try:
        query = subprocess.run(gpus.QUERY, capture_output=True, text=True, errors="replace", timeout=120, check=False)
        found = gpus.parse(query.stdout.splitlines())
        if not found:
            problems.append(f"nvidia-smi ended with exit code {query.returncode}: {(query.stdout + query.stderr).strip()[-500:]}")
    except (OSError, subprocess.TimeoutExpired) as error:
        problems.append(f"nvidia-smi can't be run: {error}")
    if not found:
        source = "nvml"
        try:
            found = nvml.query()
        except nvml.NVMLError as error:
            problems.append(str(error))
    result: dict[str, Any] = {
        "source": source if found else None,
        "gpus": [_shown(gpu) for gpu in found],
        "runtimeVersion": steps.installed_version(),
    }
    if problems:
        result["problems"] = problems
    print(json.dumps(result, indent=2))
    return 0 if found else 1


def _shown(gpu: gpus.GPU) -> dict[str, Any]:
    return {"index": gpu.index, "uuid": gpu.uuid, **gpu.fact(), "memoryFreeMiB": gpu.free_mib}
