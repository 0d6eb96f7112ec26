"""One worker at a time in a directory, also across nodes where the file system has locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from trtllm_operator.builder.console import Progress
from trtllm_operator.builder.report import Failure

NAME = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def held(directory: Path, progress: Progress) -> Iterator[None]:
    """Make the directory if needed, and wait until nobody else works in it. The kernel frees the lock when its holder dies.

    Raises:
        Failure: InternalError, where the directory is a link.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if directory.is_symlink():
        raise Failure("InternalError", f"{directory} is a symbolic link, and nothing is put behind one. Remove it from the claim")
    descriptor = os.open(directory / NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o664)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.update(0, "waiting: another pod works in the same directory")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            # Everything is put in place by rename, so without locks work may be done twice, but nothing half done is ever seen.
        yield
    finally:
        os.close(descriptor)
