"""Model repositories and directories that are made to do harm, through the real stages. What is refused is refused with a reason that says
what to do; what is not refused is carried as data: nothing of it is executed, and nothing outside is read or written.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_builder_support import COMMIT, CONFIG, FakeHub, Repo, Result, model_files, outcome, safetensors, write_tree
from tests.unit.test_hostile_watch import Watched
from trtllm_operator.builder import files, selection

NAMES = [
    "../evil.json", "../../../../etc/cron.d/evil", "/etc/passwd", "a/../../b.json", "..", ".", "./a.json", "a//b.json", "a/", "/",
    "", "..\\evil.json", "C:\\evil.json", "nul\0.json", "line\nbreak.json", "tab\t.json", "\x1b[2J.json", "\u202egpj.json", "\ud800.json",
    "x" * 201, "ü" * 101, "a/" * 600 + "b.json", "x" * 10240,
]  # fmt: skip
ODD = [
    "-rf.json",
    "--output_dir=x.json",
    "$(HF_TOKEN).json",
    "`id`.json",
    "a b;c.json",
    "[x]*?.json",
    "%2e%2e%2fx.json",
    "ü.json",
    "~/x.json",
]


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self._canary),)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub().running() as running:
        running.repos["org/model"] = Repo(model_files())
        yield running


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def fetch(hub: FakeHub, directory: Path, **more: Any) -> dict[str, Any]:
    return {"source": hub.source("org/model", COMMIT, **more), "bytes": 1, "directory": str(directory)}


def refused(result: Result, *words: str) -> None:
    """For a reason that a person understands: short, with what and what to do."""
    assert result.reason == "InvalidModel", result.report
    message = result.report["message"]
    assert len(message) < 700
    assert message.isprintable()
    assert all(word in message for word in words), message


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name)[:24] for name in NAMES])
def test_names_that_lead_elsewhere_or_nowhere(hub: FakeHub, tmp_path: Path, name: str) -> None:
    hub.repos["org/model"].listed_extra = (name,)
    for stage in ("resolve", "fetch"):
        refused(outcome(stage, fetch(hub, tmp_path / "checkpoint")), "not allowed")
    assert not (tmp_path / "checkpoint/manifest.json").exists()
    assert not [path for _, path, _ in hub.requests if "/resolve/" in path], "refused before anything is fetched"


def test_odd_names_are_only_names(hub: FakeHub, watched: Watched) -> None:
    hub.repos["org/model"].files |= {name: name.encode() for name in ODD}
    result = watched.run("fetch", fetch(hub, watched.directory))
    root = watched.directory / "files"
    assert result.facts["files"] == len(model_files()) + len(ODD)
    assert {name: (root / name).read_bytes() for name in ODD} == {name: name.encode() for name in ODD}


@pytest.mark.parametrize(
    ("extra", "word"),
    [(("config.json",), "twice"), (("config.json/x.json",), "below something that is a file"), (("a", "a/b/c"), "below something")],
)
def test_listings_that_can_be_no_tree(hub: FakeHub, tmp_path: Path, extra: tuple[str, ...], word: str) -> None:
    hub.repos["org/model"].listed_extra = extra
    refused(outcome("fetch", fetch(hub, tmp_path / "checkpoint")), word)


def test_huge_counts(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["org/model"].listed_extra = tuple(f"data/{number}.json" for number in range(selection.MOST))
    refused(outcome("fetch", fetch(hub, tmp_path / "checkpoint")), f"at most {selection.MOST}", "allowPatterns")
    assert outcome("resolve", {"source": hub.source("org/model", ignorePatterns=["data/"])}).report["ok"], "what is left out costs nothing"
    monkeypatch.setattr(files, "MOST", 100)
    refused(outcome("resolve", {"source": hub.source("org/model", ignorePatterns=["data/"])}), "at most 100")
    source = write_tree(tmp_path / "source", {**model_files(), **{f"x/{number}": b"" for number in range(100)}})
    refused(outcome("resolve", {"source": {"kind": "pvc", "path": str(source)}}), "more than 100 files")


@pytest.mark.parametrize("size", [-1, None, "1", 2**40, 2**200])
def test_sizes_that_are_none_or_too_much(hub: FakeHub, tmp_path: Path, size: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.unit import test_builder_support as support  # noqa: PLC0415 - its handler is changed

    about = support._Handler._about
    monkeypatch.setattr(support._Handler, "_about", lambda self, repo, file: {**about(self, repo, file), "size": size, "lfs": None})
    result = outcome("fetch", fetch(hub, tmp_path / "checkpoint"))
    assert result.reason in ("HubUnreachable", "DiskFull")
    assert not any(path.is_file() for path in (tmp_path / "checkpoint").rglob("*.safetensors"))


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b"[]", b"null", b'{"sha": 7}', b'{"siblings": [{"rfilename": 7}]}', b"[" * 5000])
def test_answers_that_are_not_the_hubs(hub: FakeHub, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.unit import test_builder_support as support  # noqa: PLC0415 - as above

    monkeypatch.setattr(support._Handler, "_json", lambda self, _: self._send(200, body, Content_Type="application/json"))
    result = outcome("resolve", {"source": hub.source("org/model")})
    assert result.reason == "HubUnreachable"
    assert "does not speak the Hub's protocol" in result.report["message"]


def bombs(canary: Path) -> dict[str, bytes]:
    """Files that run code where somebody loads or runs them."""
    made = {
        f"weights{suffix}": pickle.dumps(Bomb(canary)) for suffix in (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".PKL")
    }
    text = f"import os\nos.mkdir({str(canary)!r})\n".encode()
    made |= dict.fromkeys(("modeling_evil.py", "tokenization_evil.PY", "setup.py", "sitecustomize.py", "conftest.py", "a/b.py"), text)
    made |= {
        "run.sh": f"#!/bin/sh\nmkdir {canary}\n".encode(),
        "lib.so": b"\x7fELF",
        "evil.pyc": b"x",
        ".hidden/x.json": b"{}",
        ".env": b"x",
    }
    return made


@pytest.mark.parametrize("patterns", [{}, {"allowPatterns": ["*"], "ignorePatterns": []}], ids=["as-usual", "everything-allowed"])
def test_what_could_run_is_not_even_asked_for(hub: FakeHub, watched: Watched, patterns: dict[str, Any]) -> None:
    canary = watched.root / "canary"
    evil = {"auto_map": {"AutoConfig": "modeling_evil.Config", "AutoModelForCausalLM": "evil/other--modeling_evil.Model"}}
    data = bombs(canary)
    hub.repos["org/model"].files |= {**data, "config.json": json.dumps({**CONFIG, **evil, "trust_remote_code": True}).encode()}
    result = watched.run("fetch", fetch(hub, watched.directory, **patterns))
    assert result.report["ok"], result.report
    asked = {path.split(f"/{COMMIT}/", 1)[-1] for _, path, _ in hub.requests if "/resolve/" in path}
    assert asked == set(model_files())
    assert not canary.exists()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["extra.json", "tokenizer.model", "model.safetensors"])
def test_pickles_in_disguise(hub: FakeHub, tmp_path: Path, name: str, protocol: int) -> None:
    canary = tmp_path / "canary"
    hub.repos["org/model"].files[name] = pickle.dumps(Bomb(canary), protocol=protocol)
    refused(outcome("fetch", fetch(hub, tmp_path / "checkpoint")), name)
    assert not canary.exists()
    assert not (tmp_path / "checkpoint/manifest.json").exists()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("config.json", b"[" * 100000),
        ("config.json", b'{"architectures": ["Llama; rm -rf /"]}'),
        ("config.json", b'{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": ' + b"9" * 5000 + b"}"),
        ("config.json", b" " * (2**20 + 1)),
        ("model.safetensors", b"\xff" * 8 + b"{"),
        ("model.safetensors.index.json", b'{"weight_map": {"w": "../../../etc/passwd"}}'),
        ("model.safetensors.index.json", b"[" * 100000),
    ],
    ids=["deep", "shell", "digits", "huge", "header", "index-outside", "index-deep"],
)
def test_contents_that_harm_their_reader(hub: FakeHub, tmp_path: Path, name: str, data: bytes) -> None:
    hub.repos["org/model"].files[name] = data
    stages = ("resolve",) if name == "config.json" else ("fetch",)
    for stage in stages:
        refused(outcome(stage, fetch(hub, tmp_path / "checkpoint")), name)


def plant(source: Path, outside: Path, kind: str) -> None:
    """Something in a directory that leads elsewhere."""
    there = source / "sub/tokenizer.json"
    there.parent.mkdir()
    match kind:
        case "link-out":
            there.symlink_to(outside / "precious.txt")
        case "relative-link-out":
            there.symlink_to("../../outside/precious.txt")
        case "dangling":
            there.symlink_to("/nowhere")
        case "loop":
            (source / "sub/up").symlink_to("..", target_is_directory=True)
        case "self":
            there.symlink_to("tokenizer.json")
        case "directory-out":
            (source / "sub/other").symlink_to(outside, target_is_directory=True)
        case "hard-link-out":
            there.hardlink_to(outside / "precious.txt")
        case "proc":
            there.symlink_to("/proc/self/environ")
        case "fifo":
            os.mkfifo(there)
        case "socket":
            with socket.socket(socket.AF_UNIX) as made:
                os.chdir(source)  # its path must be short
                made.bind("s.json")
        case "newline":
            (source / "sub/a\nb.json").touch()
        case "bytes":
            (Path(os.fsdecode(os.fsencode(source) + b"/sub/\xff.json"))).touch()
        case "deep":
            os.chdir(source)
            for _ in range(150):  # paths of more than 1024 bytes; deeper trees break those who remove them
                Path("d" * 10).mkdir()
                os.chdir("d" * 10)
        case _:
            raise NotImplementedError(kind)


PLANTS = [
    "link-out", "relative-link-out", "dangling", "loop", "self", "directory-out", "hard-link-out", "proc", "fifo", "socket", "newline",
    "bytes", "deep",
]  # fmt: skip


@pytest.mark.parametrize("kind", PLANTS)
def test_directories_that_lead_elsewhere(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_tree(tmp_path / "source", model_files())
    outside = write_tree(tmp_path / "outside", {"precious.txt": b"precious"})
    digest = outcome("resolve", {"source": {"kind": "pvc", "path": str(source)}}).facts["revision"]
    plant(source, outside, kind)
    os.chdir(tmp_path)
    for stage in ("resolve", "fetch"):
        request = {
            "source": {"kind": "pvc", "path": str(source), "revision": digest},
            "bytes": 1,
            "directory": str(tmp_path / "checkpoint"),
        }
        refused(outcome(stage, request))
    assert not (tmp_path / "checkpoint/manifest.json").exists()
    assert (outside / "precious.txt").read_bytes() == b"precious"


@pytest.mark.parametrize("link", ["source/models", "source"])
def test_a_source_behind_a_link_is_refused(watched: Watched, link: str) -> None:
    write_tree(watched.root / "elsewhere/models", model_files())
    path = watched.root / link
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(watched.root / ("elsewhere" if link == "source" else "elsewhere/models"), target_is_directory=True)
    refused(
        watched.run("resolve", {"source": {"kind": "pvc", "path": str(watched.root / "source/models")}}), "symbolic link", "source.pvc.path"
    )
    assert not [event for event in watched.events() if event[0] == "read" and "elsewhere" in event[1]]


@pytest.mark.parametrize("kind", ["huggingFace", "pvc"])
@pytest.mark.parametrize("link", ["files", "files/config.json", "files/sub", "files/.cache", "manifest.json"])
def test_links_in_the_place_of_results_are_not_followed(hub: FakeHub, watched: Watched, kind: str, link: str) -> None:
    """On a claim that others write to as well."""
    data = {**model_files(), "sub/x.json": b"{}"}
    hub.repos["org/model"].files = data
    source = write_tree(watched.root / "source", data)
    request = fetch(hub, watched.directory)
    if kind == "pvc":
        digest = outcome("resolve", {"source": {"kind": "pvc", "path": str(source)}}).facts["revision"]
        request["source"] = {"kind": "pvc", "path": str(source), "revision": digest}
    place = watched.directory / link
    place.parent.mkdir(parents=True, exist_ok=True)
    single = link in ("files/config.json", "manifest.json")
    place.symlink_to(watched.outside / ("precious.txt" if single else ""), target_is_directory=not single)
    result = watched.run("fetch", request)
    assert result.report["ok"], result.report
    assert not place.is_symlink()
    assert {name: (watched.directory / "files" / name).read_bytes() for name in data} == data


def test_a_link_in_the_place_of_the_directory_is_refused(hub: FakeHub, watched: Watched) -> None:
    watched.directory.symlink_to(watched.outside, target_is_directory=True)
    result = watched.run("fetch", fetch(hub, watched.directory))
    assert result.reason == "InternalError"
    assert "symbolic link" in result.report["message"]


def test_more_than_was_announced(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that lists small files and sends large ones."""
    from tests.unit import test_builder_support as support  # noqa: PLC0415 - as above

    about = support._Handler._about
    monkeypatch.setattr(support._Handler, "_about", lambda self, repo, file: {**about(self, repo, file), "size": 10, "lfs": None})
    hub.repos["org/model"].files["model.safetensors"] = safetensors(2**20)
    result = outcome("fetch", fetch(hub, tmp_path / "checkpoint"))
    assert result.reason in ("SourceChanged", "HubUnreachable")
    assert not (tmp_path / "checkpoint/manifest.json").exists()
