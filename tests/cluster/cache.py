"""The build cache: artifacts outside the checkout, found by what they are made of."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.process import run
from tests.cluster.progress import say

_KEY_LENGTH = 12
_UNUSED_SECONDS = 21 * 24 * 3600


def root() -> Path:
    """`$TRTLLM_CACHE`, else `trtllm-operator` in the user's cache directory."""
    if given := os.environ.get("TRTLLM_CACHE"):
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "trtllm-operator"


def key(parts: Mapping[str, object]) -> str:
    """A short SHA-256 over the canonical JSON of `parts`; a Path stands for the content of that file."""

    def plain(value: object) -> object:
        return hashlib.sha256(value.read_bytes()).hexdigest() if isinstance(value, Path) else value

    text = json.dumps({name: plain(value) for name, value in parts.items()}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]


def remove(path: Path) -> None:
    """Remove a file or a tree, never what is mounted in it. Harmless where there is nothing."""
    if sys.platform == "linux":
        run(["rm", "-rf", "--one-file-system", path])
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold the lock `name` of this cache; the kernel releases it when the holder dies."""
    directory = root() / "locks"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"    waiting for another run that holds the lock {name}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def artifact(kind: str, digest: str) -> Path:
    """Where the artifact of this kind and key lies, or will lie."""
    return root() / kind / digest


def obtain(kind: str, digest: str, build: Callable[[Path], None]) -> Path:
    """The artifact of this kind and key; `build` makes it in an empty directory if there is none.

    It appears by one rename, so that an interrupted build leaves nothing that looks finished.
    """
    final = artifact(kind, digest)
    if final.exists():
        os.utime(final)
        return final
    with lock(f"{kind}-{digest}"):
        if final.exists():
            return final
        draft = final.with_name(f".{digest}.draft")
        remove(draft)  # of a build that died; we hold the lock
        draft.mkdir(parents=True)
        try:
            build(draft)
            draft.rename(final)
        finally:
            remove(draft)
    return final


def prune(*kinds: str) -> None:
    """Remove the artifacts of these kinds that nobody has asked for in three weeks."""
    oldest = time.time() - _UNUSED_SECONDS
    for path in (path for kind in kinds for path in (root() / kind).glob("*")):
        if path.stat().st_mtime < oldest:
            remove(path)
