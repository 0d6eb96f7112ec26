"""A token that a stage gets appears in nothing that it leaves: report, log, files; also where a hub throws it back, or all goes wrong."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import pytest

from tests.unit.test_builder_support import COMMIT, CONFIG, Result, Stage, outcome, safetensors
from trtllm_operator.builder.redact import Redactor
from trtllm_operator.builder.report import encode

TOKENS = {
    "usual": "hf_canaryCANARYcanary0123456789",
    "of-a-mirror": "Sesame-Open!%7/=+&?@:'\"\\",
    "padded": "  sesame-open-padded\n",
}
BAD_TOKENS = {
    "two-lines": "sesame-open-1\nsesame-open-2",
    "header": "sesame-open-1\r\nX-Evil: sesame-open-2",
    "spaces": "sesame open sesame",
    "not-ascii": "sésame-ouvre-toi-\u00e9\u00e9",
}


def spellings(token: str) -> set[str]:
    """Texts in which a person or program finds the token again."""
    bare = token.strip()
    forms = {bare, quote(bare, safe=""), json.dumps(bare)[1:-1], repr(bare)[1:-1], base64.b64encode(bare.encode()).decode()}
    return {form for form in forms | set(bare.split("\n")) if len(form) > 8}


class EchoHub:
    """Answers every request with what the caller's token is, in a way that `mode` says. Keeps what it was asked."""

    def __init__(self, mode: str, elsewhere: str = "http://127.0.0.1:9") -> None:
        self.headers: list[dict[str, str]] = []
        hub = self

        class Handler(_Handler):
            owner = hub

        self.mode = mode
        self.elsewhere = elsewhere
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextlib.contextmanager
    def running(self) -> Iterator[EchoHub]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    owner: ClassVar[EchoHub]

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ARG002  the signature of the base class
        return

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.owner
        hub.headers.append({name.lower(): value for name, value in self.headers.items()})
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        match hub.mode:
            case "body":
                self._send(500, f"no access with {token}".encode())
            case "denied":
                self._send(403, b"{}", {"X-Error-Message": f"token {quote(token)} is no good", "X-Error-Code": "GatedRepo"})
            case "unknown":
                self._send(404, json.dumps({"error": token}).encode(), {"X-Error-Message": quote(token)})
            case "redirect":
                self._send(302, b"", {"Location": f"{hub.elsewhere}{self.path}?token={quote(token)}"})
            case "broken":
                self._send(200, f'{{"sha": "{token}'.encode(), {"Content-Type": "application/json"})
            case "names":
                listed = [{"rfilename": name, "size": 9} for name in (f"{token}\n.json", "config.json", "model.safetensors")]
                self._json({"id": "org/model", "sha": COMMIT, "siblings": listed})
            case "sizes":
                self._json({"id": "org/model", "sha": COMMIT, "siblings": [{"rfilename": f"{quote(token)}.json", "size": token}]})
            case "facts":
                self._facts(token)
            case other:
                raise NotImplementedError(other)

    def _facts(self, token: str) -> None:
        """A model whose configuration and files say the token."""
        architecture = token if token.replace("_", "").isalnum() else "LlamaForCausalLM"
        config = json.dumps({**CONFIG, "architectures": [architecture], "torch_dtype": architecture, "note": token}).encode()
        contents = {"config.json": config, "model.safetensors": safetensors(), f"{quote(token, safe='')}.json": b"{}"}
        if "/resolve/" not in self.path:
            return self._json({"sha": COMMIT, "siblings": [{"rfilename": name, "size": len(data)} for name, data in contents.items()]})
        data = contents[self.path.rsplit("/", 1)[-1]]
        return self._send(200, data, {"ETag": f'"{COMMIT}"', "X-Repo-Commit": COMMIT})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


MODES = ("body", "denied", "unknown", "redirect", "broken", "names", "sizes", "facts")


def _source(hub: EchoHub) -> dict[str, Any]:
    return {"kind": "huggingFace", "repo": "org/model", "revision": "main", "endpoint": hub.endpoint}


def clean(text: str, token: str) -> None:
    """Nothing of the token is in it."""
    for form in spellings(token):
        assert form not in text, f"{form!r} in {text!r}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("which", TOKENS)
