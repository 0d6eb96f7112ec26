"""A download that was killed goes on where it was, and nothing that is left on the disk is believed without its hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_builder_support import COMMIT, FakeHub, Repo, Stage, model_files, outcome, safetensors, wait_for
from trtllm_operator.builder import download, fetch
from trtllm_operator.builder.files import Entry

SIZE = 13 * 2**20
HELD = 12 * 2**20
WHOLE = safetensors(SIZE)
NAME = "model.safetensors"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub().running() as running:
        running.repos["org/model"] = Repo(model_files(SIZE))
        yield running


def request(hub: FakeHub, directory: Path) -> dict[str, Any]:
    return {"source": hub.source("org/model", COMMIT), "bytes": 1, "directory": str(directory)}


def parts(directory: Path) -> list[Path]:
    return list((directory / "files" / fetch._PARTS).glob("*"))


def part(directory: Path, content: bytes) -> Path:
    """What an earlier try left of the weights."""
    path = directory / "files" / fetch._PARTS / download.part_name(Entry(NAME, len(WHOLE)), hashlib.sha256(WHOLE).hexdigest())
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def gets(hub: FakeHub) -> list[tuple[str, str | None]]:
    """Downloads: file and range."""
    return [(path.rsplit("/", 1)[-1], asked) for command, path, asked in hub.requests if command == "GET" and "/resolve/" in path]


def weights(hub: FakeHub) -> list[str | None]:
    """Ranges of the weights that were asked for."""
    return [asked for name, asked in gets(hub) if name == NAME]


def test_killed_and_resumed(hub: FakeHub, tmp_path: Path) -> None:
    hub.hold_after = HELD
    stage, directory = Stage(tmp_path), tmp_path / "checkpoint"
    process = stage.start("fetch", request(hub, directory))
    wait_for(lambda: any(path.stat().st_size >= HELD - 2**20 for path in parts(directory)), "most of the weights on the disk")
    process.kill()
    process.communicate(timeout=10)
    assert not (directory / "manifest.json").exists()
    there = parts(directory)[0].stat().st_size
    hub.hold_after = None
    hub.go_on.set()
    hub.requests.clear()
    assert stage.run("fetch", request(hub, directory)).report["ok"]
    assert gets(hub) == [(NAME, f"bytes={there}-")], "neither what was finished nor what was begun is fetched again"
    assert (directory / "files" / NAME).read_bytes() == WHOLE
    assert {path.name for path in (directory / "files").iterdir()} == set(model_files()), "no unfinished file is left"


def test_a_line_that_breaks_is_continued_in_the_same_run(hub: FakeHub, tmp_path: Path) -> None:
    hub.break_after = [HELD]
    assert outcome("fetch", request(hub, tmp_path / "checkpoint")).report["ok"]
    assert weights(hub) == [None, f"bytes={HELD}-"]
    assert (tmp_path / "checkpoint/files" / NAME).read_bytes() == WHOLE


def test_a_part_of_another_content_is_thrown_away(hub: FakeHub, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoint"
    old = part(directory, WHOLE[:HELD])
    hub.repos["org/model"].files[NAME] = safetensors(SIZE, seed=2)
    assert outcome("fetch", request(hub, directory)).report["ok"]
    assert weights(hub) == [None]
    assert not old.exists()
    assert (directory / "files" / NAME).read_bytes() == safetensors(SIZE, seed=2)


def test_a_part_longer_than_the_file_is_thrown_away(hub: FakeHub, tmp_path: Path) -> None:
    part(tmp_path / "checkpoint", WHOLE + b"x")
    assert outcome("fetch", request(hub, tmp_path / "checkpoint")).report["ok"]
    assert weights(hub) == [None]
    assert (tmp_path / "checkpoint/files" / NAME).read_bytes() == WHOLE


def test_a_part_that_is_the_whole_is_not_fetched(hub: FakeHub, tmp_path: Path) -> None:
    part(tmp_path / "checkpoint", WHOLE)
    assert outcome("fetch", request(hub, tmp_path / "checkpoint")).report["ok"]
    assert weights(hub) == []


def test_a_damaged_part_is_noticed_and_fetched_once_more(hub: FakeHub, tmp_path: Path) -> None:
    part(tmp_path / "checkpoint", b"x" * HELD)
    assert outcome("fetch", request(hub, tmp_path / "checkpoint")).report["ok"]
    assert weights(hub) == [f"bytes={HELD}-", None]
    assert (tmp_path / "checkpoint/files" / NAME).read_bytes() == WHOLE


@pytest.mark.parametrize(("status", "asked"), [(200, [f"bytes={HELD}-"]), (416, [f"bytes={HELD}-", None])])
def test_a_server_that_does_not_know_ranges(hub: FakeHub, tmp_path: Path, status: int, asked: list[str | None]) -> None:
    part(tmp_path / "checkpoint", WHOLE[:HELD])
    hub.ranges = status
    assert outcome("fetch", request(hub, tmp_path / "checkpoint")).report["ok"]
    assert weights(hub) == asked
    assert (tmp_path / "checkpoint/files" / NAME).read_bytes() == WHOLE


def test_a_link_in_the_place_of_a_part_is_not_followed(hub: FakeHub, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path = part(tmp_path / "checkpoint", b"")
    path.unlink()
    path.symlink_to(victim)
    assert outcome("fetch", request(hub, tmp_path / "checkpoint")).report["ok"]
    assert victim.read_bytes() == b"precious"


def test_no_other_scheme_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(WHOLE)
    entry = Entry(NAME, len(WHOLE))
    monkeypatch.setattr(download, "_FRUITLESS", 1)
    address = download.Address(secret.as_uri(), {"Authorization": "x"})
    with pytest.raises(ConnectionError):
        download.fetch_all(tmp_path / "files", tmp_path / "parts", [(entry, "0" * 64)], lambda _: address)
    assert not (tmp_path / "files" / NAME).exists()


def test_a_token_stays_with_its_host(hub: FakeHub, tmp_path: Path) -> None:
    """The Hub sends downloads on to a host of others, by an address that is the permission."""
    with FakeHub().running() as elsewhere:
        elsewhere.repos["org/model"] = hub.repos["org/model"]
        hub.redirect = elsewhere.endpoint
        hub.repos["org/model"].token = token = "hf_abcdefghijklmnopqrstuvwxyz"
        elsewhere.repos["org/model"] = Repo(hub.repos["org/model"].files)
        assert outcome("fetch", request(hub, tmp_path / "checkpoint"), HF_TOKEN=token).report["ok"]
        assert weights(elsewhere) == [None]
        assert elsewhere.tokens == {None}
