"""publish and verify: manifests, idempotence, interruption, corruption."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_builder_support import COMMIT, CSV, Result, Stage, executable, install_distribution, model_files, outcome, write_tree
from trtllm_operator.builder import build, files, gpus, llmapi_smoke, manifest
from trtllm_operator.builder.manifest import Manifest

KEY = "0a1b2c3d4e5f"
FACTS = {"runtimeVersion": "1.2.1", "runtimeImage": "i", "computeCapability": "9.0", "tensorParallel": 2, "pipelineParallel": 1}
ENGINE = {
    "version": "1.2.1",
    "pretrained_config": {"mapping": {"world_size": 2}},
    "build_config": {"max_seq_len": 256, "max_batch_size": 4},
}


class Claims:
    def __init__(self, root: Path) -> None:
        self.checkpoint = root / "checkpoints/m-src"
        self.directory = root / f"engines/m-{KEY[:10]}"
        tree = {f"files/{name}": data for name, data in {**model_files(), "special_tokens_map.json": b"{}", "vocab.json": b"{}"}.items()}
        write_tree(self.checkpoint, tree)
        hashed = files.hash_all(self.checkpoint, files.scan(self.checkpoint), lambda _: None)
        manifest.write(self.checkpoint / "manifest.json", Manifest("Checkpoint", COMMIT, tuple(hashed)))

    def attempt(self, number: int, content: bytes = b"engine", *, complete: bool = True) -> Path:
        attempt = self.directory / f"attempts/{number}"
        tree = {f"engine/rank{rank}.engine": content for rank in range(2)}
        write_tree(attempt, {**tree, "engine/config.json": json.dumps(ENGINE).encode()})
        if complete:
            (attempt / build.COMPLETE).write_text(json.dumps({"facts": {"gpus": [], "seconds": {"build": 9}}}))
        return attempt

    def engine(self, **more: Any) -> Result:
        request = {
            "recipe": "TensorRTEngine",
            "build": self.directory.name,
            "key": KEY,
            "checkpoint": str(self.checkpoint / "files"),
            "directory": str(self.directory),
            "attempts": str(self.directory / "attempts"),
            "ranks": 2,
            "facts": FACTS,
        }
        return outcome("publish", {**request, **more})

    def hf(self) -> Result:
        request = {"recipe": "HFCheckpoint", "build": "b", "key": KEY, "checkpoint": str(self.checkpoint / "files")}
        return outcome("publish", {**request, "directory": str(self.checkpoint), "ranks": 1, "facts": FACTS})


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    return Claims(tmp_path)


class TestEngine:
    def test_publish(self, claims: Claims) -> None:
        claims.attempt(1, b"older")
        claims.attempt(10)
        claims.attempt(11, b"newest, not complete", complete=False)
        result = claims.engine()
        data = (claims.directory / "manifest.json").read_bytes()
        listed = json.loads(data)["files"]
        assert result.facts == {
            "kind": "TensorRTEngine",
            "path": f"{claims.directory.name}/artifact/engine",
            "tokenizerPath": f"{claims.directory.name}/artifact/tokenizer",
            "bytes": sum(file["bytes"] for file in listed),
            "files": len(listed),
            "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
            "maxSeqLen": 256,
            "maxBatchSize": 4,
        }
        assert {file["path"] for file in listed} == {
            *(f"artifact/engine/{name}" for name in ("config.json", "rank0.engine", "rank1.engine")),
            *(
                f"artifact/tokenizer/{name}"
                for name in ("config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.json")
            ),
        }
        for file in listed:
            assert hashlib.sha256((claims.directory / file["path"]).read_bytes()).hexdigest() == file["sha256"]
        said = json.loads(data)
        assert (said["kind"], said["key"], said["revision"]) == ("TensorRTEngine", KEY, COMMIT)
        assert said["facts"]["build"]["seconds"] == {"build": 9}
        assert not (claims.directory / "attempts").exists()

    def test_again(self, claims: Claims) -> None:
        claims.attempt(1)
        first = claims.engine()
        assert claims.engine().facts == first.facts

    def test_again_finds_damage(self, claims: Claims) -> None:
        claims.attempt(1)
        claims.engine()
        (claims.directory / "artifact/engine/rank0.engine").write_bytes(b"damage")
        result = claims.engine()
        assert result.reason == "EngineCorrupt"
        assert "rank0.engine" in result.report["message"]

    def test_nothing_to_publish(self, claims: Claims) -> None:
        claims.attempt(1, complete=False)
        assert claims.engine().reason == "NoEngineProduced"

    def test_wrong_ranks(self, claims: Claims) -> None:
        claims.attempt(1)
        assert claims.engine(ranks=4).reason == "NoEngineProduced"

    @pytest.mark.parametrize("stopped_at", ["write", "hash_all", "copy_all", "sync_directory"])
    def test_interrupted_anywhere(self, claims: Claims, stopped_at: str) -> None:
        """A stage may be killed between any two steps; the next one finishes."""
        claims.attempt(1)

        def stop(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"trtllm_operator.builder.{'manifest' if stopped_at == 'write' else 'files'}.{stopped_at}", stop)
            with pytest.raises(KeyboardInterrupt):
                claims.engine()
        assert not (claims.directory / "manifest.json").exists()
        assert claims.engine().facts["files"] == 8

    @pytest.mark.parametrize("key", ["../x", "a/b", ""])
    def test_hostile_key(self, claims: Claims, key: str) -> None:
        assert claims.engine(key=key).reason == "InternalError"


class TestCheckpoint:
    def test_publish_and_again(self, claims: Claims) -> None:
        result = claims.hf()
        path = claims.checkpoint / f"artifact-{KEY}.json"
        assert result.facts["kind"] == "HFCheckpoint"
        assert result.facts["path"] == "m-src/files"
        assert result.facts["maxSeqLen"] == 512
        assert result.facts["digest"] == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        assert "tokenizerPath" not in result.facts
        assert claims.hf().facts == result.facts

    def test_damaged(self, claims: Claims) -> None:
        path = claims.checkpoint / "files/model.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        result = claims.hf()
        assert result.reason == "EngineCorrupt"
        assert not (claims.checkpoint / "manifest.json").exists(), "the next fetch must look again"

    def test_something_added(self, claims: Claims) -> None:
        (claims.checkpoint / "files/modeling.py").write_text("print()")
        assert claims.hf().reason == "EngineCorrupt"

    def test_not_fetched(self, claims: Claims) -> None:
        (claims.checkpoint / "manifest.json").unlink()
        assert claims.hf().reason == "InternalError"


class TestManifest:
    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"{}",
            b"[]",
            b'{"manifestVersion": 2}',
            b'{"manifestVersion": 1, "kind": "x", "revision": "r", "files": []}',
            b'{"manifestVersion": 1, "kind": "x", "revision": "r", "files": [{"path": "../x", "bytes": 1, "sha256": ""}]}',
            b'{"manifestVersion": 1, "kind": "x", "revision": "r", "files": [{"path": "/x", "bytes": 1, "sha256": ""}]}',
            b"[" * 100000,
        ],
    )
    def test_what_is_no_manifest(self, tmp_path: Path, text: bytes) -> None:
        (tmp_path / "manifest.json").write_bytes(text)
        assert manifest.read(tmp_path / "manifest.json") is None

    def test_round_trip(self, claims: Claims) -> None:
        found = manifest.read(claims.checkpoint / "manifest.json")
        assert found is not None
        assert found[0].dump() == (claims.checkpoint / "manifest.json").read_bytes()

    def test_a_link_in_the_tree_is_a_difference(self, claims: Claims) -> None:
        found = manifest.read(claims.checkpoint / "manifest.json")
        assert found is not None
        (claims.checkpoint / "files/evil").symlink_to("/etc/passwd")
        assert "symbolic link" in str(manifest.content_difference(claims.checkpoint, found[0], lambda _: None))


FAKE_LLM = """
import json, os
class SamplingParams:
    def __init__(self, max_tokens): self.max_tokens = max_tokens
