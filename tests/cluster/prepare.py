"""Checks what this machine has, then installs and builds what is missing; quick where all is there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.cluster import binaries, cache, debian, doctor, images, nodeimage, source


def control_plane() -> None:
    """All that the bare control plane needs.

    Raises:
        ClusterError: this machine lacks something (then nothing was changed), or a build failed.
    """
    doctor.require(doctor.control_plane)
    binaries.ensure(*binaries.CONTROL_PLANE)


def cluster() -> None:
    """All that a whole cluster needs.

    Raises:
        ClusterError: this machine lacks something (then nothing was changed), or a build failed.
    """
    doctor.require(doctor.cluster)
    debian.install_missing()
    if source.chosen() == "registry":
        return
    cache.prune("bin", "node", "rootfs", "base")
    with ThreadPoolExecutor(max_workers=1) as beside:  # mostly downloads, so it costs the compiler little
        waiting = beside.submit(images.ensure_base)
        nodeimage.ensure()
        waiting.result()
