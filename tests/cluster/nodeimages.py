"""The images that a node brings along: control plane, CoreDNS, volume provisioner, made of one layer each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tests.cluster import archive, nodefiles, versions
from tests.cluster.process import ClusterError, run

_PROXY_PACKAGES = ("iptables", "conntrack", "nftables", "kmod")
_PROXY_LINKS = ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore")
_HELPER_COMMANDS = ("sh", "mkdir", "rm", "chmod", "ls", "cat", "sleep")
_TOP_LINKS = ("bin", "sbin", "lib", "lib64")


def write(target: Path, programs: Mapping[str, Path], debian: Path, kind_source: Path) -> list[Path]:
    """Write every image to a file in the directory `target` and return the files.

    Args:
        target: an existing directory.
        kind_source: kind's module; its storage manifest names two of the images.
        programs: path by name, as `binaries.ensure` returns them.
        debian: file system with the packages of `rootfs.NODE_PACKAGES`.

    Raises:
        ClusterError: kubeadm wants other images than these.
    """
    provisioner, helper = nodefiles.storage_images(kind_source)
    layers: dict[str, tuple[archive.Layer, list[str]]] = {}
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        layers[f"registry.k8s.io/{name}:{versions.KUBERNETES}"] = (_single(programs[name]), [])
    layers[f"registry.k8s.io/kube-proxy:{versions.KUBERNETES}"] = (_proxy(programs["kube-proxy"], debian), [])
    layers[versions.ETCD_IMAGE] = (_single(programs["etcd"]), [])
    layers[versions.COREDNS_IMAGE] = (_single(programs["coredns"]), ["/usr/local/bin/coredns"])
    layers[versions.PAUSE_IMAGE] = (_single(programs["pause"]), ["/usr/local/bin/pause"])
    _check_tags(programs["kubeadm"], set(layers))
    layers[provisioner] = (_single(programs["local-path-provisioner"]), [])
    layers[helper] = (_helper(debian), [])
    files = []
    for number, (tag, (layer, entrypoint)) in enumerate(layers.items()):
        file = target / f"{number}.tar"
        archive.write(file, tag, layer, entrypoint)
        files.append(file)
    return files


def _check_tags(kubeadm: Path, have: set[str]) -> None:
    wanted = set(run([kubeadm, "config", "images", "list", f"--kubernetes-version={versions.KUBERNETES}"]).split())
    if missing := wanted - have:
        raise ClusterError(f"kubeadm {versions.KUBERNETES} wants images that are not made here: {', '.join(sorted(missing))}")


def _single(program: Path) -> archive.Layer:
    layer = archive.Layer()
    layer.directory("tmp", 0o1777)
    layer.file(program, f"usr/local/bin/{program.name}")
    return layer


def _helper(debian: Path) -> archive.Layer:
    layer = archive.Layer()
    layer.file(debian / "bin/busybox", "bin/busybox")
    for command in _HELPER_COMMANDS:
        layer.link(f"bin/{command}", "busybox")
    return layer


def _proxy(program: Path, debian: Path) -> archive.Layer:
    # All files of the packages and of what they depend on: the xtables modules have libraries of their own, and where
    # one is missing, every rule fails while the pod still shows Ready.
    layer = archive.Layer()
    for name in _TOP_LINKS:
        if (debian / name).is_symlink():
            layer.link(name, f"usr/{name}")
    for package in sorted(closure((debian / "var/lib/dpkg/status").read_text(), _PROXY_PACKAGES)):
        for name in _files(debian, package):
            layer.copy(debian, name)
    for name in _PROXY_LINKS:
        layer.link(f"usr/sbin/{name}", "xtables-nft-multi")
    layer.directory("run", 0o755)
    layer.directory("tmp", 0o1777)
    layer.file(program, "usr/local/bin/kube-proxy")
    return layer


def closure(status: str, packages: tuple[str, ...]) -> set[str]:
    """The packages and all that they depend on, from the text of dpkg's status file."""
    depends: dict[str, list[str]] = {}
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", paragraph, re.MULTILINE))
        if "Package" in fields:
            text = ",".join(filter(None, (fields.get("Pre-Depends"), fields.get("Depends"))))
            depends[fields["Package"]] = re.findall(r"(?:^|[,|])\s*([a-z0-9.+-]+)", text)
    found: set[str] = set()
    queue = list(packages)
    while queue:
        name = queue.pop()
        if name in depends and name not in found:
            found.add(name)
            queue += depends[name]
    return found


def _files(debian: Path, package: str) -> list[str]:
    lists = debian / "var/lib/dpkg/info"
    own = next((path for path in (lists / f"{package}.list", *lists.glob(f"{package}:*.list")) if path.exists()), None)
    if own is None:
        raise ClusterError(f"{package} is not installed in {debian}")
    names = []
    for line in own.read_text().splitlines():
        name = line.strip("/")
        first, _, rest = name.partition("/")
        if first in _TOP_LINKS and (debian / first).is_symlink():
            name = f"usr/{name}" if rest else ""
        if name not in ("", ".") and not name.startswith(("usr/share/doc", "usr/share/man", "usr/share/locale")):
            names.append(name)
    return names
