"""Where the operator's CPU time goes while services settle. Not part of a run of everything: a profiler costs time itself."""

from __future__ import annotations

import io
import os
import pstats
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.goals import Figure
from tests.bench.population import create
from tests.bench.rig import Rig
from tests.cluster.progress import say

_ROWS = 45
_PROGRAM = ("-m", "tests.bench.profiled")


def _threads(pid: int) -> dict[str, float]:
    """CPU seconds of each thread."""
    ticks, found = os.sysconf("SC_CLK_TCK"), {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        found[task.name] = (int(fields[11]) + int(fields[12])) / ticks
    return found


def _table(file: Path, order: str) -> str:
    text = io.StringIO()
    pstats.Stats(str(file), stream=text).sort_stats(order).print_stats(_ROWS)
    return text.getvalue()


def lines(rig: Rig, count: int) -> Iterator[Figure]:
    """CPU by thread without the profiler, then tables of functions by it."""
    population = rig.prepare(count)
    with rig.operator() as operator:
        before = _threads(operator.pid)
        rig.witness.begin()
        rig.run(lambda bare: create(bare, population))
        rig.quiet(operator)
        after = _threads(operator.pid)
    rig.clear(population)
    spent = {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}
    yield Figure("profile", f"CPU of the operator for {count} services", (sum(spent.values()),), unit="s", details={"threads": spent})
    file, population = rig.directory / "profile", rig.prepare(count)
    with rig.operator({"PROFILE": str(file)}, program=_PROGRAM) as operator:
        rig.witness.begin()
        began = time.monotonic()
        rig.run(lambda bare: create(bare, population))
        rig.quiet(operator)
        seconds = time.monotonic() - began
    rig.clear(population)
    for part in sorted(rig.directory.glob("profile*")):
        for order in ("tottime", "cumulative"):
            say(f"{part.name}, by {order}:\n{_table(part, order)}")
    yield Figure("profile", f"{count} services until quiet, under the profiler", (seconds,), unit="s")
