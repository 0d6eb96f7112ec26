"""Runs programs: argument lists only, output kept for the error message."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

Argument = str | os.PathLike[str]


class ClusterError(Exception):
    """Something a person must know: the message says what failed and what to do."""


class CommandError(ClusterError):
    """A program ended with another exit status than 0."""

    def __init__(self, argv: Sequence[str], code: int, output: str) -> None:
        self.argv, self.code, self.output = list(argv), code, output
        tail = "\n".join(output.strip().splitlines()[-25:])
        super().__init__(f"`{' '.join(argv[:6])}{' ...' if len(argv) > 6 else ''}` ended with {code}:\n{tail}")


def environment() -> dict[str, str]:
    """The variables of this process; PATH also has the directories of administration programs, which `su` leaves out."""
    path = [part for part in os.environ.get("PATH", "").split(os.pathsep) if part]
    return {**os.environ, "PATH": os.pathsep.join([*path, *(part for part in ("/usr/sbin", "/sbin") if part not in path)])}


def run(
    argv: Iterable[Argument],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | bytes | IO[bytes] | None = None,
    timeout: float | None = None,
    check: bool = True,
) -> str:
    """Run a program to its end and return stdout; stderr is only shown when it fails.

    Args:
        argv: program and arguments.
        env: added to the environment of this process.
        cwd: directory to run in.
        stdin: text, bytes or an open file; nothing to read if not given.
        timeout: seconds.
        check: whether another exit status than 0 is an error.

    Raises:
        CommandError: it can't be started, took longer than `timeout` or (with `check`) failed.
    """
    command = [os.fspath(argument) for argument in argv]
    data = stdin.encode() if isinstance(stdin, str) else stdin if isinstance(stdin, bytes) else None
    source = subprocess.PIPE if data is not None else subprocess.DEVNULL if stdin is None or isinstance(stdin, str | bytes) else stdin
    try:
        with subprocess.Popen(
            command,
            env={**environment(), **(env or {})},
            cwd=cwd,
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                out, err = process.communicate(data, timeout)
            except subprocess.TimeoutExpired as error:
                raise CommandError(command, 124, f"no end after {error.timeout:.0f} s") from error
            finally:
                if process.poll() is None:
                    process.kill()
    except FileNotFoundError as error:
        raise CommandError(command, 127, f"no such program: {error.filename}") from error
    output = out.decode(errors="replace")
    if check and process.returncode != 0:
        raise CommandError(command, process.returncode, output + err.decode(errors="replace"))
    return output


def succeeds(argv: Iterable[Argument], *, env: Mapping[str, str] | None = None, timeout: float = 20) -> bool:
    """Whether a program ends with 0 within `timeout` seconds."""
    try:
        run(argv, env=env, timeout=timeout)
    except CommandError:
        return False
    return True
