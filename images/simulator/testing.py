"""How tests run the simulator and the demo's hub on this machine, without containers. Not part of any image."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_IMAGES = Path(__file__).resolve().parent.parent
_DEADLINE = 30.0  # seconds; a busy machine needs about two

for _source in (_IMAGES / "simulator" / "src", _IMAGES / "hub" / "src"):
    if str(_source) not in sys.path:
        sys.path.insert(0, str(_source))

from trtllm_simulator import build, checkpoint, convert, llama, nvidia_smi, sequence, serve, sharding, tensors, textio, versions  # noqa: E402  found through the lines above

__all__ = [
    "Program", "Server", "Simulator", "build", "checkpoint", "convert", "hub", "llama", "make_model", "nvidia_smi", "program", "sequence", "serve", "sharding",
    "tensors", "textio", "versions",
]  # fmt: skip


def _clean_environment() -> dict[str, str]:
    """Without what would change the GPUs that are seen, or send traffic away from loopback."""
    dropped = {"NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "HF_TOKEN", "HF_ENDPOINT"}
    return {name: value for name, value in os.environ.items() if name not in dropped and not name.lower().endswith("_proxy")}


class Program:
    """A running program, whose log is read as it comes."""

    def __init__(self, argv: Sequence[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.log = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        if self.process.stdout is not None:
            for line in self.process.stdout:
                self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match in the log, from its beginning on.

        Raises:
            AssertionError: the program ended without it, or wrote nothing for too long.
        """
        while (found := re.search(pattern, self.log)) is None:
            try:
                line = self._lines.get(timeout=_DEADLINE)
            except queue.Empty:
                raise AssertionError(f"no {pattern!r} in time in:\n{self.log}") from None
            if line is None:
                raise AssertionError(f"ended with {self.process.wait()} without {pattern!r}:\n{self.log}")
            self.log += line
        return found

    def end(self, signum: signal.Signals | None = None) -> int:
        """Exit status, after a signal if one is given."""
        if signum is not None:
            self.process.send_signal(signum)
        status = self.process.wait(_DEADLINE)
        self._reader.join(_DEADLINE)
        while not self._lines.empty():
            self.log += self._lines.get() or ""
        return status

    def kill(self) -> None:
        """Ends it in any case."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def program(argv: Sequence[str], environment: dict[str, str]) -> Iterator[Program]:
    """A program for the length of a `with`."""
    running = Program(argv, environment)
    try:
        yield running
    finally:
        running.kill()


@dataclass
class Server:
    """A server on loopback."""

    url: str
    program: Program


@dataclass
class Simulator:
    """An installation of the simulator in a directory."""

    version: str
    root: Path
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.root.exists():
            argv = ["-m", "trtllm_simulator.install", "--version", self.version]
            argv += ["--site", str(self.root / "site"), "--bin", str(self.root / "bin"), "--app", str(self.root / "app")]
            subprocess.run([sys.executable, *argv], cwd=_IMAGES / "simulator" / "src", check=True, timeout=_DEADLINE)

    @property
    def converter(self) -> str:
        """Path of convert_checkpoint.py."""
        return str(self.root / "app/examples/models/core/llama/convert_checkpoint.py")

    def environment(self, **extra: str) -> dict[str, str]:
        """Environment in which its commands and packages are found first."""
        values = _clean_environment()
        path = f"{self.root / 'bin'}{os.pathsep}{values.get('PATH', '')}"
        return {**values, "PATH": path, "PYTHONPATH": str(self.root / "site"), "OPENBLAS_NUM_THREADS": "1", **self.extra, **extra}

    def run(self, command: str, *arguments: str | Path, **extra: str) -> subprocess.CompletedProcess[str]:
        """Runs one of its commands, a path, or with `python` a program that uses its package; waits for the end."""
        first = (
            [sys.executable] if command == "python" else [sys.executable, command] if "/" in command else [str(self.root / "bin" / command)]
        )
        argv = [*first, *map(str, arguments)]
        return subprocess.run(
            argv, env=self.environment(**extra), cwd=self.root, capture_output=True, text=True, timeout=_DEADLINE, check=False
        )

    @contextmanager
    def serve(self, *arguments: str | Path, **extra: str) -> Iterator[Server]:
        """`trtllm-serve` on a free port of loopback, when it is ready."""
        argv = [str(self.root / "bin" / "trtllm-serve"), *map(str, arguments), "--host", "127.0.0.1", "--port", "0"]
        with program(argv, self.environment(**extra)) as running:
            port = running.wait_for(r"Listening on http://127\.0\.0\.1:(\d+)")[1]
            yield Server(f"http://127.0.0.1:{port}", running)


def make_model(directory: Path, revision: int | None = None) -> Path:
    """The small model, as a directory in Hugging Face layout."""
    arguments = [] if revision is None else ["--revision", str(revision)]
    subprocess.run(
        [sys.executable, str(_IMAGES / "hub" / "make_model.py"), str(directory), *arguments],
        check=True,
        timeout=_DEADLINE,
        capture_output=True,
    )
    return directory


@contextmanager
def hub() -> Iterator[Server]:
    """The demo's hub on a free port of loopback."""
    environment = {**_clean_environment(), "PYTHONPATH": str(_IMAGES / "hub" / "src"), "HUB_TOKEN": "hf_demo_token"}
    with program([sys.executable, "-m", "model_hub", "--port", "0"], environment) as running:
        port = running.wait_for(r"running on http://127\.0\.0\.1:(\d+)")[1]
        yield Server(f"http://127.0.0.1:{port}", running)
