"""The Debian packages that this machine itself needs: only what is missing is installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import dockerd, images, nodeimage, source
from tests.cluster.process import ClusterError, environment, run
from tests.cluster.progress import say, step

# Program that shows whether it is there, and the package that brings it.
_TO_BUILD = {"debootstrap": "debootstrap", "openssl": "openssl"}
_FOR_OUR_DAEMON = {"dockerd": "docker.io", "containerd": "containerd", "runc": "runc", "iptables": "iptables"}

_POLICY = Path("/usr/sbin/policy-rc.d")


def missing() -> list[str]:
    """Packages to install before a cluster can be made here; none where the parts come from a registry."""
    if source.chosen() == "registry":
        return []
    needed = dict(_TO_BUILD) if not (nodeimage.is_built() and images.base_is_built()) else {}
    if dockerd.find() is None:
        needed |= _FOR_OUR_DAEMON
        if shutil.which("docker") is None and shutil.which("dockerd") is not None:
            needed["docker"] = "docker-cli"
    return [package for program, package in needed.items() if shutil.which(program, path=environment()["PATH"]) is None]


@contextmanager
def _no_services() -> Iterator[None]:
    """Keep the packages from starting services: we start our own daemon. A policy that exists is left as it is."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def install_missing() -> None:
    """Install what `missing` names with apt-get.

    Raises:
        ClusterError: we are not root, or apt-get failed.
    """
    packages = missing()
    if not packages:
        return
    if os.geteuid() != 0:
        raise ClusterError(f"only root can install {', '.join(packages)}: run `apt-get install {' '.join(packages)}` as root")
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    with step(f"installing Debian packages: {', '.join(packages)}"), _no_services():
        run(["apt-get", "update", "--quiet"], env=environment)
        run(["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *packages], env=environment)
        if shutil.which("docker") is None:  # newer Debian has the client in a package of its own
            run(["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "docker-cli"], env=environment)
    say(f"    installed: {', '.join(packages)}; `down` leaves them")
