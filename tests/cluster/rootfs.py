"""Debian file systems made by debootstrap: one for the node, one as the base of our Dockerfiles."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.cluster import cache, versions
from tests.cluster.child import dying_with_us
from tests.cluster.process import run
from tests.cluster.progress import step

_RECIPE = 1

BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates")

NODE_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "containerd", "runc", "containernetworking-plugins"),
    *("iptables", "nftables", "conntrack", "iproute2", "ethtool", "socat", "kmod", "util-linux", "mount", "procps"),
    *("libseccomp2", "ca-certificates", "jq", "busybox-static"),
)


def mirror(text: str) -> list[str]:
    """The Debian mirror that this text of apt's sources names; nothing where it names none, then debootstrap knows one."""
    pattern = r"^(?:URIs:\s*|deb\s+(?:\[[^\]]*\]\s*)?)(https?://\S+/debian/?)(?=\s|$)"
    found = re.search(pattern, text, re.MULTILINE)
    return [found[1]] if found else []


def _sources() -> str:
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    return "\n".join(path.read_text(errors="replace") for path in files if path.is_file())


def digest(packages: tuple[str, ...]) -> str:
    """The key of a file system with these packages. The archive's point releases are not part of it."""
    return cache.key({"recipe": _RECIPE, "suite": versions.DEBIAN_SUITE, "packages": packages, "machine": os.uname().machine})


def tree(packages: tuple[str, ...]) -> Path:
    """A directory with a Debian of these packages; read-only, copy it before you change it.

    Raises:
        CommandError: debootstrap failed, e.g. because the mirror can't be reached.
    """

    def make(target: Path) -> None:
        downloads = cache.root() / "debs"
        downloads.mkdir(parents=True, exist_ok=True)
        # One at a time, since they share the downloads.
        with cache.lock("debootstrap"), step(f"Debian {versions.DEBIAN_SUITE} with {', '.join(packages[:3])}, ..."):
            run(
                [
                    # Namespaces of its own: what it mounts is never seen elsewhere, and ends with it, however it ends.
                    *(
                        *dying_with_us(),
                        "unshare",
                        "--mount",
                        "--propagation",
                        "private",
                        "--pid",
                        "--fork",
                        "--kill-child",
                        "--mount-proc",
                    ),
                    *("debootstrap", "--variant=minbase", f"--cache-dir={downloads}", f"--include={','.join(packages)}"),
                    versions.DEBIAN_SUITE,
                    target / "root",
                    *mirror(_sources()),
                ],
                env={"DEBIAN_FRONTEND": "noninteractive"},
            )
            _slim(target / "root")

    return cache.obtain("rootfs", digest(packages), make) / "root"


def _slim(root: Path) -> None:
    """Remove what no container needs: package lists, downloaded packages, manuals."""
    for pattern in ("var/cache/apt/archives/*.deb", "var/lib/apt/lists/*_*", "usr/share/man/*", "usr/share/doc/*", "usr/share/locale/*"):
        for path in root.glob(pattern):
            cache.remove(path)
