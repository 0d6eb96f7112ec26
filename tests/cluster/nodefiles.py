"""Turns a Debian file system into that of a kind node: the steps of kind's own base image, with Debian's containerd.

kind's files are read from its Go module, where `images/base/Dockerfile` says what is done with them.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from tests.cluster import versions
from tests.cluster.process import ClusterError, run

POD_SUBNET = "10.244.0.0/24"
"""The part of kind's pod subnet that the first node gets; with a static CNI configuration there is no other node."""

_PRUNED_UNITS = (
    "lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
    "lib/systemd/system/multi-user.target.wants/*",
    "etc/systemd/system/*.wants/*",
    "lib/systemd/system/local-fs.target.wants/*",
    "lib/systemd/system/sockets.target.wants/*udev*",
    "lib/systemd/system/sockets.target.wants/*initctl*",
    "lib/systemd/system/basic.target.wants/*",
)
_ENABLED_UNITS = ("kubelet", "containerd", "undo-mount-hacks")
_CNI_PLUGINS = ("host-local", "loopback", "ptp", "portmap")


def install(root: Path, kind_source: Path) -> None:
    """Put kind's files into the file system at `root` and configure systemd, containerd and the network.

    Raises:
        ClusterError: kind's files are not as this recipe knows them.
    """
    shutil.copytree(kind_source / "images" / "base" / "files", root, dirs_exist_ok=True, copy_function=_copy)
    (root / "kind").chmod(0o755)
    _systemd(root)
    _containerd(root)
    _network(root)
    (root / "etc/kubernetes/manifests").mkdir(parents=True, exist_ok=True)
    (root / "etc/machine-id").write_text("")
    (root / "kind/version").write_text(versions.KUBERNETES)
    manifests = root / "kind/manifests"
    manifests.mkdir(exist_ok=True)
    manifests.joinpath("default-storage.yaml").write_text(storage_manifest(kind_source))
    manifests.joinpath("default-cni.yaml").write_text(_CNI_MANIFEST)


def _copy(source: str, target: str) -> None:
    # Files of the module cache are read-only and not executable; kind's Dockerfile makes these two directories executable.
    shutil.copyfile(source, target)
    Path(target).chmod(0o755 if Path(target).parent.name == "bin" else 0o644)


def _systemd(root: Path) -> None:
    for pattern in _PRUNED_UNITS:
        for path in root.glob(pattern):
            path.unlink()
    units = root / "etc/systemd/system"
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    for unit in _ENABLED_UNITS:
        (wants / f"{unit}.service").symlink_to(f"../{unit}.service")
    # It would register handlers with the kernel that this machine runs on.
    (units / "systemd-binfmt.service").symlink_to("/dev/null")
    with (root / "etc/systemd/journald.conf").open("a") as journald:
        journald.write("ReadKMsg=no\n")


def _containerd(root: Path) -> None:
    local = root / "usr/local/bin"
    for program in ("containerd", "ctr", "containerd-shim-runc-v2"):
        (local / program).symlink_to(f"/usr/bin/{program}")
    spec = json.loads(run(["chroot", root, "/usr/bin/ctr", "oci", "spec"]))
    spec["process"].pop("rlimits", None)
    spec.setdefault("hooks", {}).setdefault("createContainer", []).append({"path": "/kind/bin/mount-product-files.sh"})
    (root / "etc/containerd/cri-base.json").write_text(json.dumps(spec))
    settings = root / "etc/containerd/config.toml"
    text = settings.read_text()
    # The score of a container can't go below that of containerd on a machine without CAP_SYS_RESOURCE.
    text = _replace(text, r"restrict_oom_score_adj = false", "restrict_oom_score_adj = true")
    text = _replace(text, r'sandbox_image = "[^"]*"', f'sandbox_image = "{versions.PAUSE_IMAGE}"')
    settings.write_text(text)


def _network(root: Path) -> None:
    plugins = root / "opt/cni/bin"
    plugins.mkdir(parents=True)
    for name in _CNI_PLUGINS:
        shutil.copy2(root / "usr/lib/cni" / name, plugins / name)
    configuration = {
        "cniVersion": "0.4.0",
        "name": "static",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni-ipam-state",
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "ranges": [[{"subnet": POD_SUBNET}]],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    target = root / "etc/cni/net.d/10-static.conflist"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(configuration, indent=1))


def _replace(text: str, pattern: str, replacement: str) -> str:
    changed, count = re.subn(pattern, replacement, text)
    if count != 1:
        raise ClusterError(f"kind {versions.KIND}: {pattern!r} is {count} times in its containerd configuration instead of once")
    return changed


def storage_images(kind_source: Path) -> tuple[str, str]:
    """The tags of the volume provisioner's and of its helper's image that kind's storage manifest names."""
    text = (kind_source / "pkg/build/nodeimage/const_storage.go").read_text()
    found = [re.search(rf'const {name} = "([^"]+)"', text) for name in ("storageProvisionerImage", "storageHelperImage")]
    if not (found[0] and found[1]):
        raise ClusterError(f"kind {versions.KIND}: its storage manifest no longer names its images by these constants")
    return found[0][1], found[1][1]


def storage_manifest(kind_source: Path) -> str:
    """The manifest of the default StorageClass: in kind a Go constant with the image tags spliced in."""
    provisioner, helper = storage_images(kind_source)
    text = (kind_source / "pkg/build/nodeimage/const_storage.go").read_text()
    body = text.partition("const defaultStorageManifest = `")[2]
    body = body.replace("` + storageProvisionerImage + `", provisioner).replace("` + storageHelperImage + `", helper)
    return body.rpartition("`")[0]


# kind applies this file in any case; the network is configured already.
_CNI_MANIFEST = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: static-cni
  namespace: kube-system
data:
  about: This node has a static CNI configuration (ptp, host-local, portmap). Nothing enforces NetworkPolicy.
"""
