"""build, with real programs in the place of nvidia-smi, convert_checkpoint.py and trtllm-build."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_builder_support import CSV, Result, Stage, executable, install_distribution, model_files, outcome, wait_for, write_tree
from trtllm_operator.builder import gpus, manifest
from trtllm_operator.builder.files import Hashed
from trtllm_operator.builder.manifest import Manifest

CONVERT = """
import os, pathlib, sys
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
out = pathlib.Path(arguments["--output_dir"])
out.mkdir(parents=True)
print("[TensorRT-LLM] TensorRT-LLM version: 1.2.1")
for rank in range(int(arguments["--tp_size"])):
    (out / f"rank{rank}.safetensors").write_bytes(b"w" * 100)
(out / "config.json").write_text("{}")
exec(os.environ.get("FAKE_CONVERT", ""))
"""

BUILD = """
import json, os, pathlib, signal, subprocess, sys, time
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
source, out = pathlib.Path(arguments["--checkpoint_dir"]), pathlib.Path(arguments["--output_dir"])
ranks = len(list(source.glob("rank*.safetensors")))
exec(os.environ.get("FAKE_BEFORE", ""))
out.mkdir(parents=True)
for rank in range(ranks):
    print(f"[TRT-LLM] [I] Serializing engine to {out}/rank{rank}.engine...", flush=True)
    (out / f"rank{rank}.engine").write_bytes(b"engine" * 10)