class LLM:
    kind = "pytorch"
    def __init__(self, model, tokenizer, **options):
        print(json.dumps({"kind": self.kind, "model": model, "tokenizer": tokenizer, **options}))
        if "FAKE_LOAD" in os.environ:
            print(os.environ["FAKE_LOAD"])
            raise RuntimeError("Executor worker returned error")
    def generate(self, prompts, sampling):
        print("prompt", prompts, sampling.max_tokens)
        tokens = [1, 2, 3] if os.environ.get("FAKE_TEXT") != "" else []
        part = type("Part", (), {"text": os.environ.get("FAKE_TEXT", " a\\nhello"), "token_ids": tokens})
        return [type("Out", (), {"outputs": [part]})]
    def shutdown(self): print("shutdown")
"""


class TestVerify:
    @pytest.fixture
    def world(self, tmp_path: Path) -> tuple[Stage, dict[str, Any], Claims]:
        claims = Claims(tmp_path)
        claims.attempt(1)
        published = claims.engine().facts
        executable(tmp_path / "bin/nvidia-smi", f"print({CSV + CSV!r}, end='')")
        (tmp_path / "bin/python3").symlink_to(shutil.which("python3", path=os.defpath) or "/usr/bin/python3")
        install_distribution(tmp_path / "site", "1.2.1")
        engine_class = "from tensorrt_llm import LLM as Base\nclass LLM(Base): kind = 'tensorrt'\n"
        write_tree(
            tmp_path / "site",
            {"tensorrt_llm/__init__.py": FAKE_LLM.encode(), "tensorrt_llm/_tensorrt_engine/__init__.py": engine_class.encode()},
        )
        smoke = tmp_path / "llmapi_smoke.py"
        shutil.copyfile(llmapi_smoke.__file__, smoke)
        argv = ["python3", str(smoke), "--model", "M", "--tokenizer", "T", "--backend", "tensorrt", "--tensor-parallel-size", "2"]
        request = {
            "steps": [
                {"name": "preflight", "argv": list(gpus.QUERY)},
                {"name": "smoke", "argv": [*argv, "--max-tokens", "3", "--prompt=-x $(id)"]},
            ],
            "expect": {"gpus": 2, "computeCapability": "9.0", "runtimeVersion": "1.2.1"},
            "directory": str(claims.directory),
            "manifest": str(claims.directory / "manifest.json"),
            "digest": published["digest"],
        }
        return Stage(tmp_path, {"PYTHONPATH": str(tmp_path / "site")}), request, claims

    def test_verify(self, world: tuple[Stage, dict[str, Any], Claims]) -> None:
        stage, request, _ = world
        result = stage.run("verify", request)
        assert result.facts["output"] == " a\nhello"
        assert result.facts["tokens"] == 3
        assert len(result.facts["gpus"]) == 2
        assert '{"kind": "tensorrt", "model": "M", "tokenizer": "T", "tensor_parallel_size": 2, "pipeline_parallel_size": 1}' in result.log
        assert "prompt ['-x $(id)'] 3" in result.log
        assert "shutdown" in result.log

    def test_pytorch_gets_limits(self, world: tuple[Stage, dict[str, Any], Claims]) -> None:
        stage, request, _ = world
        argv = request["steps"][1]["argv"]
        argv[argv.index("tensorrt")] = "pytorch"
        argv += ["--max-seq-len", "64", "--max-batch-size", "2", "--max-num-tokens", "128"]
        result = stage.run("verify", request)
        assert result.report["ok"]
        assert '"kind": "pytorch"' in result.log
        assert '"max_batch_size": 2, "max_num_tokens": 128, "max_seq_len": 64' in result.log

    @pytest.mark.parametrize(
        ("env", "reason"),
        [
            ({"FAKE_TEXT": ""}, "VerifyFailed"),
            ({"FAKE_TEXT": "  "}, "VerifyFailed"),
            ({"FAKE_LOAD": "torch.OutOfMemoryError: CUDA out of memory."}, "GPUOutOfMemory"),
            ({"FAKE_LOAD": "something else"}, "VerifyFailed"),
        ],
    )
    def test_failures(self, world: tuple[Stage, dict[str, Any], Claims], env: dict[str, str], reason: str) -> None:
        stage, request, _ = world
        stage.env |= env
        result = stage.run("verify", request)
        assert result.reason == reason
        assert result.report["step"] == "smoke"

    @pytest.mark.parametrize("damage", ["content", "size", "missing", "added", "manifest", "another manifest"])
    def test_corrupt_is_never_loaded(self, world: tuple[Stage, dict[str, Any], Claims], damage: str) -> None:
        """Faults 28 and 29."""
        stage, request, claims = world
        path = claims.directory / "artifact/engine/rank1.engine"
        match damage:
            case "content":
                path.write_bytes(b"enginE")
            case "size":
                path.write_bytes(b"engine2")
            case "missing":
                path.unlink()
            case "added":
                (path.parent / "rank2.engine").write_bytes(b"x")
            case "manifest":
                (claims.directory / "manifest.json").write_bytes(b"{")
            case _:
                path = claims.directory / "manifest.json"
                path.write_bytes(path.read_bytes().replace(KEY.encode(), b"ffffffffffff"))
        result = stage.run("verify", request)
        assert result.reason == "EngineCorrupt"
        assert '"model"' not in result.log
