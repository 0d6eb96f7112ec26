"""Stage build: the only long one that holds GPUs. Preflight, convert, trtllm-build, and a look at what came out."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from trtllm_operator.builder import disk, engine, lock, manifest, process
from trtllm_operator.builder.console import Advance, Progress
from trtllm_operator.builder.failures import Log
from trtllm_operator.builder.report import Failure
from trtllm_operator.builder.request import Request
from trtllm_operator.builder.steps import Runner
from trtllm_operator.builder.stopping import Stop

COMPLETE = "complete.json"
"""Written last into an attempt's directory: without it, an attempt is not complete, whatever it holds."""

# Percent at which each step begins and ends. Building takes most of the time.
_SPANS = {"preflight": (0.0, 2.0), "convert": (2.0, 25.0), "build": (25.0, 98.0)}
# Lines of trtllm-build that tell how far a rank is -> share of the rank. Only for the progress: nothing depends on them.
_MILESTONES = (("Build TensorRT engine", 0.1), ("Total time of building Unnamed Network", 0.8), ("Serializing engine to", 0.9))


def run(request: Request, progress: Progress, stop: Stop) -> dict[str, Any]:
    """Facts of the report.

    Raises:
        Failure: what went wrong, classified.
    """
    directory, attempt, key = request.path("directory"), request.path("attemptDirectory"), request.text("key")
    with lock.held(directory, progress):
        if (known := _published(directory, key, progress) or _finished(attempt)) is not None:
            progress.update(100, "the engine is there already")
            return known
        try:
            return _build(request, attempt, progress, stop)
        except (Failure, OSError) as error:
            # Nothing goes on from half an engine, and on a claim that others share it would take their room. A pod that is being
            # removed has no time for that; the next attempt does it.
            if not (isinstance(error, Failure) and error.reason == "Evicted"):
                shutil.rmtree(attempt, ignore_errors=True)
            raise


def _build(request: Request, attempt: Path, progress: Progress, stop: Stop) -> dict[str, Any]:
    steps, expect, ranks = request.steps(), request.table("expect"), request.number("ranks")
    checkpoint = request.path("checkpoint")
    for name in ("convert", "build"):
        if name not in steps:
            raise Failure("InternalError", f"--request: there is no step {name}")
        process.check(steps[name]["argv"], name, None)
    if not (checkpoint / "config.json").is_file():
        raise Failure("InternalError", f"the checkpoint is not at {checkpoint}. Look at the claim of the checkpoint")
    runner = Runner(stop)
    progress.update(0, "looking at the GPU")
    gpus = runner.preflight(steps.get("preflight"), expect)
    _clear(attempt.parent)
    attempt.mkdir(parents=True)
    disk.require(attempt, _needed(checkpoint, request.number("bytes")), "building the engine")
    seconds: dict[str, float] = {}
    log = Log()
    for name, pattern in (("convert", "checkpoint/rank{}.safetensors"), ("build", "engine/rank{}.engine")):
        watch = _Watch(name, attempt, pattern, ranks, progress)
        ended, log = runner.run(steps[name], on_line=watch.line, on_tick=watch.tick)
        seconds[name] = round(ended.seconds, 1)
    progress.update(_SPANS["build"][1], "checking the engine")
    _check(attempt / "engine", ranks, expect.get("runtimeVersion"), log)
    shutil.rmtree(attempt / "checkpoint", ignore_errors=True)
    facts = {"gpus": [gpu.fact() for gpu in gpus], "runtimeVersion": str(expect.get("runtimeVersion", "")), "seconds": seconds}
    manifest.replace(attempt / COMPLETE, json.dumps({"facts": facts}).encode())
    progress.update(100, "the engine is built")
    return facts


def _check(directory: Path, ranks: int, version: str | None, log: Log) -> None:
    try:
        engine.check(directory, ranks, version)
    except Failure as failure:
        found = log.hit()
        if found is not None:  # it ended with 0, though its log names a cause
            row, line = found
            raise Failure(
                row.reason, f"{failure.message}; its log says: {line[:300]}. {row.advice}", step="build", detail=log.detail(line)
            ) from failure
        raise Failure(failure.reason, failure.message, step="build", detail=log.detail()) from failure


def _finished(attempt: Path) -> dict[str, Any] | None:
    """Facts of this attempt, if it was finished before: a Job may run twice."""
    try:
        facts = json.loads((attempt / COMPLETE).read_bytes())["facts"]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    return dict(facts) if isinstance(facts, dict) and (attempt / "engine" / "config.json").is_file() else None


def _published(directory: Path, key: str, progress: Progress) -> dict[str, Any] | None:
    """Facts of an engine that is published already, for example on a claim that outlived its LLMEngineBuild.

    One that is damaged is removed, so that building again mends it. Raises Failure where it is of another key.
    """
    path = directory / manifest.NAME
    found = manifest.read(path)
    if found is None:
        return None
    said = found[0]
    manifest.require_key(directory, said, key)
    wrong = manifest.content_difference(
        directory, said, Advance(progress, said.size, "an engine is there: comparing it with its manifest", (0, 99))
    )
    if wrong is None:
        built = said.facts.get("build")
        return (
            dict(built) if isinstance(built, dict) else {"gpus": [], "runtimeVersion": said.facts.get("runtimeVersion", ""), "seconds": {}}
        )
    path.unlink()
    shutil.rmtree(directory / "artifact", ignore_errors=True)
    return None


def _clear(attempts: Path) -> None:
    """Remove attempts that were not finished, this one included: they take the room that is needed now."""
    if not attempts.is_dir():
        return
    for path in attempts.iterdir():
        if not (path / COMPLETE).is_file():
            shutil.rmtree(path, ignore_errors=True)


def _needed(checkpoint: Path, size: int) -> int:
    """Bytes for the converted checkpoint and the engine: each as large as the weights, or half of that where 32-bit weights are made 16-bit."""
    try:
        config = json.loads((checkpoint / "config.json").read_bytes())
        dtype = config.get("torch_dtype") or config.get("dtype")
    except (OSError, ValueError, AttributeError):
        return size
    return 2 * size if dtype in {"float16", "bfloat16"} else size


class _Watch:
    """Progress of a step from the files that appear and the lines that it prints."""

    def __init__(self, name: str, attempt: Path, pattern: str, ranks: int, progress: Progress) -> None:
        self._name = name
        self._files = [attempt / pattern.format(rank) for rank in range(ranks)]
        self._ranks = ranks
        self._progress = progress
        self._started = time.monotonic()
        self._next = 0.0
        self._share = 0.0

    def line(self, line: str) -> None:
        for text, share in _MILESTONES:
            if self._name == "build" and text in line:
                self._share = share

    def tick(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + 1.0
        done = sum(file.is_file() for file in self._files)
        share = min(1.0, (done + self._share * (done < self._ranks)) / self._ranks)
        low, high = _SPANS[self._name]
        spent = now - self._started
        # Only from finished ranks can be told what the others will take.
        eta = spent * (self._ranks - done) / done if 0 < done < self._ranks else None
        verb = "converting the checkpoint" if self._name == "convert" else "building the engine"
        self._progress.update(low + (high - low) * share, f"{verb}: {done} of {self._ranks} ranks", eta)
