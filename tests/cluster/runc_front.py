"""A front of runc for machines that lack a capability, e.g. inside a virtual machine or container with a reduced set.

dockerd asks for *all* capabilities when a container is privileged, as kind's nodes are, and runc refuses what the
machine can't give. dockerd calls this program in runc's place (`--add-runtime`): it takes the missing capabilities out
of the container's configuration and then becomes runc. It runs alone, so it imports the standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

# In the order of their numbers in linux/capability.h.
_NAMES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL"),
    *("SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST"),
    *("NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO"),
    *("SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE"),
    *("AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM"),
    *("BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"),
)


def missing_capabilities(status: str) -> set[str]:
    """Names (`CAP_...`) that are not in the bounding set of `status`, the text of a /proc/PID/status."""
    line = next(line for line in status.splitlines() if line.startswith("CapBnd:"))
    bounding = int(line.split()[1], 16)
    return {f"CAP_{name}" for number, name in enumerate(_NAMES) if not bounding >> number & 1}


def without(capabilities: dict[str, list[str]], missing: set[str]) -> dict[str, list[str]]:
    """The capability sets of an OCI process without the missing ones."""
    return {kind: [name for name in names if name not in missing] for kind, names in capabilities.items()}


def _option(arguments: list[str], *names: str) -> str | None:
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else arguments[index + 1] if index + 1 < len(arguments) else None
    return None


def _edit(path: Path, missing: set[str], *keys: str) -> None:
    if not path.is_file():
        return
    document = json.loads(path.read_text())
    process = document
    for key in keys:
        process = process.get(key) or {}
    if process.get("capabilities"):
        process["capabilities"] = without(process["capabilities"], missing)
        path.write_text(json.dumps(document))


def main(arguments: list[str]) -> None:
    """Edit what runc is about to read, then become runc."""
    missing = missing_capabilities(Path("/proc/self/status").read_text())
    if {"create", "run", "restore"} & set(arguments):
        _edit(Path(_option(arguments, "--bundle", "-b") or ".") / "config.json", missing, "process")
    elif "exec" in arguments and (process := _option(arguments, "--process", "-p")):
        _edit(Path(process), missing)
    runc = shutil.which("runc") or "/usr/sbin/runc"
    os.execv(runc, [runc, *arguments])  # noqa: S606 - this is what a front is for


if __name__ == "__main__":
    main(sys.argv[1:])
