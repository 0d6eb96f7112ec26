"""Lets the nodes of our own daemon reach what the machine reaches: one rule and one kernel setting, both taken back."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster import cache, dockerd
from tests.cluster.dockerd import Docker
from tests.cluster.process import succeeds
from tests.cluster.progress import say

_NETWORK = "kind"
_COMMENT = "trtllm-operator tests.cluster"
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def _record() -> Path:
    return cache.root() / "egress.json"


def _rule(subnet: str) -> list[str]:
    return ["POSTROUTING", "-s", subnet, "!", "-d", subnet, "-m", "comment", "--comment", _COMMENT, "-j", "MASQUERADE"]


def _iptables(action: str, subnet: str) -> list[str]:
    return ["iptables", "--wait", "--table", "nat", action, *_rule(subnet)]


def allow(docker: Docker) -> None:
    """Set up the network that kind uses and the way out of it; only for a daemon of our own.

    A machine without iptables gets a cluster that reaches nothing outside, which is enough for the tests.
    """
    if not dockerd.is_own():
        return
    if not docker("network", "ls", "--quiet", "--filter", f"name=^{_NETWORK}$").strip():
        docker("network", "create", "--driver=bridge", _NETWORK)
    subnet = docker("network", "inspect", "--format={{(index .IPAM.Config 0).Subnet}}", _NETWORK).strip()
    if succeeds(_iptables("--check", subnet)):
        return
    before = _FORWARD.read_text().strip()
    if not succeeds(_iptables("--append", subnet)):
        say("    no iptables here: pods will reach nothing outside the cluster")
        return
    _record().write_text(json.dumps({"subnet": subnet, "ip_forward": before}))
    _FORWARD.write_text("1\n")


def withdraw() -> None:
    """Take rule and setting back. Harmless where nothing was set."""
    if not _record().exists():
        return
    record = json.loads(_record().read_text())
    succeeds(_iptables("--delete", record["subnet"]))
    _FORWARD.write_text(f"{record['ip_forward']}\n")
    _record().unlink()
