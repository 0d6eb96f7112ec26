"""Two operators: how long until the other works when the one that leads dies, and when it is told to end."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

from tests.bench.bare import Bare
from tests.bench.goals import Figure
from tests.bench.population import Group, manifest
from tests.bench.rig import Rig
from tests.cluster.progress import say
from tests.support.operator_process import OperatorProcess
from tests.support.waiting import eventually
from trtllm_operator.kube.resources import BY_KIND

LINE = "failover"
LEASE_SECONDS, RETRY_SECONDS = 15.0, 2.0
KILL_GOAL, TERM_GOAL = 1.3, 1.5


def _leads(operator: OperatorProcess) -> bool:
    return operator.metrics().get("trtllm_operator_leading") == 1


def _once(rig: Rig, how: signal.Signals) -> float:
    """Seconds from the signal to the first child of a service that is made right after it."""
    population = rig.prepare(1)
    group, name = population.names[0]
    terms = {"LEADER_ELECTION": "true", "POD_NAMESPACE": "default", "LEASE_SECONDS": f"{LEASE_SECONDS:.0f}"}
    with contextlib.ExitStack() as stack:
        leader, other = (rig.process({"POD_NAME": f"operator-{letter}", **terms}) for letter in "ab")
        for operator in (leader, other):
            stack.callback(operator.stop, signal.SIGTERM)
            operator.start()
            eventually(lambda: _leads(leader), what="the first leads", seconds=60)
        rig.witness.begin(*_CHILDREN, owners=True)
        began = time.monotonic()
        leader.stop(how)
        rig.run(lambda bare: _create(bare, group, name))
        eventually(lambda: rig.witness.has_children([name]), what="the other works", seconds=120, every=0.1)
        seconds = rig.witness.seen().first[name] - began
        assert _leads(other)
    rig.clear(population)
    return seconds


_CHILDREN = ("Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy")


async def _create(bare: Bare, group: Group, name: str) -> None:
    await bare.request("POST", BY_KIND["LLMService"].path(group.namespace), manifest(group, name))


def lines(rig: Rig, repetitions: int) -> Iterator[Figure]:
    """Both ratios."""
    for how, unit, goal, what in (
        (signal.SIGKILL, LEASE_SECONDS, KILL_GOAL, f"the lease's duration ({LEASE_SECONDS:.0f} s)"),
        (signal.SIGTERM, RETRY_SECONDS, TERM_GOAL, f"the retry period ({RETRY_SECONDS:.0f} s)"),
    ):
        seconds = []
        for _ in range(repetitions):
            seconds.append(_once(rig, how))
            say(f"    {how.name}: the other wrote after {seconds[-1]:.2f} s")
        text = f"{how.name} of the leader until the follower's first write / {what}"
        yield Figure(LINE, text, tuple(value / unit for value in seconds), goal=goal, details={"seconds": seconds})
