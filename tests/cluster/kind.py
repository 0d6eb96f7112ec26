"""A whole one-node cluster in a container, by kind; several can run side by side."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import binaries, cache, dockerd, egress, nodeimage, prepare, source
from tests.cluster.dockerd import Docker
from tests.cluster.gpus import Gpus
from tests.cluster.process import ClusterError, CommandError, run
from tests.cluster.progress import step

DEFAULT_NAME = "trtllm"

_READY_SECONDS = 180.0
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Cluster:
    """A cluster by name, whether it runs or not."""

    name: str = DEFAULT_NAME

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig of its own; the user's is never touched."""
        return cache.root() / "clusters" / self.name / "kubeconfig"

    @property
    def node(self) -> str:
        """Name of the node and of its container."""
        return f"{self.name}-control-plane"

    def running(self) -> bool:
        """Whether its node runs. Changes nothing."""
        docker = dockerd.find()
        return docker is not None and self.kubeconfig.exists() and self._node_state(docker) == "running"

    def up(self, gpus: Gpus | None = None) -> None:
        """Make it run, from whatever state this machine is in; on a running one nothing changes, its GPUs included.

        Raises:
            ClusterError: it did not come up; the message says which part.
        """
        if self.running():
            return
        prepare.cluster()
        docker = dockerd.ensure()
        with cache.lock(f"cluster-{self.name}"):
            if self.running():
                return
            if self._node_state(docker):
                self._delete(docker)  # left by a run that was interrupted, or stopped with its daemon
            self._create(docker)
            self.wait()
            self.set_gpus(gpus or Gpus())

    def _create(self, docker: Docker) -> None:
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        image = [] if source.chosen() == "registry" else [f"--image={nodeimage.load(docker)}"]
        egress.allow(docker)
        with step(f"creating the cluster {self.name}"):
            self._kind(docker, "create", "cluster", *image, f"--kubeconfig={self.kubeconfig}", "--config=-", stdin=self._config())
        self.kubeconfig.chmod(0o600)

    def _config(self) -> str:
        return yaml.safe_dump(
            {
                "kind": "Cluster",
                "apiVersion": "kind.x-k8s.io/v1alpha4",
                "name": self.name,
                "networking": {"ipFamily": "ipv4"},
                "nodes": [{"role": "control-plane"}],
            }
        )

    def wait(self) -> None:
        """Wait until every system pod is ready. (`kind create --wait` looks at the node only, which is not enough.)"""
        with step(f"waiting for the system pods of {self.name}"):
            deadline = time.monotonic() + _READY_SECONDS
            while problem := self._not_ready():
                if time.monotonic() > deadline:
                    raise ClusterError(f"the cluster {self.name} is not ready after {_READY_SECONDS:.0f} s: {problem}")
                time.sleep(_POLL_SECONDS)

    def _not_ready(self) -> str:
        try:
            pods = json.loads(self.kubectl("get", "pods", "--all-namespaces", "--output=json"))["items"]
            self.kubectl("get", "serviceaccount", "default", "--namespace=default")
        except CommandError as error:
            return error.output.strip() or str(error)
        names = {pod["metadata"]["name"] for pod in pods}
        expected = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns", "local-path-provisioner")
        missing = [part for part in expected if not any(name.startswith(part) for name in names)]
        waiting = [pod["metadata"]["name"] for pod in pods if not _ready(pod)]
        return ", ".join([f"no pod of {part}" for part in missing] + [f"{name} is not ready" for name in waiting])

    def set_gpus(self, gpus: Gpus) -> None:
        """Give the node these GPUs and labels instead of what it has."""
        with step(f"{self.node}: {gpus.count} x {gpus.product}, compute capability {gpus.compute_capability}"):
            self.kubectl("patch", "node", self.node, "--type=merge", f"--patch={gpus.node_patch()}")
            self.kubectl("patch", "node", self.node, "--subresource=status", "--type=merge", f"--patch={gpus.status_patch()}")

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run the node's own kubectl as admin: it has the cluster's version, and the machine needs none."""
        docker = self._docker()
        return docker(
            *("exec", *(["--interactive"] if stdin is not None else []), self.node),
            *("kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", *arguments),
            stdin=stdin,
        )

    def load(self, images: Sequence[str]) -> list[str]:
        """Bring images of the Docker daemon into the node; what is there with the same content is left out.

        Returns:
            The images that had to be loaded.

        Raises:
            ClusterError: the daemon has no such image, or the cluster does not run.
        """
        docker = self._docker()
        wanted = {image: self._image_id(docker, image) for image in images}
        ctr = ("exec", self.node, "ctr", "--namespace=k8s.io", "images")
        there = docker(*ctr, "ls")
        missing = [image for image, digest in wanted.items() if f"{_MARK}={digest}" not in _line_of(there, _full_name(image))]
        if missing:
            with step(f"loading {', '.join(missing)} into {self.name}"):
                self._kind(docker, "load", "docker-image", f"--name={self.name}", *missing)
                for image in missing:
                    docker(*ctr, "label", _full_name(image), f"{_MARK}={wanted[image]}")
        return missing

    @staticmethod
    def _image_id(docker: Docker, image: str) -> str:
        try:
            return docker("image", "inspect", "--format={{.Id}}", image).strip().removeprefix("sha256:")
        except CommandError as error:
            raise ClusterError(f"the Docker daemon has no image {image}: build or pull it first") from error

    def down(self) -> None:
        """Remove it and its kubeconfig. Harmless when there is none."""
        with cache.lock(f"cluster-{self.name}"):
            if (docker := dockerd.find()) is not None and self._node_state(docker):
                self._delete(docker)
            cache.remove(self.kubeconfig.parent)

    def _delete(self, docker: Docker) -> None:
        with step(f"removing the cluster {self.name}"):
            self._kind(docker, "delete", "cluster", f"--name={self.name}", f"--kubeconfig={self.kubeconfig}")

    def _docker(self) -> Docker:
        docker = dockerd.find()
        if docker is None or self._node_state(docker) != "running":
            raise ClusterError(f"the cluster {self.name} does not run: start it with `python -m tests.cluster up --name {self.name}`")
        return docker

    def _node_state(self, docker: Docker) -> str:
        """`running`, `exited`, ..., or nothing where there is no such container."""
        return docker(
            *("container", "ls", "--all", "--filter", f"name=^{self.node}$"),
            *("--filter", f"label=io.x-k8s.kind.cluster={self.name}", "--format={{.State}}"),
        ).strip()

    @staticmethod
    def _kind(docker: Docker, *arguments: str, stdin: str | None = None) -> str:
        return run([program(), *arguments], env=docker.environment, stdin=stdin)


_MARK = "trtllm.dev/docker-id"


def program() -> Path:
    """kind: with images of a registry one from PATH will do; else the pinned one, which is built if need be."""
    if source.chosen() == "registry" and (found := shutil.which("kind")):
        return Path(found)
    return binaries.ensure("kind")["kind"]


def existing(docker: Docker) -> list[str]:
    """Names of the clusters of ours that the daemon has, running or not."""
    have = docker("container", "ls", "--all", "--filter=label=io.x-k8s.kind.cluster", '--format={{.Label "io.x-k8s.kind.cluster"}}')
    made = {path.name for path in (cache.root() / "clusters").glob("*")}
    return sorted(set(have.split()) & made)


def remove_network(docker: Docker) -> None:
    """Remove kind's network, and with it the bridge of this machine. Not for a daemon that others use: kind itself never removes it."""
    docker("network", "rm", "kind", check=False)


def _ready(pod: dict[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


def _full_name(image: str) -> str:
    """The name as containerd knows it: with registry and tag."""
    first, slash, _ = image.partition("/")
    if not slash:
        image = f"docker.io/library/{image}"
    elif not ("." in first or ":" in first or first == "localhost"):
        image = f"docker.io/{image}"
    return image if ":" in image.rpartition("/")[2] else f"{image}:latest"


def _line_of(listing: str, name: str) -> str:
    return next((line for line in listing.splitlines() if line.split()[:1] == [name]), "")
