"""Runs one program: output passed through and watched, the whole process group ended with it, no shell."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import IO

from trtllm_operator.builder import console
from trtllm_operator.builder.redact import Redactor
from trtllm_operator.builder.report import Failure
from trtllm_operator.builder.stopping import Stop

GRACE = 20.0
"""Seconds from SIGTERM to SIGKILL: less than the pod's grace period (30 s), so that a report can still be written."""

_TICK = 0.2
_DRAIN = 2.0  # seconds for the output of what outlives the program itself
_LONGEST = 64 * 1024


@dataclass(frozen=True)
class Ended:
    """How a program ended. `code` is as of `subprocess`: negative for a signal."""

    code: int
    seconds: float


def run(
    argv: Sequence[str],
    *,
    step: str,
    stop: Stop,
    on_line: Callable[[str], None],
    on_tick: Callable[[], None] = lambda: None,
    env: Mapping[str, str] | None = None,
    grace: float = GRACE,
) -> Ended:
    """Run a program to its end.

    Args:
        argv: program and arguments; a bare name is looked for in PATH.
        step: for messages.
        stop: passes SIGTERM on to the program's group.
        on_line: gets each line of output, decoded, without its end.
        on_tick: is called several times a second.
        env: variables besides those of this process.
        grace: seconds from SIGTERM to SIGKILL.

    Raises:
        Failure: ToolNotFound.
    """
    environment = {**os.environ, **(env or {})}
    check(argv, step, environment.get("PATH"))
    started = time.monotonic()
    # A group of its own, so that workers that it spawns get signals, too.
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, start_new_session=True
    ) as process:
        output = process.stdout
        if output is None:
            raise RuntimeError("a pipe was asked for")
        with stop.passed_on_to(process.pid):
            _follow(process, output, stop, _Lines(on_line, Redactor(environment)), on_tick, grace)
        # What outlives the program would hold the GPU's memory.
        stop_group(process.pid)
        code = process.wait()
    return Ended(code, time.monotonic() - started)


def stop_group(group: int) -> None:
    """Kill what is left of a process group."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def check(argv: Sequence[str], step: str, path: str | None) -> None:
    """Check that a program, and the script that it is to run, are there.

    Raises:
        Failure: ToolNotFound.
    """
    if which(argv[0], path=path) is None:
        raise Failure(
            "ToolNotFound", f"the image has no program {argv[0]}. Use NVIDIA's image of runtime.version, or one made from it", step=step
        )
    script = argv[1] if len(argv) > 1 and Path(argv[0]).name.startswith("python") and argv[1].endswith((".py", ".pyz")) else None
    if script is not None and not Path(script).is_file():
        raise Failure(
            "ToolNotFound", f"the image has no file {script}. Use NVIDIA's image of runtime.version, or one made from it", step=step
        )


class _Lines:
    """Splits output into lines: whole ones are passed through, decoded ones handed on."""

    def __init__(self, on_line: Callable[[str], None], redactor: Redactor) -> None:
        self._on_line = on_line
        self._redactor = redactor
        self._rest = b""

    def feed(self, data: bytes) -> None:
        whole, found, self._rest = (self._rest + data).rpartition(b"\n")
        if not found and len(self._rest) > _LONGEST:
            whole, self._rest = self._rest, b""
        if whole:
            self._emit(whole)
        elif found:
            console.write(b"\n")

    def end(self) -> None:
        if self._rest:
            self._emit(self._rest)
            self._rest = b""

    def _emit(self, data: bytes) -> None:
        text = self._redactor.text(data.decode(errors="replace"))
        console.write(text.encode() + b"\n")
        for line in text.replace("\r", "\n").split("\n"):  # a bar that draws over itself is many lines
            if line:
                self._on_line(line[:_LONGEST])


def _follow(
    process: subprocess.Popen[bytes], output: IO[bytes], stop: Stop, lines: _Lines, on_tick: Callable[[], None], grace: float
) -> None:
    descriptor = output.fileno()
    os.set_blocking(descriptor, False)
    kill_at: float | None = None
    give_up_at: float | None = None
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if selector.select(_TICK):
                data = os.read(descriptor, _LONGEST)
                if not data:
                    break
                lines.feed(data)
            on_tick()
            now = time.monotonic()
            if stop.requested:
                kill_at = kill_at or now + grace
                if now >= kill_at:
                    stop.signal_group(signal.SIGKILL)
            if process.poll() is not None:
                give_up_at = give_up_at or now + _DRAIN
                if now >= give_up_at:  # something that it left behind keeps the pipe open
                    break
    lines.end()
    _wait(process, stop, kill_at, grace)


def _wait(process: subprocess.Popen[bytes], stop: Stop, kill_at: float | None, grace: float) -> None:
    """Wait for a program that has closed its output."""
    while True:
        try:
            process.wait(_TICK)
        except subprocess.TimeoutExpired:
            if stop.requested:
                kill_at = kill_at or time.monotonic() + grace
                if time.monotonic() >= kill_at:
                    stop.signal_group(signal.SIGKILL)
        else:
            return
