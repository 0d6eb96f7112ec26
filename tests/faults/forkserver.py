"""Starts operators in an instant: has everything imported that the operator imports, and forks. Run as a program, one request a line.

What runs is the operator's own `main` in a process of its own; only the time for imports (more than a second of a core) is saved, which
at hundreds of starts is most of the time that a run would take.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1


class ForkServer:
    """A context manager; starts operators and knows how they ended."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "forkserver.log"

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.forkserver"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._ask = threading.Lock()
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()  # it ends with its input, and its children with it
        self._process.wait(_SECONDS)

    def _request(self, **document: Any) -> int:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with self._ask:
            stdin.write(json.dumps(document) + "\n")
            stdin.flush()
            answer = stdout.readline()
        if not answer:
            raise RuntimeError(f"the fork server has ended: {self._log.read_text(errors='replace')[-2000:]}")
        return int(answer)

    def start(self, environment: Mapping[str, str], log: Path) -> int:
        """Start an operator; returns its process id."""
        return self._request(start=dict(environment), log=str(log))

    def ended(self, pid: int) -> bool:
        """Whether that operator has ended."""
        return self._request(ended=pid) == 1

    def wait(self, pid: int) -> None:
        """Wait for its end."""
        self._request(wait=pid)


def _serve() -> None:
    """Answer requests until the input ends."""
    import kubernetes.aio.config.kube_config as kubeconfig  # noqa: PLC0415 - only the program needs it

    import trtllm_operator.runtime.watcher  # noqa: F401, PLC0415
    from trtllm_operator.runtime import main  # noqa: PLC0415

    main.deciders()
    gone: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            pid = os.fork()
            if pid == 0:
                _become(request, kubeconfig, main.main)
            gone.discard(pid)  # the kernel gives the numbers of ended processes to others
            answer = pid
        else:
            (what, pid), *_ = request.items()
            if pid not in gone and os.waitpid(pid, os.WNOHANG if what == "ended" else 0)[0] == pid:
                gone.add(pid)
            answer = int(pid in gone)
        print(answer, flush=True)


def _become(request: Mapping[str, Any], kubeconfig: Any, main: Any) -> None:
    """In the child: be the operator."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        for stream, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY | os.O_CREAT | os.O_APPEND)):
            opened = os.open(os.devnull if stream == 0 else request["log"], mode, 0o600)
            os.dup2(opened, stream)
        os.dup2(1, 2)
        os.environ.update(request["start"])
        kubeconfig.KUBE_CONFIG_DEFAULT_LOCATION = os.environ["KUBECONFIG"]  # read from the environment when it was imported
        status = main()
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
