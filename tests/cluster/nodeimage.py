"""The image of a kind node, made from packages; where a registry answers, kind's official one is taken instead.

It isn't a conformant kind image: network plugin, containerd and the images inside differ from upstream's.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import archive, binaries, cache, gobuild, nodefiles, nodeimages, rootfs, versions
from tests.cluster.child import Child
from tests.cluster.dockerd import Docker
from tests.cluster.process import ClusterError, run, succeeds
from tests.cluster.progress import step

REPOSITORY = "trtllm-operator/node"

_PROGRAMS = ("kubelet", "kubeadm", "kubectl")
_RECIPE_FILES = ("nodefiles.py", "nodeimages.py", "nodeimage.py", "archive.py", "versions.py")
_CONTAINERD_SECONDS = 30.0


def digest() -> str:
    """The key: every program, the file system, and the files of this recipe."""
    names = (*binaries.CONTROL_PLANE, *binaries.NODE)
    return cache.key(
        {
            "programs": {name: binaries.digest(name) for name in names},
            "rootfs": rootfs.digest(rootfs.NODE_PACKAGES),
            **{name: Path(__file__).with_name(name) for name in _RECIPE_FILES},
        }
    )


def tag() -> str:
    """Name of the image."""
    return f"{REPOSITORY}:{versions.KUBERNETES}-{digest()}"


def is_built() -> bool:
    """Whether the cache has it."""
    return (cache.artifact("node", digest()) / "node.tar").exists()


def ensure() -> Path:
    """The node's file system as a tar; built if it is not in the cache, from parts that are there or are built, too."""
    final = cache.artifact("node", digest()) / "node.tar"
    if final.exists():
        os.utime(final.parent)
        return final
    with ThreadPoolExecutor(max_workers=1) as beside:  # mostly downloads, so it costs the compiler little
        waiting = beside.submit(rootfs.tree, rootfs.NODE_PACKAGES)
        programs = binaries.ensure(*binaries.CONTROL_PLANE, *binaries.NODE)
        debian = waiting.result()
    kind_source = gobuild.module_directory("kind", "sigs.k8s.io/kind")

    def make(target: Path) -> None:
        with step("assembling the node image"):
            root = target / "root"
            run(["cp", "-a", "--reflink=auto", debian, root])
            nodefiles.install(root, kind_source)
            for name in _PROGRAMS:
                shutil.copy2(programs[name], root / "usr/bin" / name)
            files = nodeimages.write(target, programs, debian, kind_source)
            _import(root, files, target / "containerd.log")
            run(["tar", "--create", "--numeric-owner", f"--file={target / 'node.tar'}", f"--directory={root}", "."])
            for leftover in (root, *files):
                cache.remove(leftover)

    return cache.obtain("node", digest(), make) / "node.tar"


@contextmanager
def _containerd(root: Path, log: Path) -> Iterator[list[str]]:
    """The file system's own containerd, in namespaces of its own; yields the argv of a client for it."""
    state = "/run/image-build"
    socket = f"{state}/containerd.sock"
    child = Child(
        [
            *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", f"--root={root}", "--mount-proc"),
            *("/usr/bin/containerd", "--root", "/var/lib/containerd", "--state", state, "--address", socket),
        ],
        log,
    )
    client = ["chroot", str(root), "/usr/bin/ctr", "--address", socket, "--namespace", "k8s.io"]
    try:
        deadline = time.monotonic() + _CONTAINERD_SECONDS
        while not succeeds([*client, "version"]):
            child.check()
            if time.monotonic() > deadline:
                raise ClusterError(f"containerd in {root} does not answer; see {log}")
            time.sleep(0.1)
        yield client
    finally:
        child.stop()
        cache.remove(root / state.lstrip("/"))


def _import(root: Path, files: list[Path], log: Path) -> None:
    with _containerd(root, log) as client:
        for file in files:
            with file.open("rb") as content:
                run([*client, "images", "import", "--no-unpack", "--platform", f"linux/{archive.architecture()}", "-"], stdin=content)


def load(docker: Docker) -> str:
    """Make the image known to the daemon, if it isn't, and return its tag."""
    name = tag()
    if docker("image", "ls", "--quiet", name).strip():
        return name
    tarball = ensure()
    with step("importing the node image into Docker"):
        changes = ["ENV container=docker", 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]']
        docker("import", *(part for change in changes for part in ("--change", change)), tarball, name)
    others = docker("image", "ls", "--format={{.Repository}}:{{.Tag}}", REPOSITORY).split()
    for old in set(others) - {name}:
        docker("image", "rm", old, check=False)  # of an earlier recipe; it stays while a node runs from it
    return name
