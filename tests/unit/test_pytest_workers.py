"""Tests that run side by side (pytest-xdist): what a worker notices at its end is not lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_TEST = """
import gc, socket

def test_leaves_a_socket_open_in_a_cycle():
    gc.disable()
    cycle = [socket.socket()]
    cycle.append(cycle)
"""


def test_a_socket_that_nobody_closed_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(_TEST)
    settings = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "-p", "tests.conftest"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-n1", *settings, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "1 passed, 1 error" in ended.stdout
    assert "unclosed <socket" in ended.stdout