config = {"version": "1.2.1", "pretrained_config": {"mapping": {"world_size": ranks}}, "build_config": {"max_seq_len": 256, "max_batch_size": 4}}
(out / "config.json").write_text(json.dumps(config))
exec(os.environ.get("FAKE_AFTER", ""))
print("[TRT-LLM] [I] Total time of building all engines: 00:00:01")
"""


class World:
    """A node with a GPU, an image with TensorRT-LLM, a checkpoint, and a request."""

    def __init__(self, root: Path) -> None:
        self.stage = Stage(root, {"PYTHONPATH": str(root / "site"), "GPU_CSV": CSV})
        self.checkpoint = write_tree(root / "checkpoints/m/files", model_files())
        self.directory = root / "engines/m-0a1b2c3d4e"
        self.attempt = self.directory / "attempts/1"
        executable(
            root / "bin/nvidia-smi", "import os, sys\nprint(os.environ['GPU_CSV'], end='')\nsys.exit(int(os.environ.get('GPU_CODE', 0)))"
        )
        executable(root / "bin/python3", "import os, sys\nexec(compile(open(sys.argv.pop(1)).read(), 'script', 'exec'))")
        executable(root / "bin/trtllm-build", BUILD)
        (root / "convert_checkpoint.py").write_text(CONVERT)
        install_distribution(root / "site", "1.2.1")
        convert = ["python3", str(root / "convert_checkpoint.py"), "--model_dir", str(self.checkpoint)]
        self.request: dict[str, Any] = {
            "attempt": 1,
            "key": "k",
            "steps": [
                {"name": "preflight", "argv": list(gpus.QUERY)},
                {"name": "convert", "argv": [*convert, "--output_dir", str(self.attempt / "checkpoint"), "--tp_size", "2"]},
                {
                    "name": "build",
                    "argv": [
                        "trtllm-build",
                        "--checkpoint_dir",
                        str(self.attempt / "checkpoint"),
                        "--output_dir",
                        str(self.attempt / "engine"),
                    ],
                },
            ],
            "expect": {"gpus": 1, "computeCapability": "9.0", "runtimeVersion": "1.2.1"},
            "checkpoint": str(self.checkpoint),
            "directory": str(self.directory),
            "attemptDirectory": str(self.attempt),
            "bytes": 1000,
            "ranks": 2,
        }

    def run(self, **env: str) -> Result:
        self.stage.env |= env
        return self.stage.run("build", self.request)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_build(world: World) -> None:
    (world.attempt / "engine").mkdir(parents=True)
    (world.attempt / "engine/rank7.engine").write_bytes(b"of an earlier try")
    result = world.run()
    assert result.facts["gpus"] == [
        {"name": "NVIDIA H100 80GB HBM3", "computeCapability": "9.0", "memoryMiB": 81559, "driver": "570.86.15", "mig": "Disabled"}
    ]
    assert result.facts["runtimeVersion"] == "1.2.1"
    assert set(result.facts["seconds"]) == {"convert", "build"}
    assert {path.name for path in (world.attempt / "engine").iterdir()} == {"config.json", "rank0.engine", "rank1.engine"}
    assert not (world.attempt / "checkpoint").exists(), "the converted checkpoint takes room"
    assert "Serializing engine to" in result.log, "output is passed through"
    percents = [line["percent"] for line in result.progress]
    assert percents == sorted(percents)
    assert (world.stage.root / "home").is_dir(), "programs need their HOME"


def test_again_without_the_work(world: World) -> None:
    first = world.run()
    second = world.run(FAKE_CONVERT="raise SystemExit('must not run')")
    assert second.facts == first.facts


def test_attempts_that_were_not_finished_are_removed(world: World) -> None:
    write_tree(world.directory / "attempts", {"7/engine/rank0.engine": b"x"})
    world.run()
    assert [path.name for path in (world.directory / "attempts").iterdir()] == ["1"]


class TestPublished:
    @pytest.fixture
    def published(self, world: World) -> Path:
        path = world.directory / "artifact/engine/rank0.engine"
        write_tree(world.directory, {"artifact/engine/rank0.engine": b"engine"})
        digest = __import__("hashlib").sha256(b"engine").hexdigest()
        built = {"gpus": [], "runtimeVersion": "1.2.1", "seconds": {"build": 5}}
        manifest.write(
            world.directory / "manifest.json",
            Manifest("TensorRTEngine", "r", (Hashed("artifact/engine/rank0.engine", 6, digest),), "k", {"build": built}),
        )
        return path

    def test_is_not_built_again(self, world: World, published: Path) -> None:
        assert published.is_file()
        assert world.run(FAKE_CONVERT="raise SystemExit('must not run')").facts["seconds"] == {"build": 5}

    def test_is_built_again_if_damaged(self, world: World, published: Path) -> None:
        published.write_bytes(b"damage")
        assert "convert" in world.run().facts["seconds"]
        assert not (world.directory / "manifest.json").exists()


class TestPreflight:
    @pytest.mark.parametrize(
        ("csv", "reason", "word"),
        [
            ("", "GPUNotFound", "sees no GPU"),
            ("No devices were found\n", "GPUNotFound", "sees no GPU"),
            ("0, NVIDIA L4, GPU-1, 8.9, 23034, 22000, 570.86.15, [N/A]\n", "GPUMismatch", "NVIDIA L4 with compute capability 8.9"),
            (CSV + "1, NVIDIA A100, GPU-2, 8.0, 81559, 81000, 570.86.15, Disabled\n", "GPUMismatch", "GPU 1"),
        ],
    )
    def test_wrong_gpus(self, world: World, csv: str, reason: str, word: str) -> None:
        result = world.run(GPU_CSV=csv)
        assert result.reason == reason
        assert word in result.report["message"]
        assert not world.attempt.exists(), "nothing is done on the wrong GPU"

    def test_too_few(self, world: World) -> None:
        world.request["expect"]["gpus"] = 2
        result = world.run()
        assert result.reason == "GPUNotFound"
        assert "1 of 2" in result.report["message"]

    def test_slices_of_a_gpu_are_not_counted(self) -> None:
        gpus.check(gpus.parse([CSV.replace("Disabled", "Enabled")]), {"gpus": 2})

    def test_the_driver_does_not_answer(self, world: World) -> None:
        result = world.run(GPU_CSV="NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", GPU_CODE="9")
        assert result.reason == "GPUNotFound"
        assert "couldn't communicate" in result.report["message"]
        assert result.report["step"] == "preflight"

    def test_another_version(self, world: World) -> None:
        world.request["expect"]["runtimeVersion"] = "1.2.0"
        result = world.run()
        assert result.reason == "RuntimeVersionMismatch"
        assert "holds TensorRT-LLM 1.2.1, and runtime.version is 1.2.0" in result.report["message"]

    def test_no_tensorrt_llm(self, world: World) -> None:
        result = world.run(PYTHONPATH="")
        assert result.reason == "ToolNotFound"

    @pytest.mark.parametrize("name", ["bin/trtllm-build", "convert_checkpoint.py"])
    def test_a_program_is_missing(self, world: World, name: str) -> None:
        (world.stage.root / name).unlink()
        result = world.run()
        assert result.reason == "ToolNotFound"
        assert Path(name).name in result.report["message"]


class TestFailures:
    @pytest.mark.parametrize(
        ("env", "reason", "step"),
        [
            ({"FAKE_CONVERT": "raise ValueError('bad weights')"}, "ConvertFailed", "convert"),
            ({"FAKE_CONVERT": "os.kill(os.getpid(), 9)"}, "HostOutOfMemory", "convert"),
            (
                {
                    "FAKE_BEFORE": "print('Error Code 2: OutOfMemory (no further information)'); raise AssertionError('Engine building failed')"
                },
                "GPUOutOfMemory",
                "build",
            ),
            ({"FAKE_BEFORE": "open('/dev/full', 'wb', 0).write(b'x')"}, "DiskFull", "build"),
            (
                {"FAKE_BEFORE": "print('trtllm-build: error: unrecognized arguments: --tp_size', file=sys.stderr); sys.exit(2)"},
                "BadOptions",
                "build",
            ),
            ({"FAKE_BEFORE": "sys.exit(0)"}, "NoEngineProduced", "build"),
            ({"FAKE_AFTER": "(out / 'rank1.engine').unlink()"}, "NoEngineProduced", "build"),
            ({"FAKE_AFTER": "(out / 'rank1.engine').write_bytes(b'')"}, "NoEngineProduced", "build"),
            (
                {"FAKE_AFTER": "config['version'] = '1.2.0'; (out / 'config.json').write_text(json.dumps(config))"},
                "NoEngineProduced",
                "build",
            ),
            (
                {
                    "FAKE_AFTER": "config['pretrained_config']['mapping']['world_size'] = 1; (out / 'config.json').write_text(json.dumps(config))"
                },
                "NoEngineProduced",
                "build",
            ),
            ({"FAKE_AFTER": "(out / 'config.json').write_text('{')"}, "NoEngineProduced", "build"),
        ],
    )
    def test_classified(self, world: World, env: dict[str, str], reason: str, step: str) -> None:
        result = world.run(**env)
        assert result.reason == reason, result.log
        assert result.report["step"] == step
        assert not (world.attempt / "complete.json").exists()

    def test_no_room(self, world: World) -> None:
        world.request["bytes"] = 2**50
        result = world.run()
        assert result.reason == "DiskFull"
        assert "storage.size" in result.report["message"]

    def test_no_checkpoint(self, world: World) -> None:
        (world.checkpoint / "config.json").unlink()
        assert world.run().reason == "InternalError"

    def test_secrets_of_the_log(self, world: World) -> None:
        result = world.run(MY_SECRET="sesame-open", FAKE_CONVERT="print('it is sesame-open'); raise ValueError('sesame-open')")
        assert "sesame" not in result.log + json.dumps(result.report)


class TestSignals:
    def test_sigterm_reaches_the_program(self, world: World) -> None:
        mark = world.stage.root / "mark"
        world.stage.env["FAKE_BEFORE"] = (
            f"mark = pathlib.Path({str(mark)!r})\n"
            "signal.signal(signal.SIGTERM, lambda *_: (mark.write_text('terminated'), sys.exit(0)))\n"
            "mark.write_text('running'); signal.pause()"
        )
        process = world.stage.start("build", world.request)
        wait_for(lambda: mark.is_file() and mark.read_text() == "running", "the build runs")
        process.send_signal(signal.SIGTERM)
        result = world.stage.end(process)
        assert result.reason == "Evicted"
        assert result.report["step"] == "build"
        assert mark.read_text() == "terminated"

    def test_what_the_program_leaves_behind_is_ended(self, world: World) -> None:
        mark = world.stage.root / "pid"
        child = f"import os, pathlib, signal; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); signal.pause()"
        world.stage.env["FAKE_AFTER"] = (
            f"subprocess.Popen([sys.executable, '-IS', '-c', {child!r}])\nwhile not pathlib.Path({str(mark)!r}).is_file(): os.sched_yield()"
        )
        assert world.run().report["ok"]
        pid = int(mark.read_text())
        wait_for(lambda: not _alive(pid), "the process that was left behind is gone")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


def test_a_wrong_request() -> None:
    assert outcome("build", {"directory": "relative", "attemptDirectory": "/x"}).reason == "InternalError"
