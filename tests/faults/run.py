"""Runs of scenarios, and their comparison with undisturbed ones."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.faults.case import Case, Ground
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.support import oracles
from tests.support.faultproxy_plan import Plan
from tests.support.journal import Target, points
from tests.support.oracles_state import Flat, by_chance, comparable, differences

_numbers = itertools.count(1)
ALL = "all"
"""Instead of a scenario's name: begin with the undisturbed runs of all."""
NOTES: list[str] = []
"""What was noted in this session; shown at its end."""
_BEGIN_QUIET_SECONDS = 1.0
_SHOWN = 30


def parallel() -> int:
    """How many runs at the same time: FAULTS_PARALLEL. They mostly wait for controllers."""
    return int(os.environ.get("FAULTS_PARALLEL", "10"))


@dataclass
class Run:
    """What one run of a scenario left."""

    scenario: str
    plan: Plan
    namespace: str
    problems: list[str] = field(default_factory=list)
    state: Flat = field(default_factory=dict)
    all_counts: oracles.Counts = field(default_factory=Counter)
    own_counts: oracles.Counts = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    points: list[tuple[Target, int]] = field(default_factory=list)
    reads: list[tuple[Target, int]] = field(default_factory=list)
    seconds: float = 0.0
    restarts: int = 0

    @property
    def hits(self) -> int:
        """How often the plan came true."""
        return self.plan.hits

    def told(self) -> str:
        """What went wrong, and how to see it again."""
        wrong = "\n".join(self.problems[:_SHOWN]) + (f"\n... and {len(self.problems) - _SHOWN} more" if len(self.problems) > _SHOWN else "")
        again = f"make test-faults SCENARIO={self.scenario} PLAN='{self.plan.dump()}'"
        return f"{self.scenario} in {self.namespace}, {self.restarts} restarts, {self.hits} faults:\n{wrong}\nagain: {again}"


@dataclass
class Reference:
    """What undisturbed runs of a scenario have in common."""

    run: Run
    masked: set[str]
    points: list[tuple[Target, int]]
    """Writes of either run."""
    reads: list[tuple[Target, int]]
    """Reads of objects by name, of either run."""
    sure: list[tuple[Target, int]]
    """Writes and reads of both. The others depend on what a watch tells first: a status of what has just been deleted, for one."""

    @property
    def steps(self) -> list[tuple[Target, int]]:
        """What the operator can be disturbed at: its writes. Where it is not told of a deletion, also the reads by which it finds out:
        what it does there is a write of a status or a look before one, whatever its watches tell first.
        """
        return [*self.points, *self.reads] if SCENARIOS[self.run.scenario].watches else self.points

    def judge(self, run: Run) -> None:
        """Compare (O1, O2); adds to the run's problems."""
        if run.problems:
            return  # it has not come to its end, so there is nothing to compare
        run.problems += [f"O1: {line}" for line in differences(self.run.state, run.state, self.masked)]
        run.problems += oracles.o2_counts(self.run.own_counts, run.own_counts, "by the operator")
        run.problems += oracles.o2_counts(self.run.all_counts, run.all_counts, "by anyone")
        if self.run.ended != run.ended:
            run.problems.append(f"O2: pods of stages: {dict(self.run.ended)} without the fault, {dict(run.ended)} with it")


def run(ground: Ground, scenario: Scenario, plan: Plan | None = None, *, armed_first: bool = False) -> Run:
    """Run a scenario under a plan, with all oracles that need no comparison. `armed_first`: the plan holds from the operator's start on."""
    began = time.monotonic()
    found = Run(scenario.name, plan or Plan(), f"faults-{scenario.name}-{next(_numbers)}")
    with Case(ground, found.namespace) as case:
        mark, version = 0, case.witness.version()
        try:
            case.arm(found.plan if armed_first else Plan(scenario.watches))
            case.start()
            scenario.prepare(case)
            case.settle(lambda: scenario.begun(case), what=f"{scenario.name}: prepared", quiet=_BEGIN_QUIET_SECONDS)
            mark, version = case.journal.mark(), case.witness.version()
            case.kubelet.ended.clear()
            if not armed_first:
                case.arm(found.plan)
            scenario.act(case)
            case.settle(lambda: scenario.reached(case), what=f"{scenario.name}: done")
        except AssertionError as error:
            found.problems.append(str(error))
        writes = case.journal.writes(mark)
        history = case.witness.seen()
        state = case.witness.state()
        found.state = comparable(state, case.namespace, history)
        found.all_counts = oracles.creations((seen for seen in history if seen.version > version), case.namespace)
        found.own_counts = oracles.own_counts(writes)
        found.points = list(points(case.journal.tried(mark)))
        found.reads = list(points(case.journal.read(mark)))
        found.ended = Counter(case.kubelet.ended)
        found.restarts = case.restarts
        found.problems += oracles.o8_log(case.log())
        found.problems += oracles.o9_conditions(case.journal.writes())
        found.problems += oracles.o9_final(obj for (kind, _), obj in state.items() if kind.startswith("LLM"))
        found.problems += oracles.o10_safety(history)
    found.seconds = time.monotonic() - began
    return found


