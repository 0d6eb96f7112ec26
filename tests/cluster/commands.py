"""What each command of `python -m tests.cluster` does."""

from __future__ import annotations

import os
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tests.cluster import binaries, cache, dockerd, doctor, egress, images, kind, prepare, source
from tests.cluster.gpus import Gpus
from tests.cluster.kind import Cluster
from tests.cluster.process import ClusterError, run
from tests.cluster.progress import say


def _gpus(options: Namespace) -> Gpus:
    return Gpus(options.gpus, options.gpu_product, options.compute_capability, options.gpu_memory, options.taint)


def run_doctor(options: Namespace) -> int:
    """Print every finding; status 1 if something is missing."""
    needs = doctor.control_plane if options.control_plane_only else doctor.cluster
    findings = list(needs(doctor.gather()))
    for finding in findings:
        print(finding)
    return 0 if all(finding.ok for finding in findings) else 1


def build_all(options: Namespace) -> int:
    """Build into the cache."""
    if options.control_plane_only:
        prepare.control_plane()
    else:
        prepare.cluster()
    return 0


def up(options: Namespace) -> int:
    """Start a cluster if it does not run."""
    cluster = Cluster(options.name)
    cluster.up(_gpus(options))
    print(cluster.kubeconfig)
    return 0


def set_gpus(options: Namespace) -> int:
    """Change a running node's GPUs."""
    Cluster(options.name).set_gpus(_gpus(options))
    return 0


def down(options: Namespace) -> int:
    """Remove one cluster or all; with the last one what served it; with --cache what was built."""
    docker = dockerd.revive()
    remove(kind.existing(docker) if options.all and docker else [options.name])
    if options.cache:
        run(["chmod", "-R", "u+w", cache.root()], check=False)  # Go keeps the sources of modules read-only
        cache.remove(cache.root())
    return 0


def remove(names: Iterable[str]) -> None:
    """Remove these clusters; with the last one what served it."""
    for name in names:
        Cluster(name).down()
    docker = dockerd.find()
    if docker is None or not kind.existing(docker):
        egress.withdraw()
        if docker is not None and dockerd.is_own():
            kind.remove_network(docker)
        dockerd.stop()
        cache.remove(cache.root() / "clusters")


def status(_: Namespace) -> int:
    """Print what runs and what is built."""
    docker = dockerd.find()
    print(f"cache      {cache.root()}")
    print(f"docker     {'none' if docker is None else docker.host or 'of this machine'}")
    if docker is not None:
        for name in kind.existing(docker):
            cluster = Cluster(name)
            print(f"cluster    {name}: {'running' if cluster.running() else 'not running'}; kubeconfig {cluster.kubeconfig}")
    names = (*binaries.CONTROL_PLANE, *binaries.NODE)
    print(f"built      {', '.join(name for name in names if binaries.path(name).exists()) or 'nothing'}")
    return 0


def kubeconfig(options: Namespace) -> int:
    """Print the path of a running cluster's kubeconfig."""
    cluster = Cluster(options.name)
    if not cluster.running():
        raise ClusterError(f"the cluster {options.name} does not run: start it with `python -m tests.cluster up --name {options.name}`")
    print(cluster.kubeconfig)
    return 0


def load(options: Namespace) -> int:
    """Bring images into the node."""
    for image in Cluster(options.name).load(options.image):
        say(f"    loaded {image}")
    return 0


def build(options: Namespace) -> int:
    """Build an image unless it is up to date."""
    arguments: dict[str, str] = {}
    for one in options.build_arg:
        name, equals, value = one.partition("=")
        if not equals:
            raise ClusterError(f"--build-arg {one}: give NAME=VALUE")
        arguments[name] = value
    if dockerd.find() is None:
        prepare.cluster()
    if not images.build(options.tag, options.context, options.file, arguments=arguments, paths=options.path or None):
        say(f"    {options.tag} is up to date")
    return 0


def docker_client(options: Namespace) -> int:
    """Become the docker client, for the daemon that the clusters run in."""
    docker = dockerd.find()
    if docker is None:
        raise ClusterError("no Docker daemon runs: `python -m tests.cluster up` starts one")
    return _become("docker", options.arguments, docker.environment)


def kubectl(options: Namespace) -> int:
    """Become kubectl, for one cluster."""
    kubeconfig_path = Cluster(options.name).kubeconfig
    if not kubeconfig_path.exists():
        raise ClusterError(f"there is no cluster {options.name}: start it with `python -m tests.cluster up --name {options.name}`")
    return _become(str(kubectl_program()), options.arguments, {"KUBECONFIG": str(kubeconfig_path)})


def kubectl_program() -> Path:
    """The pinned kubectl if it is built or nothing else is there; else the one from PATH."""
    found = shutil.which("kubectl")
    if found and source.chosen() == "registry":
        return Path(found)
    return binaries.ensure("kubectl")["kubectl"]


def _become(program: str, arguments: list[str], environment: Mapping[str, str]) -> int:
    rest = arguments[1:] if arguments[:1] == ["--"] else arguments
    os.execvpe(program, [program, *rest], {**os.environ, **environment})  # noqa: S606 - no shell: argv as given


Command = Callable[[Namespace], int]
