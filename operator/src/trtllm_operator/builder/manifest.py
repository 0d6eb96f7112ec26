"""Manifests: a result exists when its manifest exists, which is written last. Format: operator/docs/stage-program.md."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trtllm_operator.builder import files
from trtllm_operator.builder.files import Entry, Hashed
from trtllm_operator.builder.report import Failure

VERSION = 1
NAME = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """`files` have paths relative to the directory of the manifest."""

    kind: str
    revision: str
    files: tuple[Hashed, ...]
    key: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    created_at: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def dump(self) -> bytes:
        """As it is written."""
        document: dict[str, Any] = {"manifestVersion": VERSION, "kind": self.kind}
        if self.key is not None:
            document["key"] = self.key
        document |= {
            "revision": self.revision,
            "files": [{"path": file.path, "bytes": file.size, "sha256": file.sha256} for file in self.files],
            "facts": dict(self.facts),
            "createdAt": self.created_at,
        }
        return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def now() -> str:
    """The time, as in Kubernetes objects."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def write(path: Path, manifest: Manifest) -> str:
    """Write a manifest by rename, durably.

    Returns:
        Its digest: `sha256:` and the SHA-256 of its bytes in hex.
    """
    data = manifest.dump()
    replace(path, data)
    return _digest(data)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def replace(path: Path, data: bytes) -> None:
    """Put a file in place as a whole, so that nobody ever reads a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o664)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    files.sync_directory(path.parent)


def read(path: Path) -> tuple[Manifest, str] | None:
    """A manifest and its digest; None where there is none that can be understood."""
    try:
        data = files.read_plain(path)
        said = json.loads(data)
        if said["manifestVersion"] != VERSION:
            return None
        listed = tuple(Hashed(str(file["path"]), int(file["bytes"]), str(file["sha256"])) for file in said["files"])
        if not listed or not all(files.safe_path(file.path) for file in listed):
            return None
        manifest = Manifest(
            kind=str(said["kind"]),
            revision=str(said["revision"]),
            files=listed,
            key=said.get("key"),
            facts=dict(said.get("facts") or {}),
            created_at=str(said.get("createdAt", "")),
        )
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return manifest, _digest(data)


def require_key(directory: Path, manifest: Manifest, key: str) -> None:
    """Check that what is published in a directory is what was asked for.

    Raises:
        Failure: EngineCorrupt. It is not replaced: somebody put it there, and it may be all that they have.
    """
    if manifest.key != key:
        raise Failure(
            "EngineCorrupt",
            f"{directory} holds an engine of key {manifest.key}, and this build has key {key}. Remove that directory, or use another claim",
        )


def difference(root: Path, manifest: Manifest) -> str | None:
    """What differs in names and sizes between the files below `root` and the manifest; None if nothing does. Quick."""
    for file in manifest.files:
        try:
            size = (root / file.path).lstat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return f"{file.path} is missing"
        if size != file.size:
            return f"{file.path} has {size} bytes, and the manifest says {file.size}"
    known = {file.path for file in manifest.files}
    for top in sorted({file.path.split("/", 1)[0] for file in manifest.files if "/" in file.path}):
        for entry in files.scan(root / top):
            if f"{top}/{entry.path}" not in known:
                return f"{top}/{entry.path} is not in the manifest"
    return None


def content_difference(root: Path, manifest: Manifest, advance: Callable[[int], None]) -> str | None:
    """As `difference`, and the content of every file."""
    try:
        if found := difference(root, manifest):
            return found
    except Failure as failure:
        return failure.message
    for was, file in zip(manifest.files, _hash(root, manifest.files, advance), strict=True):
        if was.sha256 != file.sha256:
            return f"{file.path} has SHA-256 {file.sha256}, and the manifest says {was.sha256}"
    return None


def _hash(root: Path, listed: Sequence[Hashed], advance: Callable[[int], None]) -> list[Hashed]:
    return files.hash_all(root, [Entry(file.path, file.size) for file in listed], advance)
