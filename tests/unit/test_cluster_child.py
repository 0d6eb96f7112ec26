"""Child processes end with their owner; commands that fail say why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.child import Child, ChildError
from tests.cluster.process import CommandError, run, succeeds

_OWNER = """
import sys
from pathlib import Path
from tests.cluster.child import Child
child = Child(["sleep", "600"], Path(sys.argv[1]))
print(child.pid, flush=True)
sys.stdin.read()
"""


def _gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_a_child_dies_with_an_owner_that_is_killed(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", _OWNER, str(tmp_path / "log")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdin is not None
    assert owner.stdout is not None
    with owner:
        pid = int(owner.stdout.readline())
        deadline = time.monotonic() + 10
        while "sleep" not in Path(f"/proc/{pid}/comm").read_text():  # until then the signal may not be set yet
            assert time.monotonic() < deadline
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    deadline = time.monotonic() + 10
    while not _gone(pid):
        assert time.monotonic() < deadline


def test_stop_ends_it(tmp_path: Path) -> None:
    child = Child(["sleep", "600"], tmp_path / "log")
    child.check()
    child.stop()
    assert not child.running


def test_check_shows_the_end_of_the_log(tmp_path: Path) -> None:
    child = Child([sys.executable, "-c", "print('no such flag'); raise SystemExit(3)"], tmp_path / "log")
    child._process.wait()
    with pytest.raises(ChildError, match=r"(?s)ended with 3.*no such flag"):
        child.check()


def test_run_returns_stdout_and_keeps_stderr_for_the_error() -> None:
    program = "import sys; print('out'); print('reason', file=sys.stderr); sys.exit(int(sys.stdin.read()))"
    assert run([sys.executable, "-c", program], stdin="0") == "out\n"
    with pytest.raises(CommandError, match="reason") as caught:
        run([sys.executable, "-c", program], stdin="4")
    assert caught.value.code == 4


def test_a_program_that_is_not_there_and_one_that_takes_too_long() -> None:
    with pytest.raises(CommandError, match="no such program"):
        run(["no-such-program-anywhere"])
    with pytest.raises(CommandError, match="no end after"):
        run(["sleep", "60"], timeout=0.1)
    assert not succeeds(["false"])
