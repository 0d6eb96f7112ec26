"""What the tests of the stage program share: the real zipapp, small real programs in the place of NVIDIA's, and a small hub on loopback."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import pytest

from trtllm_operator.builder import cli, pack, report
from trtllm_operator.builder.stopping import Stop

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "torch_dtype": "bfloat16",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 512,
}
CSV = "0, NVIDIA H100 80GB HBM3, GPU-1, 9.0, 81559, 81000, 570.86.15, Disabled\n"


def safetensors(size: int = 64, seed: int = 1) -> bytes:
    """A valid file with `size` bytes of data."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    block = hashlib.sha256(str(seed).encode()).digest()
    return struct.pack("<Q", len(header)) + header + (block * (size // 32 + 1))[:size]


def model_files(size: int = 64) -> dict[str, bytes]:
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": safetensors(size),
        "tokenizer.json": b'{"model": {}}',
        "tokenizer_config.json": b"{}",
        "README.md": b"# model\n",
    }


def write_tree(root: Path, tree: dict[str, bytes]) -> Path:
    for name, data in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        pause.wait(0.02)


@functools.cache
def program() -> Path:
    """The zipapp, made once."""
    directory = tempfile.mkdtemp(prefix="stage-program-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    path = Path(directory) / "stage.pyz"
    path.write_bytes(pack.build())
    return path


@dataclass
class Result:
    code: int
    report: dict[str, Any]
    log: str

    @property
    def facts(self) -> dict[str, Any]:
        assert self.report["ok"], self.report
        facts: dict[str, Any] = self.report["facts"]
        return facts

    @property
    def reason(self) -> str:
        assert not self.report["ok"], self.report
        return str(self.report["reason"])

    @property
    def progress(self) -> list[dict[str, Any]]:
        lines = [line.removeprefix("trtllm-progress ") for line in self.log.splitlines() if line.startswith("trtllm-progress ")]
        return [json.loads(line) for line in lines]


@dataclass
class Stage:
    """Runs stages as a pod would: a process of its own, a request on its command line, a report in a file."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    def start(self, stage: str, request: dict[str, Any]) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": f"{self.root / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.root / "home"),
            "HF_HOME": str(self.root / "hf"),
            "TERMINATION_LOG": str(self.root / "termination-log"),
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": "127.0.0.1",
            **self.env,
        }
        command = [sys.executable, str(program()), stage, "--request", json.dumps({"stage": stage, "resource": "ns/name", **request})]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, cwd=self.root)

    def end(self, process: subprocess.Popen[bytes], seconds: float = 30) -> Result:
        output, _ = process.communicate(timeout=seconds)
        path = self.root / "termination-log"
        assert path.is_file(), output.decode()
        data = path.read_bytes()
        assert len(data) <= 4096
        path.unlink()
        result = Result(process.returncode, json.loads(data), output.decode())
        assert result.code == (0 if result.report["ok"] else 1)
        return result

    def run(self, stage: str, request: dict[str, Any]) -> Result:
        return self.end(self.start(stage, request))


def outcome(stage: str, request: dict[str, Any], **env: str) -> Result:
    """Run a stage in this process, which is quicker: for what does not depend on processes."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
            patch.delenv(name, raising=False)
        for name, value in {"NO_PROXY": "127.0.0.1", **env}.items():
            patch.setenv(name, value)
        said = cli.outcome(stage, json.dumps({"stage": stage, "resource": "ns/name", **request}), Stop())
    return Result(0 if said["ok"] else 1, json.loads(report.encode(said)), "")


def executable(path: Path, code: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable} -IS\n{code}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def install_distribution(site: Path, version: str) -> None:
    info = site / f"tensorrt_llm-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tensorrt-llm\nVersion: {version}\n")


@dataclass
class Repo:
    files: dict[str, bytes]
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    token: str | None = None
    large: tuple[str, ...] = ("model.safetensors",)
    listed_extra: tuple[str, ...] = ()
    """Names that the listing has besides the files."""


class FakeHub:
    """As much of the Hub's protocol as huggingface_hub uses to look up and download."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.status: int | None = None
        self.hold_after: int | None = None
        """Bytes of a large file after which it waits for `go_on`."""
        self.go_on = threading.Event()
        self.break_after: list[int] = []
        """Bytes after which each of the next downloads of large files breaks off."""
        self.ranges = 206
        """How it answers where a range is asked for: 200 is the whole, 416 a refusal."""
        self.redirect: str | None = None
        """Where large files are said to be."""
        self.tokens: set[str | None] = set()
        """What came as Authorization with requests for files."""
        self.damage = 0
        """So many downloads of large files are damaged on the way."""
        hub = self

        class Handler(_Handler):
            owner = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def source(self, repo: str, revision: str = "main", **more: Any) -> dict[str, Any]:
        return {"kind": "huggingFace", "repo": repo, "revision": revision, "endpoint": self.endpoint, **more}

    @contextlib.contextmanager
    def running(self) -> Iterator[FakeHub]:
        self._thread.start()
        try:
            yield self
        finally:
            self.go_on.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    owner: ClassVar[FakeHub]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ARG002  the signature of the base class
        return

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self._write(body)

    def _write(self, body: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            hub = self.owner
            if hub.hold_after is not None and len(body) > hub.hold_after:
                self.wfile.write(body[: hub.hold_after])
                self.wfile.flush()
                hub.go_on.wait(60)
                body = body[hub.hold_after :]
            self.wfile.write(body)

    def _answer(self) -> None:
        hub, path = self.owner, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path, self.headers.get("Range")))
        if hub.status is not None:
            return self._send(hub.status)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name, rest = "/".join(parts[2:4]), parts[4:]
        else:
            name, rest = "/".join(parts[:2]), parts[2:]
        repo = hub.repos.get(name)
        if repo is None:
            return self._send(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        if repo.token is not None and self.headers.get("Authorization") != f"Bearer {repo.token}" and "resolve" in rest:
            return self._send(403 if "Authorization" in self.headers else 401, X_Error_Code="GatedRepo", X_Error_Message="restricted")
        commit = repo.revisions.get(rest[1], rest[1] if rest[1] in repo.revisions.values() else "")
        if not commit:
            return self._send(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
        if rest[0] == "revision":
            return self._json(
                {"id": name, "sha": commit, "siblings": [self._sibling(repo, file) for file in (*repo.files, *repo.listed_extra)]}
            )
        if rest[0] == "tree":
            return self._json([{"type": "file", "path": file, **self._about(repo, file)} for file in repo.files])
        return self._file(repo, commit, "/".join(rest[2:]))

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), Content_Type="application/json")

    def _about(self, repo: Repo, file: str) -> dict[str, Any]:
        data = repo.files.get(file, b"")
        about: dict[str, Any] = {"size": len(data), "oid": hashlib.sha1(data, usedforsecurity=False).hexdigest()}
        if file in repo.large:
            about["lfs"] = {
                "oid": hashlib.sha256(data).hexdigest(),
                "sha256": hashlib.sha256(data).hexdigest(),
                "size": len(data),
                "pointerSize": 134,
            }
        return about

    def _sibling(self, repo: Repo, file: str) -> dict[str, Any]:
        about = self._about(repo, file)
        return {"rfilename": file, "blobId": about.pop("oid"), **about}

    def _break_off(self, data: bytes, after: int, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[:after])
        self.close_connection = True

    def _file(self, repo: Repo, commit: str, file: str) -> None:
        hub, data = self.owner, repo.files.get(file)
        hub.tokens.add(self.headers.get("Authorization"))
        if data is None:
            return self._send(404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
        about = self._about(repo, file)
        headers = {
            "ETag": f'"{about["lfs"]["oid"] if "lfs" in about else about["oid"]}"',
            "X-Repo-Commit": commit,
            "Accept-Ranges": "bytes",
        }
        if self.command == "GET" and file in repo.large and hub.damage > 0:
            hub.damage -= 1
            data = data[:-1] + bytes([data[-1] ^ 1])
        if hub.redirect is not None and file in repo.large:
            headers |= {"Location": f"{hub.redirect}{self.path}", "X-Linked-Size": str(len(data)), "X-Linked-ETag": headers["ETag"]}
            return self._send(302, b"", **headers)
        if self.command == "GET" and file in repo.large and hub.break_after:
            return self._break_off(data, hub.break_after.pop(0), headers)
        requested = self.headers.get("Range")
        if requested and hub.ranges == 416:
            return self._send(416)
        if requested and hub.ranges == 206:
            first = int(requested.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            return self._send(206, data[first:], **headers)
        if self.command == "HEAD":
            self.send_response(200)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            return self.end_headers()
        return self._send(200, data, **headers)
