"""Large files over HTTP: a few at once, hashed on the way, and continued where a killed download ended.

Not huggingface_hub's own download, which begins each file from zero after a kill (its parts have random names, #4228 there), copies
every byte several times under Python's lock, and holds 10 MiB and more per file.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from trtllm_operator.builder.files import Entry, Hashed

STREAMS = 4
"""Files at once."""

_BUFFER = 2**20  # bytes per stream; also what a kill loses of each
_TIMEOUT = 60.0  # seconds without a byte
_FRUITLESS = 3  # tries of a file that bring nothing before it is given up


@dataclass(frozen=True)
class Address:
    """Where a file is now. `secret` are headers for that host alone: they do not go along with a redirect."""

    url: str
    secret: Mapping[str, str]


Locate = Callable[[str], Address]
"""From a path in the repository to its address, asked anew for each try: signed addresses expire."""


def part_name(entry: Entry, sha256: str) -> str:
    """Name of the unfinished file. It tells the content, so a part of something else is never continued."""
    return hashlib.sha256(f"{entry.path}\0{entry.size}\0{sha256}".encode()).hexdigest()


def fetch_all(root: Path, parts: Path, wanted: Sequence[tuple[Entry, str]], locate: Locate) -> dict[str, Hashed]:
    """Bring files below `root`. Each appears under its name when all its bytes are on the disk; whether they are right, its hash tells.

    Args:
        root: where the files go.
        parts: directory for unfinished files, on the same volume.
        wanted: files with the SHA-256 that they should have.
        locate: tells where they are.

    Returns:
        What was hashed on the way, by path. A file of the right size that was there already is left alone, and not among them.

    Raises:
        ConnectionError: a file can't be had. What there is of it is kept.
    """
    missing = [(entry, sha256) for entry, sha256 in wanted if not _there(root / entry.path, entry.size)]
    if not missing:
        return {}
    parts.mkdir(parents=True, exist_ok=True)
    opener = _opener()

    def one(entry: Entry, sha256: str) -> Future[Hashed]:
        part = _Part(parts / part_name(entry, sha256), entry.size)
        try:
            _fill(part, lambda: locate(entry.path), opener)
        except BaseException:
            part.close()
            raise
        return disk.submit(end, part, entry)

    def end(part: _Part, entry: Entry) -> Hashed:
        with contextlib.closing(part):
            return Hashed(entry.path, entry.size, part.finish(root / entry.path))

    # The disk is waited for beside the streams: the next files come while the last bytes of these are written.
    with ThreadPoolExecutor(STREAMS) as disk, ThreadPoolExecutor(STREAMS) as pool:
        # Large files first, so that no stream is left with one at the end.
        futures = [pool.submit(one, *pair) for pair in sorted(missing, key=lambda pair: -pair[0].size)]
        try:
            return {hashed.path: hashed for hashed in (future.result().result() for future in futures)}
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _there(path: Path, size: int) -> bool:
    return not path.is_symlink() and path.is_file() and path.stat().st_size == size


class _Part:
    """An unfinished file and the hash of what it has. Whatever an earlier try left is hashed and kept."""

    def __init__(self, path: Path, size: int) -> None:
        self.size = size
        self.path = path
        self.buffer = memoryview(bytearray(_BUFFER))
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o664)
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        self.restart(keep=os.fstat(descriptor).st_size <= size)
        while count := self._file.readinto(self.buffer):
            self._digest.update(self.buffer[:count])
            self.done += count

    def close(self) -> None:
        self._file.close()

    def restart(self, *, keep: bool = False) -> None:
        """Go back to the beginning, and throw away what is there, or read it again."""
        self._file.seek(0)
        if not keep:
            self._file.truncate()
        self._digest, self.done = hashlib.sha256(), 0

    def append(self, count: int) -> None:
        """Take over that many bytes of the buffer."""
        chunk = self.buffer[:count]
        self._digest.update(chunk)
        while chunk:  # a raw write may take a part only
            chunk = chunk[self._file.write(chunk) :]
        self.done += count

    def finish(self, target: Path) -> str:
        """Put the file in its place, durably; its SHA-256 in hex."""
        os.fsync(self._file.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(target)
        return self._digest.hexdigest()


class _Interrupted(ConnectionError):
    """The network's or the other side's fault, not the disk's: it is tried again."""


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _fill(part: _Part, locate: Callable[[], Address], opener: urllib.request.OpenerDirector) -> None:
    fruitless = 0
    while part.done < part.size:
        before = part.done
        try:
            _stream(part, locate(), opener)
        except _Interrupted:
            fruitless = 0 if part.done > before else fruitless + 1
            if fruitless == _FRUITLESS:
                raise
            time.sleep(fruitless)  # a hub that is busy gets a moment; the stage as a whole is tried again with longer ones


def _stream(part: _Part, address: Address, opener: urllib.request.OpenerDirector) -> None:
    """Append to the part what one answer brings.

    Raises:
        _Interrupted: it broke off, or nothing could be had. Its text does not hold the address, which may be signed: whoever has
            that has the file.
    """
    host = urlsplit(address.url).hostname
    with _answer(part, address, opener) as response:
        if part.done and response.status != http.client.PARTIAL_CONTENT:
            part.restart()  # it does not know ranges, and sends the whole
        elif part.done and not (response.headers.get("Content-Range") or "").startswith(f"bytes {part.done}-"):
            part.restart()
            raise _Interrupted(f"{host} answers with another range than was asked for")
        while part.done < part.size:
            try:
                count = response.readinto(part.buffer[: part.size - part.done])
            except (OSError, http.client.HTTPException) as error:
                raise _Interrupted(f"{host}: {_why(error)}") from error
            if not count:
                raise _Interrupted(f"{host} broke off after {part.done} of {part.size} bytes")
            part.append(count)


def _answer(part: _Part, address: Address, opener: urllib.request.OpenerDirector) -> http.client.HTTPResponse:
    host = urlsplit(address.url).hostname
    request = urllib.request.Request(address.url, headers={"User-Agent": "trtllm-operator"})  # noqa: S310  the opener knows no other schemes
    for name, value in address.secret.items():
        request.add_unredirected_header(name, value)
    if part.done:
        request.add_header("Range", f"bytes={part.done}-")
    try:
        answer: http.client.HTTPResponse = opener.open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.restart()  # the file ends before: what is there is of something else
        raise _Interrupted(f"{host} answers {error.code}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(f"{host}: {_why(error)}") from error
    return answer


def _opener() -> urllib.request.OpenerDirector:
    """Proxies are those of the environment. No file:, ftp: or data:, whatever a hub answers."""
    known = urllib.request.getproxies()
    proxies = {scheme: proxy for scheme in ("http", "https") if (proxy := known.get(scheme) or known.get("all"))}
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(proxies),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
