"""Steps of the stages that run in the runtime image: preflight, and any program whose failure is classified."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from trtllm_operator.builder import failures, gpus, nvml, process
from trtllm_operator.builder.gpus import GPU
from trtllm_operator.builder.report import Failure
from trtllm_operator.builder.stopping import Stop

_DISTRIBUTIONS = ("tensorrt_llm", "tensorrt-llm")


class Runner:
    """Runs the steps of one request."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        for name in ("HOME", "HF_HOME", "XDG_CACHE_HOME"):  # on an empty volume; programs expect at least their HOME
            if path := os.environ.get(name):
                _make(Path(path))

    def run(
        self,
        step: Mapping[str, Any],
        on_line: Callable[[str], None] = lambda _: None,
        on_tick: Callable[[], None] = lambda: None,
    ) -> tuple[process.Ended, failures.Log]:
        """Run one step to a good end.

        Raises:
            Failure: it failed, or the pod is being removed (Evicted).
        """
        name, argv, log = str(step["name"]), step["argv"], failures.Log()

        def both(line: str) -> None:
            log.feed(line)
            on_line(line)

        env = {str(key): str(value) for key, value in (step.get("env") or {}).items()}
        ended = process.run(argv, step=name, stop=self._stop, on_line=both, on_tick=on_tick, env=env)
        if self._stop.requested:
            raise evicted(name, ended.seconds)
        if ended.code != 0:
            raise failures.classify(name, program(argv), ended.code, log)
        return ended, log

    def preflight(self, step: Mapping[str, Any] | None, expect: Mapping[str, Any]) -> list[GPU]:
        """See which GPUs there are, and compare them and the runtime's version with what is expected.

        Raises:
            Failure: GPUNotFound, GPUMismatch, RuntimeVersionMismatch, ToolNotFound.
        """
        found = self._query(step or {"name": "preflight", "argv": list(gpus.QUERY)})
        gpus.check(found, expect)
        if expect.get("runtimeVersion"):
            check_version(str(expect["runtimeVersion"]))
        return found

    def _query(self, step: Mapping[str, Any]) -> list[GPU]:
        lines: list[str] = []
        try:
            self.run(step, on_line=lines.append)
        except Failure as failure:
            if failure.reason == "Evicted":
                raise
            try:  # not every container gets the tool
                return nvml.query()
            except nvml.NVMLError as error:
                raise Failure(
                    "GPUNotFound",
                    f"the container's GPUs can't be queried: {_without_end(failure.message)}; {error}. Check the device plugin and runtimeClassName",
                    step="preflight",
                    detail=failure.detail,
                ) from failure
        return gpus.parse(lines)


def _without_end(message: str) -> str:
    return re.split(r"\. (?=[A-Z])", message)[0]


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # the program will say so if it matters


def evicted(step: str, seconds: float) -> Failure:
    """The pod is being removed; nothing is wrong with the work."""
    return Failure(
        "Evicted", f"stopped after {seconds:.0f} s in step {step}: the pod is being removed. It is tried again and not counted", step=step
    )


def program(argv: list[str]) -> str:
    """What people call the program of a command line."""
    names = [Path(part).name for part in argv[:2]]
    return names[1] if len(names) > 1 and names[0].startswith("python") else names[0]


def installed_version() -> str | None:
    """Version of TensorRT-LLM in this image, from package metadata: importing it takes many seconds and a GPU."""
    for name in _DISTRIBUTIONS:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def check_version(expected: str) -> None:
    """Compare the installed version with the one that is asked for. A local part (`+cu13`) does not count.

    Raises:
        Failure: RuntimeVersionMismatch, ToolNotFound.
    """
    found = installed_version()
    if found is None:
        raise Failure(
            "ToolNotFound", "the image has no Python package tensorrt_llm. Use NVIDIA's image of runtime.version, or one made from it"
        )
    if found.split("+", 1)[0] != expected.split("+", 1)[0]:
        raise Failure(
            "RuntimeVersionMismatch",
            f"the image holds TensorRT-LLM {found}, and runtime.version is {expected}. Make runtime.version and runtime.image agree",
        )
