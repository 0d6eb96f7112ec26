"""resolve and fetch against a hub on loopback, through the real huggingface_hub and the real zipapp."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_builder_support import COMMIT, FakeHub, Repo, Stage, model_files, outcome, safetensors, wait_for, write_tree

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub().running() as running:
        running.repos["org/model"] = Repo(model_files())
        yield running


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def fetch_request(hub: FakeHub, directory: Path, **more: Any) -> dict[str, Any]:
    return {"source": hub.source("org/model", COMMIT, **more), "bytes": 1, "directory": str(directory)}


def names(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


class TestResolve:
    def test_facts(self, hub: FakeHub, stage: Stage) -> None:
        files = model_files()
        files |= {
            "pytorch_model.bin": b"\x80\x02pickle",
            "modeling.py": b"print()",
            "original/consolidated.00.pth": b"x",
            ".gitattributes": b"x",
        }
        hub.repos["org/model"] = Repo(files)
        facts = stage.run("resolve", {"source": hub.source("org/model")}).facts
        assert facts == {
            "revision": COMMIT,
            "bytes": sum(len(data) for data in model_files().values()),
            "files": 5,
            "architecture": "LlamaForCausalLM",
            "dtype": "bfloat16",
            "layers": 2,
            "hiddenSize": 64,
            "attentionHeads": 4,
            "kvHeads": 2,
            "headDim": 16,
            "vocabSize": 256,
            "maxPositionEmbeddings": 512,
        }

    def test_patterns(self, hub: FakeHub) -> None:
        facts = outcome(
            "resolve", {"source": hub.source("org/model", allowPatterns=["*.json", "*.safetensors"], ignorePatterns=["tok*"])}
        ).facts
        assert facts["files"] == 2

    def test_gated_without_token(self, hub: FakeHub) -> None:
        hub.repos["org/model"].token = TOKEN
        result = outcome("resolve", {"source": hub.source("org/model")})
        assert result.reason == "ModelAccessDenied"
        assert "No token was given" in result.report["message"]
        assert "org/model at revision main" in result.report["message"]
        assert hub.endpoint in result.report["message"]
        assert "tokenSecretRef" in result.report["message"]

    def test_gated_with_wrong_token(self, hub: FakeHub, stage: Stage) -> None:
        hub.repos["org/model"].token = TOKEN
        stage.env["HF_TOKEN"] = "hf_wrongwrongwrongwrong"
        result = stage.run("resolve", {"source": hub.source("org/model")})
        assert result.reason == "ModelAccessDenied"
        assert "does not open it" in result.report["message"]
        assert "hf_wrong" not in result.log + json.dumps(result.report)

    def test_gated_with_right_token(self, hub: FakeHub) -> None:
        hub.repos["org/model"].token = TOKEN
        assert outcome("resolve", {"source": hub.source("org/model")}, HF_TOKEN=TOKEN).facts["revision"] == COMMIT

    @pytest.mark.parametrize(
        ("repo", "revision", "reason", "word"),
        [
            ("org/absent", "main", "ModelNotFound", "source.huggingFace.repo"),
            ("org/model", "v9", "RevisionNotFound", "v9"),
            ("../../etc/passwd", "main", "ModelNotFound", "not a name"),
            ("org/model; rm -rf $(HOME)", "main", "ModelNotFound", "not a name"),
            ("org/model", "ma\nin", "RevisionNotFound", "not a revision"),
        ],
    )
    def test_not_found(self, hub: FakeHub, repo: str, revision: str, reason: str, word: str) -> None:
        result = outcome("resolve", {"source": hub.source(repo, revision)})
        assert result.reason == reason
        assert word in result.report["message"]

    def test_hub_unreachable(self) -> None:
        with socket.socket() as unused:  # bound, but nobody listens
            unused.bind(("127.0.0.1", 0))
            endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
            result = outcome("resolve", {"source": {"kind": "huggingFace", "repo": "org/model", "revision": "main", "endpoint": endpoint}})
        assert result.reason == "HubUnreachable"
        assert endpoint in result.report["message"]

    def test_hub_answers_with_errors(self, hub: FakeHub) -> None:
        hub.status = 500
        result = outcome("resolve", {"source": hub.source("org/model")})
        assert result.reason == "HubUnreachable"
        assert "500" in result.report["message"]

    @pytest.mark.parametrize(
        ("files", "word"),
        [
            ({"model.safetensors": safetensors()}, "no config.json"),
            ({"config.json": b"{}", "pytorch_model.bin": b"\x80\x02"}, "pytorch_model.bin"),
            ({"config.json": b"{}", "model.safetensors": safetensors()}, "architectures"),
            ({"config.json": b"not json", "model.safetensors": safetensors()}, "not valid JSON"),
            ({"config.json": b"[" * 100000, "model.safetensors": safetensors()}, "config.json"),
        ],
    )
    def test_invalid_model(self, hub: FakeHub, files: dict[str, bytes], word: str) -> None:
        hub.repos["org/model"] = Repo(files)
        result = outcome("resolve", {"source": hub.source("org/model")})
        assert result.reason == "InvalidModel"
        assert word in result.report["message"]

    @pytest.mark.parametrize("name", ["../evil.json", "/etc/passwd", "a/../../b", "a\nb.json"])
    def test_hostile_file_names(self, hub: FakeHub, name: str) -> None:
        hub.repos["org/model"].listed_extra = (name,)
        result = outcome("resolve", {"source": hub.source("org/model")})
        assert result.reason == "InvalidModel"
        assert "not allowed" in result.report["message"]


class TestFetch:
    def test_fetch_and_again(self, hub: FakeHub, stage: Stage, tmp_path: Path) -> None:
        directory = tmp_path / "checkpoint"
        result = stage.run("fetch", fetch_request(hub, directory))
        tree = model_files()
        assert result.facts["bytes"] == sum(map(len, tree.values()))
        assert result.facts["files"] == len(tree)
        assert {name: (directory / "files" / name).read_bytes() for name in tree} == tree
        assert names(directory / "files") == set(tree)
        manifest = json.loads((directory / "manifest.json").read_bytes())
        assert (manifest["manifestVersion"], manifest["kind"], manifest["revision"]) == (1, "Checkpoint", COMMIT)
        assert {file["path"] for file in manifest["files"]} == {f"files/{name}" for name in tree}
        assert result.progress[-1]["percent"] <= 100
        hub.requests.clear()
        assert stage.run("fetch", fetch_request(hub, directory)).facts["files"] == len(tree)
        assert hub.requests == []

    def test_damaged_checkpoint_is_fetched_again(self, hub: FakeHub, tmp_path: Path) -> None:
        directory = tmp_path / "checkpoint"
        outcome("fetch", fetch_request(hub, directory))
        (directory / "files/model.safetensors").write_bytes(b"short")
        (directory / "files/evil.json").write_bytes(b"{}")
        assert outcome("fetch", fetch_request(hub, directory)).report["ok"]
        assert (directory / "files/model.safetensors").read_bytes() == model_files()["model.safetensors"]
        assert "evil.json" not in names(directory / "files")

    def test_two_at_once(self, hub: FakeHub, stage: Stage, tmp_path: Path) -> None:
        hub.repos["org/model"] = Repo(model_files(2**20))
        directory = tmp_path / "checkpoint"
        stages = [stage, Stage(tmp_path, {"TERMINATION_LOG": str(tmp_path / "other-log")})]
        processes = [one.start("fetch", fetch_request(hub, directory)) for one in stages]
        for process in processes:
            output, _ = process.communicate(timeout=30)
            assert process.returncode == 0, output.decode()
        downloads = [path for command, path, _ in hub.requests if command == "GET" and path.endswith("model.safetensors")]
        assert len(downloads) == 1

    def test_terminated(self, hub: FakeHub, stage: Stage, tmp_path: Path) -> None:
        hub.repos["org/model"] = Repo(model_files(2**20))
        hub.hold_after = 1000
        process = stage.start("fetch", fetch_request(hub, tmp_path / "checkpoint"))
        wait_for(lambda: any(command == "GET" and path.endswith("model.safetensors") for command, path, _ in hub.requests), "a download")
        process.send_signal(signal.SIGTERM)
        assert stage.end(process).reason == "Evicted"

    def test_damaged_once_on_the_way(self, hub: FakeHub, tmp_path: Path) -> None:
        hub.damage = 1
        assert outcome("fetch", fetch_request(hub, tmp_path / "checkpoint")).report["ok"]
        assert (tmp_path / "checkpoint/files/model.safetensors").read_bytes() == safetensors()

    def test_always_damaged(self, hub: FakeHub, tmp_path: Path) -> None:
        hub.damage = 100
        result = outcome("fetch", fetch_request(hub, tmp_path / "checkpoint"))
        assert result.reason == "SourceChanged"
        assert "SHA-256" in result.report["message"]
        assert not (tmp_path / "checkpoint/manifest.json").exists()

    @pytest.mark.parametrize(
        ("name", "data", "word"),
        [
            ("model.safetensors", b"\x80\x04pickle", "not a safetensors"),
            ("extra.json", b"\x80\x04pickle", "pickle"),
            ("extra.model", b"PK\x03\x04zip", "archive"),
            ("model.safetensors.index.json", b'{"weight_map": {"w": "absent.safetensors"}}', "absent.safetensors"),
        ],
    )
    def test_files_in_disguise(self, hub: FakeHub, tmp_path: Path, name: str, data: bytes, word: str) -> None:
        hub.repos["org/model"].files[name] = data
        result = outcome("fetch", fetch_request(hub, tmp_path / "checkpoint"))
        assert result.reason == "InvalidModel"
        assert word in result.report["message"]
        assert not (tmp_path / "checkpoint/manifest.json").exists()

    def test_a_link_in_the_way_is_not_followed(self, hub: FakeHub, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_bytes(b"precious")
        (tmp_path / "checkpoint/files").mkdir(parents=True)
        (tmp_path / "checkpoint/files/config.json").symlink_to(victim)
        assert outcome("fetch", fetch_request(hub, tmp_path / "checkpoint")).report["ok"]
        assert victim.read_bytes() == b"precious"


class TestClaim:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        return write_tree(tmp_path / "source/models", {**model_files(4096), "run.py": b"print()"})

    def resolved(self, source: Path) -> dict[str, Any]:
        return outcome("resolve", {"source": {"kind": "pvc", "path": str(source)}}).facts

    def fetch(self, source: Path, revision: str, directory: Path) -> Any:
        request = {"source": {"kind": "pvc", "path": str(source), "revision": revision}, "bytes": 1, "directory": str(directory)}
        return outcome("fetch", request)

    def test_digest_and_copy(self, source: Path, tmp_path: Path) -> None:
        facts = self.resolved(source)
        assert len(facts["revision"]) == 64
        assert facts["files"] == 5
        os.utime(source / "config.json")
        assert self.resolved(source)["revision"] == facts["revision"]
        directory = tmp_path / "checkpoint"
        assert self.fetch(source, facts["revision"], directory).facts["files"] == 5
        assert names(directory / "files") == set(model_files())
        assert json.loads((directory / "manifest.json").read_bytes())["revision"] == facts["revision"]

    def test_changed_since(self, source: Path, tmp_path: Path) -> None:
        revision = self.resolved(source)["revision"]
        data = bytearray((source / "model.safetensors").read_bytes())
        data[-1] ^= 1
        (source / "model.safetensors").write_bytes(data)
        result = self.fetch(source, revision, tmp_path / "checkpoint")
        assert result.reason == "SourceChanged"
        assert not (tmp_path / "checkpoint/manifest.json").exists()

    def test_what_an_earlier_try_left_is_used_or_replaced(self, source: Path, tmp_path: Path) -> None:
        revision = self.resolved(source)["revision"]
        directory = tmp_path / "checkpoint"
        size = (source / "model.safetensors").stat().st_size
        write_tree(directory / "files", {"model.safetensors": b"x" * size, "left.json": b"{}"})
        assert self.fetch(source, revision, directory).report["ok"]
        assert (directory / "files/model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
        assert names(directory / "files") == set(model_files())

    @pytest.mark.parametrize("kind", ["symlink", "hardlink", "fifo"])
    def test_only_plain_files(self, source: Path, kind: str) -> None:
        target = source / "tokenizer.json"
        target.unlink()
        if kind == "symlink":
            target.symlink_to("/etc/passwd")
        elif kind == "hardlink":
            target.hardlink_to(source / "config.json")
        else:
            os.mkfifo(target)
        result = outcome("resolve", {"source": {"kind": "pvc", "path": str(source)}})
        assert result.reason == "InvalidModel"
        assert "plain files" in result.report["message"]

    def test_no_such_directory(self, tmp_path: Path) -> None:
        result = outcome("resolve", {"source": {"kind": "pvc", "path": str(tmp_path / "absent")}})
        assert result.reason == "InvalidModel"
        assert "source.pvc.path" in result.report["message"]
