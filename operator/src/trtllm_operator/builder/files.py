"""Trees of files: what is there, checked for what must not be, hashed and copied with flat memory."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trtllm_operator.builder.report import Failure

THREADS = 4
_CHUNK = 4 * 2**20
_NOT_OURS = "lost+found"  # ext4 makes it at the root of a volume, for root only

MOST = 100_000
"""Files of a tree at most, chosen or not: the Hub advises less, and each one is held in memory."""

_LONGEST_NAME, _LONGEST_PATH = 200, 1024  # bytes; file systems take 255 and 4096, and what we put around them needs room
_SHOWN = 200


@dataclass(frozen=True, order=True)
class Entry:
    """A file: path relative to some root, with slashes."""

    path: str
    size: int


@dataclass(frozen=True)
class Hashed:
    """A file and the SHA-256 of its content, in hex."""

    path: str
    size: int
    sha256: str


def safe_path(path: str) -> bool:
    """Whether a path from elsewhere stays below the directory that it is put under, can be printed, and fits a file system."""
    parts = path.split("/")
    return (
        path.isprintable()
        and "\\" not in path
        and not any(part in {"", ".", ".."} for part in parts)
        and not PurePosixPath(path).is_absolute()
        and len(path.encode()) <= _LONGEST_PATH
        and all(len(part.encode()) <= _LONGEST_NAME for part in parts)
    )


def shown(path: str) -> str:
    """A path from elsewhere for a message: in ASCII, and not endless."""
    return f"{path[:_SHOWN]!a}" + ("..." if len(path) > _SHOWN else "")


def check_tree(paths: Sequence[str], where: str) -> None:
    """Check that paths can be files of one tree.

    Raises:
        Failure: InvalidModel, where there are too many, one is not safe, one comes twice, or one is a file and a directory.
    """
    if len(paths) > MOST:
        raise Failure("InvalidModel", f"{where} has {len(paths)} files, and at most {MOST} are looked at. Use a repository of one model")
    known: set[str] = set()
    for path in paths:
        if not safe_path(path):
            raise Failure("InvalidModel", f"{where} has a file with the name {shown(path)}, which is not allowed")
        if path in known:
            raise Failure("InvalidModel", f"{where} lists {shown(path)} twice, so it can't be told what it is")
        known.add(path)
    for path in paths:
        if any(parent.as_posix() in known for parent in PurePosixPath(path).parents):
            raise Failure("InvalidModel", f"{where} lists {shown(path)} below something that is a file, which can't be")


def scan(root: Path, *, skip_hidden: bool = False) -> list[Entry]:
    """All regular files below `root`, sorted.

    Raises:
        Failure: InvalidModel, for a link, a special file or a name that can't be printed: a link could lead out of the tree,
            and what is behind it could be exchanged after it was hashed.
    """
    found: list[Entry] = []
    pending = [root]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                path = Path(entry.path).relative_to(root).as_posix()
                if path == _NOT_OURS or (skip_hidden and entry.name.startswith(".")):
                    continue
                status = entry.stat(follow_symlinks=False)
                if not safe_path(path):
                    raise Failure("InvalidModel", f"the file name {shown(path)} is not allowed. Rename it")
                if stat.S_ISDIR(status.st_mode):
                    pending.append(Path(entry.path))
                elif not stat.S_ISREG(status.st_mode):
                    raise Failure(
                        "InvalidModel",
                        f"{path} is a {_kind(status.st_mode)}, and only plain files are allowed. Copy the files themselves, for example with cp -rL",
                    )
                elif status.st_nlink > 1:
                    raise Failure(
                        "InvalidModel", f"{path} has {status.st_nlink} hard links, and only plain files are allowed. Copy the file"
                    )
                elif len(found) == MOST:
                    raise Failure(
                        "InvalidModel",
                        f"{root} has more than {MOST} files, and that many are not looked at. Give the directory of one model",
                    )
                else:
                    found.append(Entry(path, status.st_size))
    return sorted(found)


def _kind(mode: int) -> str:
    return "symbolic link" if stat.S_ISLNK(mode) else "special file"


def tree_bytes(root: Path) -> int:
    """Bytes below a directory while others write to it; files may come and go."""
    total = 0
    for directory, _, names in os.walk(root):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_size  # noqa: PTH118  thousands of files each second
            except FileNotFoundError:
                continue
    return total


def read_plain(path: Path) -> bytes:
    """Content of a plain file; a link or a pipe in its place counts as none.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileNotFoundError(error.errno, "is a link", str(path)) from error
        raise
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileNotFoundError(errno.ENOENT, "is no plain file", str(path))
        return file.read()


def sha256(path: Path, advance: Callable[[int], None], *, durable: bool = False) -> str:
    """SHA-256 of a file in hex.

    Args:
        path: the file; a symbolic link is refused by the kernel.
        advance: is told of each chunk's bytes.
        durable: also wait until the content is on the disk.
    """
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    buffer = memoryview(bytearray(_CHUNK))
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            advance(count)
        if durable:
            os.fsync(descriptor)
    return digest.hexdigest()


def hash_all(root: Path, entries: Sequence[Entry], advance: Callable[[int], None], *, durable: bool = False) -> list[Hashed]:
    """Hash files in a few threads, in the order of `entries`. `advance` may be called by several threads."""

    def one(entry: Entry) -> Hashed:
        return Hashed(entry.path, entry.size, sha256(root / entry.path, advance, durable=durable))

    return _in_threads(one, entries)


def copy_all(source: Path, target: Path, entries: Sequence[Entry], advance: Callable[[int], None]) -> list[Hashed]:
    """Copy files, hashed on the way. A file appears under its name only when it is whole; one that is there already is hashed only."""

    def one(entry: Entry) -> Hashed:
        to = target / entry.path
        if to.is_file() and not to.is_symlink() and to.stat().st_size == entry.size:
            return Hashed(entry.path, entry.size, sha256(to, advance, durable=True))
        to.parent.mkdir(parents=True, exist_ok=True)
        partial = to.with_name(f".{to.name}.partial")
        digest, size = _copy(source / entry.path, partial, advance)
        partial.replace(to)
        return Hashed(entry.path, size, digest)

    return _in_threads(one, entries)


def _copy(source: Path, partial: Path, advance: Callable[[int], None]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(_CHUNK))
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(reading, "rb", buffering=0) as origin, partial.open("wb", buffering=0) as copy:
        while count := origin.readinto(buffer):
            chunk = buffer[:count]
            digest.update(chunk)
            while chunk:  # a raw write may take a part only
                chunk = chunk[copy.write(chunk) :]
            size += count
            advance(count)
        os.fsync(copy.fileno())
    return digest.hexdigest(), size


def _in_threads(one: Callable[[Entry], Hashed], entries: Sequence[Entry]) -> list[Hashed]:
    with ThreadPoolExecutor(THREADS) as pool:
        # Large files first, so that no thread is left with one at the end.
        futures = {entry.path: pool.submit(one, entry) for entry in sorted(entries, key=lambda entry: -entry.size)}
        try:
            return [futures[entry.path].result() for entry in entries]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def tree_digest(hashed: Iterable[Hashed]) -> str:
    """One digest of a tree: SHA-256 over its files' path, size and SHA-256, sorted by path."""
    digest = hashlib.sha256()
    for file in sorted(hashed, key=lambda file: file.path):
        digest.update(f"{file.path}\0{file.size}\0{file.sha256}\n".encode())
    return digest.hexdigest()


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
