"""What a hostile image or a hostile model leaves on a claim: publish takes plain files only, and nothing of it is ever executed on the whole
way from the repository to the verified artifact.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from images.simulator import testing

from model_hub.tiny_llama import files as tiny_llama
from tests.unit.test_builder_publish import Claims
from tests.unit.test_builder_simulator import RESOURCE, Flow
from tests.unit.test_builder_support import FakeHub, Repo
from tests.unit.test_hostile_model import bombs
from trtllm_operator.desired import requests


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    return Claims(tmp_path)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Something that is nobody's business, and is as it was afterwards."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "precious.txt").write_text("precious")
    yield directory
    assert [path.name for path in directory.iterdir()] == ["precious.txt"]
    assert (directory / "precious.txt").read_text() == "precious"


def _link(place: str, target: str, *, directory: bool = False) -> Callable[[Path, Path], None]:
    def plant(attempt: Path, outside: Path) -> None:
        path = attempt / place
        path.unlink(missing_ok=True)
        path.symlink_to(outside / target, target_is_directory=directory)

    return plant


def _hard(attempt: Path, outside: Path) -> None:
    (attempt / "engine/extra").hardlink_to(outside / "precious.txt")


def _fifo(attempt: Path, outside: Path) -> None:
    del outside
    os.mkfifo(attempt / "engine/extra")


PLANTS: dict[str, Callable[[Path, Path], None]] = {
    "rank": _link("engine/rank0.engine", "precious.txt"),
    "config": _link("engine/config.json", "precious.txt"),
    "extra": _link("engine/extra", "precious.txt"),
    "directory": _link("engine/extra", "", directory=True),
    "loop": _link("engine/extra", "../engine", directory=True),
    "absolute": _link("engine/extra", "/etc/passwd"),
    "hard": _hard,
    "fifo": _fifo,
}


@pytest.mark.parametrize("kind", PLANTS)
def test_an_engine_is_plain_files(claims: Claims, outside: Path, kind: str) -> None:
    attempt = claims.attempt(1)
    PLANTS[kind](attempt, outside)
    result = claims.engine()
    assert result.reason in ("NoEngineProduced", "InvalidModel")
    assert not (claims.directory / "manifest.json").exists()


@pytest.mark.parametrize("place", ["attempts", "attempts/1"])
def test_attempts_behind_a_link_are_none(claims: Claims, tmp_path: Path, place: str) -> None:
    attempt = claims.attempt(1)
    elsewhere = tmp_path / "elsewhere"
    (claims.directory / place).rename(elsewhere)
    (claims.directory / place).symlink_to(elsewhere, target_is_directory=True)
    before = sorted(path.relative_to(elsewhere).as_posix() for path in elsewhere.rglob("*"))
    assert claims.engine().reason == "NoEngineProduced"
    assert sorted(path.relative_to(elsewhere).as_posix() for path in elsewhere.rglob("*")) == before
    assert attempt.name == "1"


def test_a_link_in_the_place_of_the_artifact_is_not_followed(claims: Claims, outside: Path) -> None:
    claims.attempt(1)
    (claims.directory / "artifact").symlink_to(outside, target_is_directory=True)
    claims.engine()
    assert not (claims.directory / "manifest.json").exists()


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "config.json"])
def test_a_link_among_the_tokenizers_files_is_refused(claims: Claims, outside: Path, name: str) -> None:
    claims.attempt(1)
    path = claims.checkpoint / "files" / name
    path.unlink()
    path.symlink_to(outside / "precious.txt")
    assert claims.engine().reason == "InvalidModel"
    assert claims.hf().reason == "EngineCorrupt"


def test_links_in_the_place_of_a_partial_manifest_are_not_followed(claims: Claims, outside: Path) -> None:
    claims.attempt(1)
    (claims.directory / f".manifest.json.{os.getpid()}.partial").symlink_to(outside / "precious.txt")
    assert not claims.engine().report["ok"]
    assert claims.engine().report["ok"], "the link is gone, and the next try works"


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_what_is_no_plain_manifest_is_none(claims: Claims, outside: Path, kind: str) -> None:
    """A pipe would be waited for, for ever."""
    claims.attempt(1)
    place = claims.directory / "manifest.json"
    place.symlink_to(outside / "precious.txt") if kind == "link" else os.mkfifo(place)
    assert claims.engine().report["ok"]
    assert place.is_file()
    assert not place.is_symlink()


class _At:
    """Where the hub of a `Flow` is."""

    def __init__(self, url: str) -> None:
        self.url = url


@pytest.mark.parametrize("version", ["1.2.1", "1.3.0rc29"], ids=["TensorRTEngine", "HFCheckpoint"])
def test_code_that_a_model_brings_is_never_executed(tmp_path: Path, version: str) -> None:
    """From the repository to the verified artifact, with the simulator as TensorRT-LLM: `auto_map`, scripts and pickles do nothing."""
    canary = tmp_path / "canary"
    simulator = testing.Simulator(version, tmp_path / "simulator", {"SIMULATOR_GPUS": "2"})
    contents = {**tiny_llama.repository(2), **bombs(canary)}
    evil = {"auto_map": {"AutoConfig": "modeling_evil.C", "AutoModelForCausalLM": "evil/other--modeling_evil.M"}, "trust_remote_code": True}
    for name in ("config.json", "tokenizer_config.json"):
        contents[name] = json.dumps({**json.loads(contents.get(name, b"{}")), **evil}).encode()
    with FakeHub().running() as hub:
        hub.repos["evil/llama"] = Repo(contents)
        flow = Flow(tmp_path / "pod", cast("testing.Server", _At(hub.endpoint)), simulator, "evil/llama")
        flow.root.mkdir()
        if version == "1.2.1":
            planned, built = flow.until_build()
            assert built.report["ok"], built.log
        else:
            planned = flow.planned(flow.resolve().facts)
            assert flow.stage(requests.fetch(planned.spec, RESOURCE, planned.checkpoint)).report["ok"]
        published, verified = flow.publish_and_verify(planned)
        assert published.report["ok"], published.report
        assert verified.report["ok"], verified.log
    assert not canary.exists()
    brought = {path.name for path in tmp_path.glob("pod/*/**/*") if path.is_file()} & {name.rsplit("/", 1)[-1] for name in bombs(canary)}
    assert brought == set()