def test_what_a_hub_throws_back_is_not_told(tmp_path: Path, capfd: pytest.CaptureFixture[str], mode: str, which: str) -> None:
    token = TOKENS[which]
    with EchoHub(mode).running() as hub:
        for stage, revision in (("resolve", "main"), ("fetch", COMMIT)):
            request = {"source": {**_source(hub), "revision": revision}, "bytes": 1, "directory": str(tmp_path / "checkpoint")}
            result = outcome(stage, request, HF_TOKEN=token)
            clean(encode(result.report, Redactor({"HF_TOKEN": token})).decode(), token)  # as it is left in that environment
        assert any(token.strip() in header.get("authorization", "") for header in hub.headers), "the hub did get it"
    said = capfd.readouterr()
    clean(said.out + said.err, token)


@pytest.mark.parametrize("mode", ["body", "facts"])
def test_nothing_that_a_process_leaves_has_it(tmp_path: Path, mode: str) -> None:
    """Log, termination message and every file, caches included."""
    token = TOKENS["usual"]
    with EchoHub(mode).running() as hub:
        stage = Stage(tmp_path, {"HF_TOKEN": token, "HF_DEBUG": "1"})
        for name in ("resolve", "fetch"):
            result = stage.run(
                name, {"source": {**_source(hub), "revision": COMMIT}, "bytes": 1, "directory": str(tmp_path / "claim/checkpoint")}
            )
            clean(result.log + json.dumps(result.report), token)
    for path in (path for path in tmp_path.rglob("*") if path.is_file() and "claim/checkpoint/files" not in str(path)):
        clean(path.read_bytes().decode(errors="replace").replace(f"files/{token}.json", ""), token)


@pytest.mark.parametrize("which", BAD_TOKENS)
def test_what_is_no_token_is_refused_unread(capfd: pytest.CaptureFixture[str], which: str) -> None:
    """A library would refuse it as a header, and show it."""
    token = BAD_TOKENS[which]
    with EchoHub("body").running() as hub:
        result = outcome("resolve", {"source": _source(hub)}, HF_TOKEN=token)
        assert hub.headers == []
    assert result.reason == "ModelAccessDenied"
    assert "tokenSecretRef" in result.report["message"]
    said = capfd.readouterr()
    clean(json.dumps(result.report) + said.out + said.err, token)


@pytest.mark.parametrize("which", TOKENS)
def test_tracebacks_do_not_tell_it(tmp_path: Path, which: str) -> None:
    """An error that nobody thought of, with the token in its message in several spellings."""
    token = TOKENS[which]
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(
        "import os, urllib.parse\n"
        "def fail(*_):\n"
        "    token = os.environ['HF_TOKEN'].strip()\n"
        "    raise ZeroDivisionError(f'{token} {token!r} {urllib.parse.quote(token, safe=chr(0))}', {token: token})\n"
        "os.scandir = fail\n"
    )
    source = tmp_path / "source"
    source.mkdir()
    stage = Stage(tmp_path, {"HF_TOKEN": token, "PYTHONPATH": str(tmp_path / "site")})
    result = stage.run("resolve", {"source": {"kind": "pvc", "path": str(source)}})
    assert result.reason == "InternalError"
    assert "ZeroDivisionError" in result.log
    clean(result.log + json.dumps(result.report, ensure_ascii=False), token)


def test_another_server_does_not_get_it() -> None:
    """A hub may send us elsewhere, as to a store of large files. The token is for the hub alone."""
    token = TOKENS["usual"]
    with EchoHub("body").running() as other, EchoHub("redirect", other.endpoint).running() as hub:
        result: Result = outcome("resolve", {"source": _source(hub)}, HF_TOKEN=token)
        assert not result.report["ok"]
        assert any("authorization" in headers for headers in hub.headers)
        assert not [headers for headers in other.headers if "authorization" in headers]


@pytest.mark.parametrize("token", [*TOKENS.values(), *BAD_TOKENS.values()], ids=[*TOKENS, *BAD_TOKENS])
def test_every_spelling_is_replaced(token: str) -> None:
    redactor = Redactor({"HF_TOKEN": token, "PATH": "/usr/bin"})
    for form in spellings(token):
        clean(redactor.text(f"a {form} b"), token)
        clean(json.dumps(redactor.value({form: [form, {"x": form}]})), token)
    assert redactor.text("/usr/bin and sesame") == "/usr/bin and sesame"
