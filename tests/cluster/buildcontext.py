"""What is sent to `docker build`: chosen, hashed and packed by us, so that a build is known by its content."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

DOCKERFILE = ".trtllm.Dockerfile"
"""Name of the Dockerfile inside the context that is sent."""

_ALWAYS_IGNORED = (
    *("**/.git", "**/.venv", "**/__pycache__", "**/*.pyc", "**/.mypy_cache", "**/.ruff_cache", "**/.pytest_cache"),
    *("**/.hypothesis", "**/.import_linter_cache", "**/.coverage"),
)


def ignored(name: str, patterns: Iterable[str]) -> bool:
    """Whether `name` (relative, with slashes) is left out by patterns as in a `.dockerignore`; the last match decides."""
    result = False
    for pattern in patterns:
        negated = pattern.startswith("!")
        if _expression(pattern.removeprefix("!")).match(name):
            result = not negated
    return result


def _expression(pattern: str) -> re.Pattern[str]:
    parts = {"**/": r"(?:.*/)?", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip().strip("/"))
    # What lies in a directory that is left out is left out, too.
    return re.compile("".join(parts.get(piece, re.escape(piece)) for piece in pieces) + r"(?:/.*)?$")


def collect(context: Path, paths: Iterable[str] | None = None) -> dict[str, Path]:
    """The files of a context by their relative name, sorted.

    Raises:
        FileNotFoundError: one of `paths` is not there.
    """
    listed = context / ".dockerignore"
    own = [line.strip() for line in listed.read_text().splitlines()] if listed.is_file() else []
    patterns = [*_ALWAYS_IGNORED, *(line for line in own if line and not line.startswith("#"))]
    files: dict[str, Path] = {}
    for top in (context,) if paths is None else [context / path for path in paths]:
        if top.is_file():
            files[top.relative_to(context).as_posix()] = top
            continue
        if not top.is_dir():
            raise FileNotFoundError(f"{top} is not there")
        for directory, subdirectories, names in os.walk(top):
            here = Path(directory).relative_to(context)
            negations = any(pattern.startswith("!") for pattern in patterns)
            if not negations:  # else a file below might be taken back in
                subdirectories[:] = [name for name in subdirectories if not ignored((here / name).as_posix(), patterns)]
            for name in names:
                relative = (here / name).as_posix()
                if not ignored(relative, patterns):
                    files[relative] = Path(directory) / name
    return dict(sorted(files.items()))


def pack(files: Mapping[str, Path], dockerfile: Path) -> bytes:
    """A tar of the files and the Dockerfile; times are zero and the owner is root, so that equal content is equal."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, path in {**files, DOCKERFILE: dockerfile}.items():
            data = path.read_bytes()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = 0o755 if os.access(path, os.X_OK) else 0o644
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
