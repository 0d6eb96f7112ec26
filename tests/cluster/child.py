"""Long-running child processes that end with us, however we end."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster.process import Argument, ClusterError, environment

# The kernel's parent-death signal fires when the *thread* that started the child ends. This one lasts as long as the
# interpreter, whichever thread of a test asks for a process.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="child-starter")

_STOP_SECONDS = 10.0


def dying_with_us() -> list[str]:
    """What to put before a command so that it gets SIGKILL when the thread that starts it ends; nothing where there is no such tool."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


class ChildError(ClusterError):
    """A child process ended when it should run."""


class Child:
    """One program with its log file."""

    def __init__(self, argv: Sequence[Argument], log: Path) -> None:
        """Start it; it gets SIGKILL when this process dies (Linux)."""
        self.name = Path(argv[0]).name
        self.log = log
        self._process = _starter.submit(self._start, [str(part) for part in argv]).result()

    def _start(self, argv: list[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [*dying_with_us(), *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,  # Ctrl-C reaches us alone; we stop the children in order
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """Exit status; None while it runs, negative: the signal that ended it."""
        return self._process.poll()

    def check(self) -> None:
        """Raise ChildError with the end of its log if it has ended."""
        if not self.running:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise ChildError(f"{self.name} ended with {self._process.returncode}; its last lines:\n{tail}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait; what ignores the signal is killed after ten seconds."""
        if self.running:
            self._process.send_signal(how)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
