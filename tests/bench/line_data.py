"""The data path: the stage program with a large checkpoint, beside a bare client, dd and a bare hash loop on the same machine and disk.

Processes: one that serves, as in tests/bench/checkpoint_program.py; the stage program, from its zipapp, as a Job runs it; curl, dd
and hashlib for what the machine can do. Each takes its turn from a disk that has nothing left to write, and whoever reads finds
nothing of it in the page cache.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.checkpoint_program import COMMIT, REPO
from tests.bench.goals import Figure, at_least
from tests.cluster.process import ClusterError
from tests.cluster.progress import say
from trtllm_operator.builder import download, files, pack

LINE = "data-path"
SHARE_GOAL = 0.8  # of what the machine gives
MEMORY_GOAL = 200.0  # MB
AGAIN_GOAL = 5.0  # percent
SHARDS = 8
_POLL = 0.02
_HASH = "import hashlib, sys; [print(hashlib.file_digest(open(name, 'rb'), 'sha256').hexdigest()) for name in sys.argv[1:]]"


@dataclass
class _Measured:
    """Seconds of each repetition, and the most memory of any stage."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    memory: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        os.sync()
        began = time.monotonic()
        yield
        self.seconds.setdefault(what, []).append(time.monotonic() - began)


class _Bench:
    def __init__(self, root: Path, url: str, total: int) -> None:
        self.root, self.url, self.total = root, url, total
        self.program = root / "stage.pyz"
        self.program.write_bytes(pack.build())
        self.shards = [name for name in self._ask("files") if name.endswith(".safetensors")]
        self.measured = _Measured()

    def _ask(self, what: str) -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}/{what}", timeout=60) as answer:
            return json.load(answer)

    def start(self, stage: str, **request: Any) -> subprocess.Popen[bytes]:
        """The stage program with nothing of this environment but what a pod has."""
        environment = {
            "PATH": os.defpath,
            "HOME": str(self.root / "home"),
            "HF_HOME": str(self.root / "home"),
            "TERMINATION_LOG": str(self.root / "termination-log"),
            "NO_PROXY": "127.0.0.1",
        }
        command = [sys.executable, str(self.program), stage, "--request", json.dumps({"stage": stage, "resource": "ns/name", **request})]
        return subprocess.Popen(command, env=environment, cwd=self.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stage(self, stage: str, **request: Any) -> None:
        """Run one to its end and watch its memory."""
        process, most = self.start(stage, **request), 0.0
        while process.poll() is None:
            most = max(most, _peak(process.pid))
            time.sleep(_POLL)
        self.measured.memory.append(most)
        if process.returncode:
            raise ClusterError(f"stage {stage} failed: {(self.root / 'termination-log').read_text()}")

    def fetch(self, directory: Path) -> dict[str, Any]:
        source = {"kind": "huggingFace", "repo": REPO, "revision": COMMIT, "endpoint": self.url}
        return {"source": source, "bytes": self.total, "directory": str(directory)}

    def repetition(self, number: int) -> None:
        """Everything once. Who begins changes: what a disk gives depends on what it has just done."""
        timed, model = self.measured.timed, self.root / "checkpoint"
        weights = [model / "files" / name for name in self.shards]
        writing = {"bare client": self._bare_client, "dd writes": self._dd, "fetch": lambda: self.stage("fetch", **self.fetch(model))}
        for what, write in _turned(writing, number):
            with timed(what):
                write()
            _remove([self.root / name for name in (*self.shards, "dd")])
        about = {"recipe": "HFCheckpoint", "build": "bench", "key": "bench", "ranks": 1, "facts": {}}
        reading = {
            "bare hash": lambda: _bare_hash(weights),
            "hash": lambda: self.stage("resolve", source={"kind": "pvc", "path": str(model / "files")}),
            "publish": lambda: self.stage("publish", checkpoint=str(model / "files"), directory=str(model), **about),
        }
        with _cold(weights), timed("dd reads"):
            for path in weights:
                _run("dd", f"if={path}", "of=/dev/null", "bs=1M")
        for what, read in _turned(reading, number):
            with _cold(weights), timed(what):
                read()
        shutil.rmtree(model)

    def _dd(self) -> None:
        _run("dd", "if=/dev/zero", f"of={self.root / 'dd'}", "bs=1M", f"count={self.total // 2**20}", "conv=fdatasync")

    def _bare_client(self) -> None:
        """As many files at once as the stage program, until all are on the disk."""

        def one(name: str) -> None:
            target = self.root / name
            _run("curl", "--silent", "--fail", "--noproxy", "*", "--output", str(target), f"{self.url}/{REPO}/resolve/{COMMIT}/{name}")
            with target.open("rb") as file:
                os.fsync(file.fileno())

        with ThreadPoolExecutor(download.STREAMS) as pool:
            list(pool.map(one, self.shards))

    def killed(self) -> None:
        """How many percent of the checkpoint are sent again after SIGKILL half-way."""
        directory = self.root / "killed"
        before = self._ask("sent")
        process = self.start("fetch", **self.fetch(directory))
        while files.tree_bytes(directory) < self.total // 2:
            if process.poll() is not None:
                raise ClusterError(f"stage fetch ended too early: {(self.root / 'termination-log').read_text()}")
            time.sleep(_POLL)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.stage("fetch", **self.fetch(directory))
        shutil.rmtree(directory)
        self.measured.again.append(100 * float(self._ask("sent") - before - self.total) / self.total)


def lines(total: int, repetitions: int) -> Iterator[Figure]:
    """Figures for a checkpoint of so many bytes."""
    for program in ("curl", "dd"):
        if shutil.which(program) is None:
            raise ClusterError(f"{program} is not here, and the data path is measured beside it")
    with tempfile.TemporaryDirectory(prefix="trtllm-bench-") as directory, _server(total) as url:
        if (free := shutil.disk_usage(directory).free) < 1.2 * total:
            raise ClusterError(f"{directory} has {free / 1e9:.0f} GB free, and {1.2 * total / 1e9:.0f} are needed. Set TMPDIR")
        bench = _Bench(Path(directory), url, total // SHARDS * SHARDS)
        for number in range(repetitions):
            bench.repetition(number)
            say(f"    {number + 1} of {repetitions}: fetch {bench.measured.seconds['fetch'][-1]:.0f} s")
        bench.killed()
    yield from _figures(bench.measured, bench.total)


def _figures(measured: _Measured, total: int) -> Iterator[Figure]:
    seconds = measured.seconds
    both = [client + loop for client, loop in zip(seconds["bare client"], seconds["bare hash"], strict=True)]
    yield at_least(LINE, "fetch, hashes included, by a bare parallel client", seconds["fetch"], seconds["bare client"], SHARE_GOAL)
    yield at_least(LINE, "fetch by a bare parallel client and then a bare hash loop", seconds["fetch"], both, None)
    yield at_least(LINE, "fetch by dd's writing to the same disk", seconds["fetch"], seconds["dd writes"], SHARE_GOAL)
    yield at_least(LINE, "hash by a bare hash loop on each core", seconds["hash"], seconds["bare hash"], SHARE_GOAL)
    yield at_least(LINE, "publish by a bare hash loop on each core", seconds["publish"], seconds["bare hash"], SHARE_GOAL)
    yield at_least(LINE, "hash by dd's reading of the same files", seconds["hash"], seconds["dd reads"], SHARE_GOAL)
    yield at_least(LINE, "publish by dd's reading of the same files", seconds["publish"], seconds["dd reads"], SHARE_GOAL)
    yield Figure(LINE, "most memory of a stage (VmHWM)", tuple(measured.memory), unit="MB", goal=MEMORY_GOAL)
    yield Figure(LINE, "downloaded again after SIGKILL half-way", tuple(measured.again), unit="%", goal=AGAIN_GOAL)
    for what, taken in seconds.items():
        yield Figure(LINE, what, tuple(total / 1e6 / each for each in taken), unit="MB/s", least=True, details={"seconds": taken})


@contextlib.contextmanager
def _server(total: int) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.bench.checkpoint_program", str(SHARDS), str(total)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        try:
            port = process.stdout.readline().strip() if process.stdout else ""
            if not port:
                raise ClusterError("the hub of the data path does not start")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@contextlib.contextmanager
def _cold(paths: Sequence[Path]) -> Iterator[None]:
    """Nothing of these files in the page cache."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    yield


def _bare_hash(paths: Sequence[Path]) -> None:
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(lambda path: _run(sys.executable, "-S", "-c", _HASH, str(path)), paths))


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _turned(work: Mapping[str, Callable[[], None]], number: int) -> list[tuple[str, Callable[[], None]]]:
    """All of it, beginning with another one each time."""
    items = list(work.items())
    first = number % len(items)
    return items[first:] + items[:first]


def _peak(pid: int) -> float:
    """Most memory of a process so far in MB (10^6 bytes); 0 where it has just ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0
