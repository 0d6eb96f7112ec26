"""A hub with one large checkpoint that takes no disk: every shard is a small header and one block over and over, sent by the kernel from the page cache.

`python -m tests.bench.checkpoint_program SHARDS BYTES` prints its port and then serves. Not the hub of the demo, which holds
whole files in memory and would be what is measured.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

REPO = "bench/checkpoint"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BLOCK = 64 * 2**20
"""Bytes that are repeated. No file system with compression or deduplication sees the repetition at its own block size."""

_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "torch_dtype": "bfloat16",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 512,
}
_RANGE = re.compile(r"bytes=(\d+)-")


class Checkpoint:
    """Files by name: a head in memory, and how many bytes of the block follow it."""

    def __init__(self, shards: int, size: int, block: IO[bytes]) -> None:
        self.block = block
        data = random.Random(1).randbytes(BLOCK)
        block.write(data)
        block.flush()
        self.files: dict[str, tuple[bytes, int]] = {}
        for number in range(1, shards + 1):
            name = f"model-{number:05}-of-{shards:05}.safetensors"
            header = json.dumps({f"w{number}": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
            self.files[name] = (struct.pack("<Q", len(header)) + header, size)
        with ThreadPoolExecutor() as pool:
            self.sha256 = dict(zip(self.files, pool.map(lambda name: self._sha256(name, data), self.files), strict=True))
        index = {"weight_map": {f"w{number}": name for number, name in enumerate(self.files, 1)}}
        for name, value in (("config.json", _CONFIG), ("tokenizer_config.json", {}), ("model.safetensors.index.json", index)):
            self.files[name] = (json.dumps(value).encode(), 0)

    def _sha256(self, name: str, data: bytes) -> str:
        head, size = self.files[name]
        digest, view = hashlib.sha256(head), memoryview(data)
        for start, end in pieces(0, size):
            digest.update(view[start:end])
        return digest.hexdigest()

    def listed(self, name: str) -> dict[str, Any]:
        """As the Hub lists a file; only the shards have a SHA-256."""
        head, rest = self.files[name]
        about: dict[str, Any] = {"size": len(head) + rest}
        if name not in self.sha256:
            return about
        return {**about, "lfs": {"oid": self.sha256[name], "sha256": self.sha256[name], "size": about["size"], "pointerSize": 134}}


def pieces(start: int, size: int) -> Iterator[tuple[int, int]]:
    """From where to where in the block, one after the other, for bytes `start` to `size` of the repeated part."""
    while start < size:
        offset = start % BLOCK
        count = min(BLOCK - offset, size - start)
        yield offset, offset + count
        start += count


class Server(ThreadingHTTPServer):
    """Counts what it has sent of the shards."""

    daemon_threads = True

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.checkpoint = checkpoint
        self.sent = 0
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  clients are killed on purpose
        return


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ARG002  the signature of the base class
        return

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        checkpoint, path = self.server.checkpoint, self.path.partition("?")[0]
        name = path.rsplit("/", 1)[-1]
        if path == "/sent":
            self._json(self.server.sent)
        elif path == "/files":
            self._json(list(checkpoint.files))
        elif path.startswith(f"/api/models/{REPO}/tree/"):
            self._json([{"type": "file", "path": name, "oid": "0" * 40, **checkpoint.listed(name)} for name in checkpoint.files])
        elif path.startswith(f"/api/models/{REPO}"):
            siblings = [{"rfilename": name, "blobId": "0" * 40, **checkpoint.listed(name)} for name in checkpoint.files]
            self._json({"id": REPO, "sha": COMMIT, "siblings": siblings})
        elif path == f"/{REPO}/resolve/{COMMIT}/{name}" and name in checkpoint.files:
            self._file(name)
        else:
            self.send_error(404)

    def _json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _file(self, name: str) -> None:
        checkpoint = self.server.checkpoint
        head, rest = checkpoint.files[name]
        size = len(head) + rest
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.send_header("ETag", f'"{checkpoint.sha256.get(name) or hashlib.sha1(head, usedforsecurity=False).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(size - first))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(head[first:])
            self._blocks(max(0, first - len(head)), rest)

    def _blocks(self, start: int, size: int) -> None:
        connection: socket.socket = self.connection
        for begin, end in pieces(start, size):
            at = begin
            while at < end:
                count = os.sendfile(connection.fileno(), self.server.checkpoint.block.fileno(), at, end - at)
                if count == 0:
                    raise ConnectionError
                at += count
                with self.server.lock:
                    self.server.sent += count


def main() -> None:
    shards, total = int(sys.argv[1]), int(sys.argv[2])
    memory = Path("/dev/shm")  # noqa: S108  the block must not be read from the disk that is measured
    with tempfile.TemporaryFile(dir=memory if memory.is_dir() else None) as block:
        server = Server(Checkpoint(shards, total // shards, block))
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
