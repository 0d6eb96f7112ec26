"""Services applied until everything is as desired, beside a bare client that writes the same, in turn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench import machine
from tests.bench.goals import Figure, ratio
from tests.bench.population import Population, check, create
from tests.bench.recorder import by_resource, repeated
from tests.bench.replay import Score
from tests.bench.rig import Rig, Settled
from tests.cluster.progress import say
from tests.support.operator_process import OperatorProcess

GOAL = 1.3
DEPLOYMENTS_GOAL = 4.0
PEERS = "NIM 26.3 to 28.0 s, vLLM production-stack 9.6 s (2 cores, etcd without fsync; other children: see their operators)"


def settle(rig: Rig, population: Population, source: Path | None = None, *, recorded: bool = False) -> Settled:
    """Let an operator do it, and check that it did."""
    with rig.operator(source=source, recorded=recorded) as operator:
        rig.witness.begin()
        passes = _passes(operator)
        cpu, began = machine.cpu_seconds(operator.pid), time.monotonic()
        rig.run(lambda bare: create(bare, population))
        rig.quiet(operator)
        seen = rig.witness.seen()
        passes = _passes(operator) - passes
        cpu, rss = machine.cpu_seconds(operator.pid) - cpu, machine.rss(operator.pid)
        rig.run(lambda bare: check(bare, population))
    return Settled(seen.last - began, seen.added["Deployment"][-1] - began, cpu, rss, passes)


def _passes(operator: OperatorProcess) -> float:
    return sum(value for name, value in operator.metrics().items() if name.startswith("trtllm_operator_reconcile_seconds_count{"))


def record(rig: Rig, count: int) -> Score:
    """Let an operator do it through the recorder, and keep what it wrote."""
    population = rig.prepare(count)
    mark = rig.recorder.mark()
    settle(rig, population, recorded=True)
    writes = rig.recorder.writes(mark)
    rig.clear(population)
    say(f"    recorded {len(writes) / count:.2f} writes for each service: {by_resource(writes)}, more than once: {repeated(writes)}")
    return Score(population, writes)


def floor(rig: Rig, score: Score, count: int) -> float:
    """Seconds of the bare client, until the last event of it was seen."""
    population = rig.prepare(count)
    rig.witness.begin()
    began = time.monotonic()
    rig.run(lambda bare: score.play(bare, population))
    ended = time.monotonic()
    rig.run(lambda bare: check(bare, population))
    seconds = max(ended, rig.witness.seen().last) - began
    rig.clear(population)
    return seconds


def lines(rig: Rig, count: int, repetitions: int) -> Iterator[Figure]:
    """The ratio, and for 300 services the time until all Deployments exist."""
    score = rig.scores.get(count) or record(rig, count)
    ours: list[Settled] = []
    bare: list[float] = []
    for number in range(1, repetitions + 1):
        population = rig.prepare(count)
        ours.append(settle(rig, population))
        rig.clear(population)
        bare.append(floor(rig, score, count))
        say(f"    {number} of {repetitions}: operator {ours[-1].seconds:.2f} s (CPU {ours[-1].cpu:.2f} s), bare client {bare[-1]:.2f} s")
    rig.settled[count] = ours
    yield ratio(
        f"settle-{count}",
        f"{count} services applied until settled / a bare client that writes the same",
        [run.seconds for run in ours],
        bare,
        GOAL,
        writes=score.count,
        left_out=score.left_out,
        operator_cpu_seconds=[run.cpu for run in ours],
        passes_per_service=[run.passes / count for run in ours],
        rss_mb=[run.rss for run in ours],
    )
    yield Figure(
        f"settle-{count}",
        f"{count} services until all Deployments exist",
        tuple(run.deployments for run in ours),
        unit="s",
        goal=DEPLOYMENTS_GOAL if count == 300 else None,
        details={"peers": PEERS} if count == 300 else {},
    )
    yield Figure(
        f"settle-{count}",
        f"{count} services until all Deployments exist / until settled",
        tuple(run.deployments / run.seconds for run in ours),
    )
