"""The stage program killed, and refused by its volume, at every place: what is not complete is never taken for an engine, and the next try ends well."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_builder_build import BUILD, World
from tests.unit.test_builder_publish import ENGINE, FACTS, KEY, Claims
from tests.unit.test_builder_support import executable, outcome, write_tree
from trtllm_operator.builder import engine, manifest
from trtllm_operator.builder.build import COMPLETE

# Runs publish again and again in copies of one claim, each killed (SIGKILL) before another of its changes to the file system, and looks at what it leaves.
EACH_CHANGE = """
import json, os, shutil, signal, sys
from pathlib import Path
from trtllm_operator.builder import cli, manifest
from trtllm_operator.builder.stopping import Stop

origin, request = Path(sys.argv[1]), sys.argv[2]
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate"}

def publish(root, nth):
    count = 0
    def hook(event, arguments):
        nonlocal count
        if event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            count += 1
            if count == nth:
                os.kill(os.getpid(), signal.SIGKILL)
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.addaudithook(hook)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    said = cli.outcome("publish", request.replace(str(origin), str(root)), Stop())
    os._exit(0 if said["ok"] else 3)

def whole(root):
    path = next(root.glob("engines/*/")) / manifest.NAME
    found = manifest.read(path)
    if path.exists():
        assert found is not None, "half a manifest"
        wrong = manifest.content_difference(path.parent, found[0], lambda _: None)
        assert wrong is None, wrong
    return found

nth, published = 0, 0
while True:
    nth += 1
    root = origin.with_name(f"{origin.name}-{nth}")
    shutil.copytree(origin, root)
    code = publish(root, nth)
    assert code in (0, -signal.SIGKILL), (nth, code)
    published += whole(root) is not None
    if code == 0:
        break
    assert publish(root, 0) == 0, nth
    assert whole(root) is not None, nth
    assert not list(root.glob("engines/*/attempts")), nth
    shutil.rmtree(root)
