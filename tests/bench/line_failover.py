"""Pairs of operators: how long until the other works when the one that leads dies, and when it is told to end.

All pairs at the same time, each for a namespace of its own: nearly all of it is waiting.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

from tests.bench.goals import Figure
from tests.bench.population import Population, create
from tests.bench.rig import Rig
from tests.cluster.progress import say
from tests.support.operator_process import OperatorProcess
from tests.support.waiting import eventually

LINE = "failover"
LEASE_SECONDS, RETRY_SECONDS = 15.0, 2.0
KILL_GOAL, TERM_GOAL = 1.3, 1.5


def _leads(operator: OperatorProcess) -> bool:
    return operator.metrics().get("trtllm_operator_leading") == 1


def _once(rig: Rig, how: signal.Signals, pairs: int) -> list[float]:
    """Seconds from the signal to the first child of a service that is made right after it, pair by pair."""
    population = rig.prepare(pairs, per_engine=1)
    names = [name for _, name in population.names]
    with contextlib.ExitStack() as stack:
        leaders, others = (_start(rig, stack, population, letter) for letter in "ab")
        rig.witness.begin(*_CHILDREN, owners=True)
        began = []
        for leader in leaders:
            began.append(time.monotonic())
            leader.stop(how)
        rig.run(lambda bare: create(bare, population))
        eventually(lambda: rig.witness.has_children(names), what="the others work", seconds=120, every=0.1)
        first = rig.witness.seen().first
        assert all(map(_leads, others))
    rig.clear(population)
    return [first[name] - when for name, when in zip(names, began, strict=True)]


_CHILDREN = ("Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy")


def _start(rig: Rig, stack: contextlib.ExitStack, population: Population, letter: str) -> list[OperatorProcess]:
    """One operator for each namespace; those that come first lead."""
    started = []
    for group, _ in population.names:
        where = {"POD_NAMESPACE": group.namespace, "WATCH_NAMESPACE": group.namespace}
        terms = {"LEADER_ELECTION": "true", "LEASE_SECONDS": f"{LEASE_SECONDS:.0f}"}
        operator = rig.process({"POD_NAME": f"operator-{letter}", **where, **terms})
        stack.callback(operator.stop, signal.SIGTERM)
        operator.start()
        started.append(operator)
    if letter == "a":
        eventually(lambda: all(map(_leads, started)), what="the first lead", seconds=60)
    return started


def lines(rig: Rig, repetitions: int) -> Iterator[Figure]:
    """Both ratios."""
    for how, unit, goal, what in (
        (signal.SIGKILL, LEASE_SECONDS, KILL_GOAL, f"the lease's duration ({LEASE_SECONDS:.0f} s)"),
        (signal.SIGTERM, RETRY_SECONDS, TERM_GOAL, f"the retry period ({RETRY_SECONDS:.0f} s)"),
    ):
        seconds = _once(rig, how, repetitions)
        say(f"    {how.name}: the others wrote after {', '.join(f'{value:.2f} s' for value in seconds)}")
        text = f"{how.name} of the leader until the follower's first write / {what}"
        yield Figure(LINE, text, tuple(value / unit for value in seconds), goal=goal, details={"seconds": seconds})
