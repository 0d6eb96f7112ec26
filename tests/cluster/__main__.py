"""Command line of the cluster tool."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from tests.cluster import commands
from tests.cluster.gpus import Gpus
from tests.cluster.kind import DEFAULT_NAME
from tests.cluster.process import ClusterError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description="A Kubernetes of our own, for tests and demo.")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: commands.Command, text: str, *, cluster: bool = False) -> argparse.ArgumentParser:
        made = subparsers.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        if cluster:
            made.add_argument("--name", default=DEFAULT_NAME, help="name of the cluster (default: %(default)s)")
        return made

    for name, run, text in (
        ("doctor", commands.run_doctor, "say what this machine lacks and what to do; changes nothing"),
        ("prepare", commands.build_all, "build everything into the cache"),
    ):
        made = command(name, run, text)
        made.add_argument("--control-plane-only", action="store_true", help="only etcd, kube-apiserver, kube-controller-manager")
    _add_gpus(command("up", commands.up, "start a cluster; a running one is left as it is", cluster=True))
    _add_gpus(command("set-gpus", commands.set_gpus, "change GPUs and labels of a running node", cluster=True))
    made = command("down", commands.down, "remove a cluster, and with the last one all that served it", cluster=True)
    made.add_argument("--all", action="store_true", help="every cluster that this tool made")
    made.add_argument("--cache", action="store_true", help="what was built, too")
    command("status", commands.status, "show what runs and what is built")
    command("kubeconfig", commands.kubeconfig, "print the path of the kubeconfig", cluster=True)
    made = command("load", commands.load, "bring images of the Docker daemon into the node", cluster=True)
    made.add_argument("image", nargs="+")
    made = command("build", commands.build, "build an image, unless it was made from the same content")
    made.add_argument("--tag", required=True)
    made.add_argument("--context", type=Path, required=True)
    made.add_argument("--file", type=Path, help="the Dockerfile (default: Dockerfile in the context)")
    made.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    made.add_argument("--path", action="append", default=[], help="send only this part of the context (may be repeated)")
    made = command("docker", commands.docker_client, "run the docker client on the daemon that the clusters run in")
    made.add_argument("arguments", nargs=argparse.REMAINDER)
    made = command("kubectl", commands.kubectl, "run kubectl on a cluster", cluster=True)
    made.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser


def _add_gpus(parser: argparse.ArgumentParser) -> None:
    default = Gpus()
    parser.add_argument("--gpus", type=int, default=default.count, help="how many (default: %(default)s)")
    parser.add_argument("--gpu-product", default=default.product, help="as GPU feature discovery names it (default: %(default)s)")
    parser.add_argument("--compute-capability", default=default.compute_capability, help="MAJOR.MINOR (default: %(default)s)")
    parser.add_argument("--gpu-memory", type=int, default=default.memory, help="MiB of one GPU (default: %(default)s)")
    parser.add_argument("--taint", action="store_true", help="only pods that tolerate nvidia.com/gpu are scheduled there")


def main() -> int:
    """Run one command; what a person must know goes to stderr, with exit status 1."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what is half done is cleaned up
    try:
        return int(options.run(options))
    except (ClusterError, ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
