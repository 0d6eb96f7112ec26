"""Which programs there are, which module set each comes from, and where it lies in the cache."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import cache, gobuild, versions
from tests.cluster.progress import step

_RECIPE = 1
"""Raise it when the way of building changes so that programs built before must not be used."""

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager")
NODE = ("pause", "kube-scheduler", "kube-proxy", "kubelet", "kubeadm", "kubectl", "coredns", "local-path-provisioner", "kind")


@dataclass(frozen=True)
class _Source:
    module_set: str
    packages: dict[str, str]
    ldflags: str = ""


def _kubernetes() -> _Source:
    major, minor, _ = versions.KUBERNETES.removeprefix("v").split(".")
    facts = {"gitVersion": versions.KUBERNETES, "gitMajor": major, "gitMinor": minor, "gitTreeState": "archive"}
    stamps = [
        f"-X {package}.{name}={value}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for name, value in facts.items()
    ]
    programs = (
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
        "kubelet",
        "kubeadm",
        "kubectl",
    )
    return _Source("kubernetes", {name: f"k8s.io/kubernetes/cmd/{name}" for name in programs}, " ".join(stamps))


_SOURCES = (
    _Source("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}),
    _kubernetes(),
    _Source("kind", {"kind": "sigs.k8s.io/kind"}),
    _Source("pause", {"pause": "trtllm.dev/tests/cluster/pause"}),
    _Source(
        "local-path",
        {"local-path-provisioner": "github.com/rancher/local-path-provisioner"},
        f"-X main.VERSION={versions.LOCAL_PATH}",
    ),
    _Source("coredns", {"coredns": "github.com/coredns/coredns"}),
)


def _digest(source: _Source, name: str) -> str:
    # The Go toolchain is left out on purpose: a new patch release of Go shall not cost everybody a rebuild.
    where = gobuild.MODULE_SETS / source.module_set
    return cache.key(
        {
            "recipe": _RECIPE,
            "name": name,
            "package": source.packages[name],
            "ldflags": source.ldflags,
            "go.mod": where / "go.mod",
            "go.sum": where / "go.sum",
            "own source": {path.name: path.read_text() for path in sorted(where.glob("*.go"))},
            "platform": [sys.platform, os.uname().machine],
        }
    )


def digest(name: str) -> str:
    """The key of a program: its module set's pins, its stamps, the platform."""
    return next(_digest(source, name) for source in _SOURCES if name in source.packages)


def path(name: str) -> Path:
    """Where the program lies once it has been built."""
    return cache.artifact("bin", f"{name}-{digest(name)}") / name


def ensure(*names: str) -> dict[str, Path]:
    """Build what is missing of these programs and return the path of each.

    Raises:
        ValueError: a name that no module set makes.
        CommandError: a build failed.
    """
    known = {name for source in _SOURCES for name in source.packages}
    if unknown := set(names) - known:
        raise ValueError(f"no such program: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    for source in _SOURCES:
        missing = [name for name in source.packages if name in names and not path(name).exists()]
        for name in set(names) & set(source.packages) - set(missing):
            os.utime(path(name).parent)
        if missing:
            with cache.lock(f"go-{source.module_set}"):
                _build(source, missing)
    return {name: path(name) for name in names}


def _build(source: _Source, names: list[str]) -> None:
    # One program at a time: each is usable as soon as it is there, and an interrupted run goes on from Go's own cache.
    for name in names:

        def make(target: Path, name: str = name) -> None:
            with step(f"building {name} from Go modules"):
                gobuild.build(source.module_set, {name: source.packages[name]}, source.ldflags, target)

        cache.obtain("bin", f"{name}-{_digest(source, name)}", make)
