"""Space on volumes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from trtllm_operator.builder.report import Failure

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EROFS, errno.EACCES)
_GIB = 2**30


def human(size: float) -> str:
    """Bytes for people: GiB, or MiB where that would say 0."""
    return f"{size / _GIB:.1f} GiB" if size >= _GIB / 10 else f"{size / 2**20:.1f} MiB"


def require(directory: Path, needed: int, what: str) -> None:
    """Check that a volume has room, before anything is spent.

    Args:
        directory: an existing directory on the volume.
        needed: bytes that will be written.
        what: what they are for, as subject of a sentence.

    Raises:
        Failure: DiskFull.
    """
    volume = os.statvfs(directory)
    free = volume.f_bavail * volume.f_frsize
    if needed <= free:
        return
    total = volume.f_blocks * volume.f_frsize
    wanted = -(-int((total + needed - free) * 1.05) // _GIB)  # file systems keep some for themselves
    raise Failure(
        "DiskFull",
        f"{what} needs {human(needed)}, and the volume of {directory} has {human(free)} free of {human(total)}. "
        f"Set storage.size of the LLMEngine to {wanted}Gi or more, or enlarge the claim",
    )


def is_full(error: BaseException) -> OSError | None:
    """The error among an exception and its causes that says that a volume is full."""
    return _among(error, _FULL)


def is_refused(error: BaseException) -> OSError | None:
    """The error among an exception and its causes that says that a volume can't be written to."""
    return _among(error, _REFUSED)


def _among(error: BaseException, codes: tuple[int, ...]) -> OSError | None:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, OSError) and current.errno in codes:
            return current
        current = current.__cause__ or current.__context__
    return None


def full(error: OSError, directory: str | None) -> Failure:
    """The failure for a write that found no room."""
    where = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else Path(directory or ".")
    place = next((path for path in (where, *where.parents) if path.is_dir()), Path("/"))
    volume = os.statvfs(place)
    return Failure(
        "DiskFull",
        f"the volume of {place} is full ({human(volume.f_bavail * volume.f_frsize)} free of {human(volume.f_blocks * volume.f_frsize)}): "
        f"{os.strerror(error.errno or errno.ENOSPC)}. Set storage.size of the LLMEngine to a higher value, or enlarge the claim",
    )


def refused(error: OSError) -> Failure:
    """The failure for a file or directory that the pod may not write or read."""
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "the volume"
    return Failure(
        "VolumeNotWritable",
        f"{where}: {os.strerror(error.errno or errno.EACCES)} for user {os.getuid()} and group {os.getgid()}. "
        "Make the claim writable for them: see storage.accessModes, podSecurity and the storage's own rights",
    )