def run_all(ground: Ground, work: Sequence[tuple[Reference, Plan]], *, armed_first: bool = False) -> list[Run]:
    """Run each reference's scenario under its plan, some at the same time, and judge each."""

    def one(item: tuple[Reference, Plan]) -> Run:
        known, plan = item
        done = run(ground, SCENARIOS[known.run.scenario], plan, armed_first=armed_first)
        known.judge(done)
        return done

    with ThreadPoolExecutor(parallel()) as pool:
        return list(pool.map(one, work))


def reference_of(ground: Ground, scenario: Scenario) -> Reference:
    """Run a scenario twice without faults. Raises AssertionError where even that goes wrong."""
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: run(ground, scenario), range(2))
    writes, reads = (list(dict.fromkeys([*first, *second])) for first, second in ((one.points, two.points), (one.reads, two.reads)))
    both = {*one.points, *one.reads} & {*two.points, *two.reads}
    found = Reference(one, by_chance(one.state, two.state), writes, reads, [point for point in (*writes, *reads) if point in both])
    for done in (one, two):
        assert not done.problems, f"without any fault: {done.told()}"
    assert one.own_counts == two.own_counts, oracles.o2_counts(one.own_counts, two.own_counts, "by the operator, undisturbed")
    assert one.all_counts == two.all_counts, oracles.o2_counts(one.all_counts, two.all_counts, "by anyone, undisturbed")
    return found


def references(reference: Callable[[str], Reference], names: Iterable[str]) -> list[Reference]:
    """Those of several scenarios, made at the same time."""
    wanted = list(names)
    if len(set(wanted)) > 2:
        reference(ALL)
    return [reference(name) for name in wanted]


def report(what: str, runs: Sequence[Run], **more: object) -> None:
    """A line of figures for each scenario."""
    for name in dict.fromkeys(run.scenario for run in runs):
        mine = [run for run in runs if run.scenario == name]
        note(
            {
                "what": f"{what} {name}",
                "runs": len(mine),
                "hit": sum(run.hits > 0 for run in mine),
                "faults": sum(run.hits for run in mine),
                "failed": sum(bool(run.problems) for run in mine),
                "seconds": round(sum(run.seconds for run in mine)),
                **more,
            }
        )


def note(line: Mapping[str, object]) -> None:
    """Figures for people, and for the file that FAULTS_REPORT names."""
    text = json.dumps(line)
    NOTES.append(text)
    print(f"\n{text}")
    if file := os.environ.get("FAULTS_REPORT"):
        with open(file, "a") as out:  # noqa: PTH123 - a line at the end of a file
            out.write(text + "\n")


def something_met(runs: Sequence[Run], names: Iterable[str]) -> None:
    """Raises AssertionError for scenarios without runs, and for those whose runs have met no fault at all: they would pass in any case."""
    met = Counter(dict.fromkeys(names, 0))
    for run in runs:
        met[run.scenario] += run.hits
    idle = [name for name, hits in met.items() if not hits]
    assert not idle, f"no fault was met in {idle}: what is to be hit is not what the operator sends there"


def verdict(runs: Sequence[Run]) -> None:
    """Raises AssertionError with every run that went wrong."""
    wrong = [run.told() for run in runs if run.problems]
    assert not wrong, f"{len(wrong)} of {len(runs)} runs:\n\n" + "\n\n".join(wrong)
