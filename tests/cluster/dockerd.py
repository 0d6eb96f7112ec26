"""The Docker daemon: the one of the machine where there is one, else one of our own that disturbs nothing.

Ours has its own data root, exec root, pid file, socket, cgroup and mount namespace, no default bridge, and leaves the
machine's iptables alone: published ports go through docker-proxy, and nodes reach the outside by the one rule that
`tests.cluster.egress` adds.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import cache, runc_front
from tests.cluster.process import Argument, ClusterError, CommandError, environment, run
from tests.cluster.progress import say, step

_ANSWER_SECONDS = 5.0
_START_SECONDS = 60.0
_STOP_SECONDS = 40.0


@dataclass(frozen=True)
class Docker:
    """A daemon that answers. `host` is its DOCKER_HOST, None for what the docker client uses by itself."""

    host: str | None

    @property
    def environment(self) -> Mapping[str, str]:
        """What docker and kind need to reach it. The classic builder is named because Debian 12 has no buildx."""
        own = {} if self.host is None else {"DOCKER_HOST": self.host, "DOCKER_BUILDKIT": "0"}
        return {"KIND_EXPERIMENTAL_PROVIDER": "docker", **own}

    def __call__(self, *arguments: Argument, check: bool = True, stdin: str | bytes | None = None, timeout: float | None = None) -> str:
        """Run the docker client; see `process.run`."""
        return run(["docker", *arguments], env=self.environment, check=check, stdin=stdin, timeout=timeout)


def _state() -> Path:
    return cache.root() / "dockerd"


def _run_directory() -> Path:
    # Short, since the path of a socket has at most 107 characters; one per cache, so that two don't meet.
    return Path("/run") / f"trtllm-{hashlib.sha256(str(cache.root()).encode()).hexdigest()[:8]}"


def _socket() -> str:
    return f"unix://{_run_directory()}/docker.sock"


def _own_pid() -> int | None:
    """The process id of our daemon if it runs; a number that another program got meanwhile is not taken for it."""
    try:
        pid = int((_state() / "pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if f"--data-root={_state() / 'data'}".encode() in command else None


def _answers(docker: Docker) -> bool:
    try:
        return bool(docker("version", "--format", "{{.Server.Version}}", timeout=_ANSWER_SECONDS).strip())
    except CommandError:
        return False


def find() -> Docker | None:
    """Our daemon if it runs, else the machine's if it answers, else None. Changes nothing."""
    if _own_pid() is not None:
        ours = Docker(_socket())
        return ours if _answers(ours) else None
    machines = Docker(None)
    return machines if shutil.which("docker") and _answers(machines) else None


def is_own() -> bool:
    """Whether the daemon is one that we started."""
    return _own_pid() is not None


def ensure() -> Docker:
    """A daemon that answers; starts our own if there is none.

    Raises:
        ClusterError: it did not start; the message has the end of its log.
    """
    if found := find():
        return found
    with cache.lock("dockerd"):
        return find() or _start()


_started: list[subprocess.Popen[bytes]] = []
"""The daemon outlives us on purpose; if nothing held it, Python would warn of a process that still runs."""


def _front() -> list[str]:
    """The runtime flags for a machine that lacks capabilities; none where it has all of them."""
    missing = runc_front.missing_capabilities(Path("/proc/self/status").read_text())
    if not missing:
        return []
    say(f"    this machine lacks {', '.join(sorted(missing))}: runc gets a front that leaves it out")
    program = _state() / "runc-front"
    source = Path(runc_front.__file__).read_text()
    program.write_text(f"#!{Path(sys.executable).resolve()} -IS\n{source}")
    program.chmod(0o755)
    return [f"--add-runtime=front={program}", "--default-runtime=front"]


def _start() -> Docker:
    state, running = _state(), _run_directory()
    state.mkdir(parents=True, exist_ok=True)
    running.mkdir(mode=0o700, parents=True, exist_ok=True)
    (running / "docker.pid").unlink(missing_ok=True)  # dockerd would take the zombie of a killed one for a running one
    settings = state / "daemon.json"  # so that the settings of another daemon are not read
    settings.write_text("{}\n")
    docker = Docker(_socket())
    with step("starting a Docker daemon of our own"), (state / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *("unshare", "--mount", "--propagation", "slave", "dockerd"),
                f"--config-file={settings}",
                f"--data-root={state / 'data'}",
                f"--exec-root={running / 'exec'}",
                f"--pidfile={running / 'docker.pid'}",
                f"--host={docker.host}",
                f"--cgroup-parent=/{running.name}",
                *("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--log-level=warn"),
                *_front(),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=environment(),
            start_new_session=True,
        )
        _started.append(process)
        (state / "pid").write_text(f"{process.pid}\n")
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(docker):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise ClusterError(f"dockerd did not start; the end of {state / 'log'}:\n{_tail(state / 'log')}")
            time.sleep(0.2)
    return docker


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-20:])


def revive() -> Docker | None:
    """Like `find`, but a daemon of ours that died and left containers behind is started again, to take them down in order."""
    if _own_pid() is None and _orphans():
        with cache.lock("dockerd"):
            _start()
    return find()


def stop() -> None:
    """End the daemon that we started and remove what it kept, images included. Another daemon is left alone."""
    with cache.lock("dockerd"):
        if (pid := _own_pid()) is not None:
            with step("stopping our Docker daemon"):
                _end(pid)
        for process in _started:
            process.wait(_STOP_SECONDS)  # it is at its end: now it may be forgotten
        _started.clear()
        cache.remove(_state())
        cache.remove(_run_directory())
        _remove_cgroups(_run_directory().name)


def _orphans() -> bool:
    mark = str(_run_directory()).encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes():
                return True
    return False


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while _own_pid() is not None:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
        _reap(pid)


def _reap(pid: int) -> None:
    """Collect it if it is a child of this very process, else it would stay as a zombie."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _remove_cgroups(name: str) -> None:
    for top in [*Path("/sys/fs/cgroup").glob(name), *Path("/sys/fs/cgroup").glob(f"*/{name}")]:
        for directory, _, _ in os.walk(top, topdown=False):
            try:
                Path(directory).rmdir()
            except OSError:
                say(f"    could not remove the cgroup {directory}: it is in use")
