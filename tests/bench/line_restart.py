"""A start with everything as it should be, beside a bare client that lists and parses the same objects."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench import machine
from tests.bench.goals import Figure, ratio
from tests.bench.line_settle import settle
from tests.bench.population import Population, objects
from tests.bench.rig import Rig
from tests.cluster.progress import say
from tests.support.operator_process import OperatorProcess
from tests.support.waiting import eventually

LINE = "restart"
GOAL = 3.0
_PASSES = "trtllm_operator_reconcile_seconds_count{"


def verified(operator: OperatorProcess, population: Population, services: int | None = None) -> None:
    """Wait until each resource was looked at once and nothing is left to do. `services`: so many of the population are there."""
    roots = (population.count if services is None else services) + 2 * len(population.groups)

    def done() -> bool:
        found = operator.metrics()
        passes = sum(value for name, value in found.items() if name.startswith(_PASSES))
        return passes >= roots and all(found[f"trtllm_operator_queue_depth{{state={state}}}"] == 0 for state in ("waiting", "running"))

    eventually(done, what="each resource was looked at", seconds=300, every=0.03)


def restart(rig: Rig, population: Population, source: Path | None = None, *, services: int | None = None) -> tuple[float, float, float]:
    """Seconds from the start of the process until all is verified; CPU seconds and MB then. What is there of the population is settled."""
    operator = rig.process(source=source)
    began = time.monotonic()
    try:
        operator.start(ready=False)
        eventually(lambda: "trtllm_operator_leading" in operator.metrics(), what="metrics are served", seconds=60, every=0.03)
        verified(operator, population, services)
        return time.monotonic() - began, machine.cpu_seconds(operator.pid), machine.rss(operator.pid)
    finally:
        operator.stop(signal.SIGTERM)


def listing(rig: Rig) -> tuple[float, int]:
    """Seconds of a bare client for list and parse, and how many objects there are."""
    began = time.monotonic()
    count = rig.run(objects)
    return time.monotonic() - began, count


def lines(rig: Rig, count: int, repetitions: int) -> Iterator[Figure]:
    """The ratio, with a population of its own."""
    population = rig.prepare(count)
    settle(rig, population)
    yield compare(rig, population, repetitions)
    rig.clear(population)


def compare(rig: Rig, population: Population, repetitions: int) -> Figure:
    """The ratio, with a population that is settled."""
    ours, bare, there = [], [], 0
    for number in range(1, repetitions + 1):
        ours.append(restart(rig, population))
        seconds, there = listing(rig)
        bare.append(seconds)
        say(
            f"    {number} of {repetitions}: verified after {ours[-1][0]:.2f} s (CPU {ours[-1][1]:.2f} s), listed and parsed in {seconds:.2f} s"
        )
    return ratio(
        LINE,
        f"start until all is verified / list and parse the same objects, {population.count} resources",
        [seconds for seconds, _, _ in ours],
        bare,
        GOAL,
        objects=there,
        operator_cpu_seconds=[cpu for _, cpu, _ in ours],
        rss_mb=[rss for _, _, rss in ours],
    )
