"""Watches a stage of the stage program from inside: what it writes, runs, unpickles and loads, by Python's own audit events.

https://docs.python.org/3/library/audit_events.html. Nothing that runs in the process can take the watch off.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.unit.test_builder_support import Result, Stage

_HOOK = """
import json, os, sys

_out = os.open(os.environ["AUDIT_FILE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_PATHS = {"os.mkdir": 1, "os.remove": 1, "os.rmdir": 1, "os.rename": 2, "os.link": 2, "os.symlink": 2, "os.truncate": 1, "os.chmod": 1}
_RUNS = {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.fork", "os.forkpty", "pickle.find_class"}


def _place(path, descriptor=-1, followed=False):
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    path = os.fsdecode(path)
    if descriptor is not None and descriptor >= 0 and not os.path.isabs(path):
        path = os.path.join(os.readlink(f"/proc/self/fd/{descriptor}"), path)
    if followed:
        return os.path.realpath(path)
    head, tail = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(head), tail)


def _tell(event, *values):
    os.write(_out, json.dumps([event, *values]).encode() + b"\\n")


def _hook(event, args):
    if event == "open":
        flags = args[2] or 0
        if not isinstance(args[0], int):
            _tell("write" if flags & _WRITES else "read", _place(args[0], followed=not flags & os.O_NOFOLLOW))
    elif event in _PATHS:
        descriptors = args[_PATHS[event]:] if event != "os.mkdir" else args[2:]
        descriptors = [value for value in descriptors if isinstance(value, int)]
        for number in range(_PATHS[event]):
            descriptor = descriptors[number] if number < len(descriptors) and event not in ("os.chmod", "os.truncate") else -1
            _tell("write", _place(args[number], descriptor))
    elif event in _RUNS:
        _tell("run", event, repr(args)[:300])
    elif event == "ctypes.dlopen" and args[0] is not None:
        _tell("code", os.fsdecode(args[0]))
    elif event == "exec" and hasattr(args[0], "co_filename"):
        _tell("code", args[0].co_filename)


sys.addaudithook(_hook)
"""


@dataclass
class Watched:
    """A stage in a process that is watched. `directory` is where results go; `outside` holds what nobody may touch."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory = self.root / "claims/checkpoint"
        self.outside = self.root / "outside"
        for name in ("site", "tmp", "claims", "outside"):
            (self.root / name).mkdir()
        (self.root / "site/sitecustomize.py").write_text(_HOOK)
        (self.outside / "precious.txt").write_text("precious")
        self._file = self.root / "audit.jsonl"
        self._before = self._seen()

    def run(self, stage: str, request: dict[str, Any]) -> Result:
        """Run a stage, and assert that it kept to its places."""
        env = {
            "PYTHONPATH": str(self.root / "site"),
            "AUDIT_FILE": str(self._file),
            "TMPDIR": str(self.root / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.env,
        }
        result = Stage(self.root, env).run(stage, request)
        self.check(result)
        return result

    def events(self) -> list[list[str]]:
        """What it did so far."""
        return [json.loads(line) for line in self._file.read_text().splitlines()]

    def check(self, result: Result) -> None:
        """It wrote to its places only, ran nothing, and nothing outside was read or changed."""
        assert self._seen() == self._before, result.log
        allowed = [self.root / name for name in ("claims", "tmp", "home", "hf", "termination-log")]
        for event in self.events():
            place = Path(event[1])
            match event[0]:
                case "write":
                    assert place.is_relative_to("/dev") or any(place.is_relative_to(path) for path in allowed), event
                    assert not place.is_relative_to(self.outside), event
                case "read":
                    assert not place.is_relative_to(self.outside), event
                case "code":
                    assert not place.is_relative_to(self.root) or place == self.root / "site/sitecustomize.py", event
                case _:
                    raise AssertionError(f"it ran something: {event}")

    def _seen(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.outside.iterdir()}


def test_the_watch_sees_what_is_done(tmp_path: Path) -> None:
    """Else it would prove nothing."""
    watched = Watched(tmp_path)
    code = """
import os, pathlib, pickle, shutil, subprocess, sys
root = pathlib.Path(sys.argv[1])
(root / "claims/link").symlink_to(root / "outside")
(root / "claims/link/new").write_text("x")
os.rename(root / "claims/link/new", root / "outside/newer")
(root / "made").mkdir()
(root / "made/file").touch()
shutil.rmtree(root / "made")
subprocess.run(["true"])
pickle.loads(b"cos\\nsystem\\n(S'true'\\ntR.")
(root / "outside/precious.txt").read_text()
"""
    import subprocess  # noqa: PLC0415 - this test alone

    env = {"PYTHONPATH": str(tmp_path / "site"), "AUDIT_FILE": str(tmp_path / "audit.jsonl"), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=env, check=True, timeout=60)
    events = watched.events()
    for place in ("outside/new", "outside/newer", "made", "made/file"):
        assert ["write", str(tmp_path / place)] in events, place
    assert ["read", str(tmp_path / "outside/precious.txt")] in events
    assert {event[1] for event in events if event[0] == "run"} >= {"subprocess.Popen", "pickle.find_class", "os.system"}