print(json.dumps({"points": nth - 1, "published": published}))
"""


def test_publish_killed_before_each_of_its_changes(tmp_path: Path) -> None:
    """Fault 28."""
    claims = Claims(tmp_path / "claims")
    claims.attempt(1)
    request = {
        "stage": "publish",
        "resource": "ns/name",
        "recipe": "TensorRTEngine",
        "build": claims.directory.name,
        "key": KEY,
        "checkpoint": str(claims.checkpoint / "files"),
        "directory": str(claims.directory),
        "attempts": str(claims.directory / "attempts"),
        "ranks": 2,
        "facts": FACTS,
    }
    argv = [sys.executable, "-c", EACH_CHANGE, str(tmp_path / "claims"), json.dumps(request)]
    source = Path(manifest.__file__).parents[2]
    ended = subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(source)}, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout.splitlines()[-1])
    assert said["points"] >= 15
    assert said["published"] >= 2, "killed after the manifest, while it cleans up, it is published"


KILL = "os.kill(os.getppid(), signal.SIGKILL); os.kill(os.getpid(), signal.SIGKILL)"
PLACES = {
    "before the first file": ("FAKE_BEFORE", KILL),
    "after rank 0": ("FAKE_EACH", f"if rank == 0:\n    {KILL}"),
    "in the middle of rank 1": ("FAKE_EACH", f"if rank == 1:\n    (out / 'rank1.engine').write_bytes(b'eng')\n    {KILL}"),
    "after rank 1": ("FAKE_EACH", f"if rank == 1:\n    {KILL}"),
    "in the middle of config.json": ("FAKE_AFTER", f"(out / 'config.json').write_text('{{'); {KILL}"),
    "after the last file": ("FAKE_AFTER", KILL),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_builder_killed_at_each_file(tmp_path: Path, place: str) -> None:
    """Fault 28. Nothing that was begun counts, whole as it may look; a new try starts from nothing."""
    world = World(tmp_path)
    marker = '(out / f"rank{rank}.engine").write_bytes(b"engine" * 10)\n'
    assert marker in BUILD
    executable(tmp_path / "bin/trtllm-build", BUILD.replace(marker, marker + '    exec(os.environ.get("FAKE_EACH", ""))\n'))
    name, code = PLACES[place]
    world.stage.env[name] = code
    process = world.stage.start("build", world.request)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not (world.attempt / COMPLETE).exists()
    request = {
        "recipe": "TensorRTEngine",
        "build": world.directory.name,
        "key": "k",
        "checkpoint": str(world.checkpoint),
        "directory": str(world.directory),
        "attempts": str(world.attempt.parent),
        "ranks": 2,
        "facts": FACTS,
    }
    assert outcome("publish", request).reason == "NoEngineProduced"
    assert not (world.directory / manifest.NAME).exists()
    del world.stage.env[name]
    assert world.run().report["ok"]
    assert outcome("publish", request).report["ok"]
    engine.check(world.directory / "artifact/engine", 2, "1.2.1")


class TestOtherKey:
    """What stands in a build's directory and is not that build's."""

    def test_publish_refuses_it(self, tmp_path: Path) -> None:
        """Fault 29."""
        claims = Claims(tmp_path)
        claims.attempt(1)
        assert claims.engine(key="ffff").report["ok"]
        claims.attempt(2)
        before = (claims.directory / manifest.NAME).read_bytes()
        refused = claims.engine()
        assert refused.reason == "EngineCorrupt"
        assert "ffff" in refused.report["message"]
        assert KEY in refused.report["message"]
        assert (claims.directory / manifest.NAME).read_bytes() == before

    def test_build_refuses_it_before_a_gpu_works(self, tmp_path: Path) -> None:
        """Fault 29."""
        world = World(tmp_path)
        assert world.run().report["ok"]
        claims = Claims(tmp_path / "other")
        claims.attempt(1)
        assert claims.engine().report["ok"]
        (claims.directory / "artifact").rename(world.directory / "artifact")
        (claims.directory / manifest.NAME).rename(world.directory / manifest.NAME)
        refused = world.run(FAKE_CONVERT="raise SystemExit('must not run')")
        assert refused.reason == "EngineCorrupt"
        assert KEY in refused.report["message"]
        assert (world.directory / manifest.NAME).exists(), "it is somebody's"


class TestNoRoom:
    def test_a_build_that_finds_no_room_leaves_none_of_its_files(self, tmp_path: Path) -> None:
        """Fault 27. What other builds have on the same claim stays."""
        world = World(tmp_path)
        other = write_tree(world.directory.parent / "other", {"artifact/engine/rank0.engine": b"engine", "manifest.json": b"{}"})
        full = "(out / 'rank1.engine').write_bytes(b'x' * 100); open('/dev/full', 'wb', 0).write(b'x')"
        result = world.run(FAKE_AFTER=full)
        assert result.reason == "DiskFull", result.log
        assert "storage.size" in result.report["message"]
        assert not world.attempt.exists()
        assert (other / "artifact/engine/rank0.engine").read_bytes() == b"engine"
        assert (other / "manifest.json").read_bytes() == b"{}"

    @pytest.mark.parametrize("where", ["os.fsync", "trtllm_operator.builder.files._copy"])
    def test_publish_without_room(self, tmp_path: Path, where: str) -> None:
        """Fault 27."""
        claims = Claims(tmp_path)
        claims.attempt(1)

        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(where, full)
            assert claims.engine().reason == "DiskFull"
        assert [path.name for path in claims.directory.iterdir() if path.is_file()] == [".lock"], "no manifest, and no part of one"
        assert claims.engine().report["ok"]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_volume_that_refuses_writes_is_named(tmp_path: Path, code: int) -> None:
    """Fault 27."""
    claims = Claims(tmp_path)
    claims.attempt(1)
    opened = os.open

    def refuse(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if str(path).endswith(".lock"):
            raise OSError(code, os.strerror(code), str(path))
        return opened(path, flags, *more, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", refuse)
        result = claims.engine()
    assert result.reason == "VolumeNotWritable"
    assert str(claims.directory) in result.report["message"]
    assert os.strerror(code) in result.report["message"]


def test_an_engine_of_another_version_is_not_published(tmp_path: Path) -> None:
    """Fault 29."""
    claims = Claims(tmp_path)
    attempt = claims.attempt(1)
    (attempt / "engine/config.json").write_text(json.dumps({**ENGINE, "version": "1.2.0"}))
    assert claims.engine().reason == "NoEngineProduced"
    assert not (claims.directory / manifest.NAME).exists()
