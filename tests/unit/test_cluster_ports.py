"""Ports that are given to programs of ours: each to one only, though it is bound later."""

from __future__ import annotations

import socket
import subprocess
import sys

from tests.cluster.ports import free_ports

_OTHER = """
import sys
from tests.cluster.ports import free_ports
print(*free_ports(150), flush=True)
sys.stdin.read()
"""


def test_no_port_is_given_twice_to_this_process_or_to_others() -> None:
    argv = [sys.executable, "-c", _OTHER]
    given = free_ports(100)
    assert not set(given) & set(free_ports(20)), "the others come first"
    with (
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as two,
    ):
        assert one.stdout is not None
        assert two.stdout is not None
        others = [int(port) for stream in (one.stdout, two.stdout) for port in stream.readline().split()]
    assert len({*given, *others}) == 400


def test_what_somebody_has_is_left_out() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", free_ports(1)[0]))
        assert held.getsockname()[1] not in {port for _ in range(10) for port in free_ports(50)}
