"""Runs sequences of the state machine, and compares what they leave with what their last specs make in a fresh namespace (O5, O6)."""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.faults.case import Case, Ground
from tests.faults.machine import Sequence_, parts
from tests.faults.machine_steps import Hands, stalls, wanted
from tests.faults.run import parallel
from tests.support import oracles
from tests.support.api import Document
from tests.support.faultproxy_plan import Plan
from tests.support.journal_witness import Seen
from tests.support.oracles_state import Flat, comparable, differences
from tests.support.samples import condition, is_ready

_numbers = itertools.count(1)
_ROOTS = ("LLMEngine", "LLMService")
_SHOWN = 20
_LEAST = 50
"""So many fields and more has each resource of a user with its children."""

Specs = dict[tuple[str, str], str]
"""Kind and name -> variant."""

# What the way to a state leaves in it: counters, records of attempts, texts of controllers. And what has ended, or is made again by chance.
_WAY = re.compile(
    r"\.metadata\.generation$|observedGeneration$|deployment\.kubernetes\.io/revision|\.status\.stages\[|\.status\.resolved\."
    r"|^Deployment/[^.]*\.status\.conditions|collisionCount|\.metadata\.finalizers"
)
_PASSING = ("Job/", "Pod/", "ReplicaSet/")


def state_of(case: Case) -> Flat:
    """The part of the state that only the specs decide."""
    flat = comparable(case.witness.state(), case.namespace, case.witness.seen())
    return {path: value for path, value in flat.items() if not path.startswith(_PASSING) and not _WAY.search(path)}


def last_specs(steps: Sequence_) -> tuple[Specs, Specs]:
    """What users want in the end; and of each that is there, the last variant that can be done."""
    now: Specs = {}
    good: Specs = {}
    for step in steps:
        if step[0] in ("put", "replace"):
            _, kind, name, variant = step
            now[kind, name] = variant
            if not stalls(kind, variant):
                good[kind, name] = variant
        elif step[0] == "delete":
            now.pop((step[1], step[2]), None)
    return now, good


@dataclass
class Played:
    """What a sequence came to."""

    steps: Sequence_
    seed: int = 0
    namespace: str = ""
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    hits: int = 0
    restarts: int = 0
    writes: int = 0
    forgotten: list[str] = field(default_factory=list)
    """Jobs to which Kubernetes gave no pod, which is why it did not end."""
    specs: Specs = field(default_factory=dict)
    state: Flat = field(default_factory=dict)

    def told(self) -> str:
        """What went wrong, and how to see it again."""
        again = f"make test-faults SEED={self.seed}\n   or: make test-faults STEPS='{json.dumps(self.steps)}'"
        return f"SEED={self.seed} in {self.namespace}:\n" + "\n".join(self.problems[:_SHOWN]) + f"\nagain: {again}"


class Player:
    """Plays sequences, some at the same time. The states of fresh namespaces are shared among them."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._lock = threading.Lock()
        self._fresh: dict[str, Future[Flat]] = {}

    @property
    def fresh_states(self) -> int:
        """How many were made."""
        return len(self._fresh)

    def all(self, sequences: Mapping[int, Sequence_]) -> list[Played]:
        """Play a sequence for each seed."""
        with ThreadPoolExecutor(parallel()) as pool:
            return list(pool.map(lambda item: self.one(item[1], item[0]), sequences.items()))

    def one(self, steps: Sequence_, seed: int = 0) -> Played:
        """Play one, with all oracles."""
        began = time.monotonic()
        played = Played(steps, seed, f"faults-machine-{seed}-{next(_numbers)}")
        with Case(self._ground, played.namespace) as case:
            hands = Hands(case)
            try:
                case.start()
                for number, step in enumerate(steps):
                    hands.do(step)
                    wrong = _safety(case, hands)
                    assert not wrong, "\n".join([f"after step {number} {step}:", *wrong])
                played.hits = case.proxy.hits
                self._end(case, hands, played)
            except AssertionError as error:
                played.problems.append(str(error))
                if str(error).startswith("O3"):  # it did not come to its end; what is unsafe is nobody else's doing
                    played.forgotten = forgotten(case.witness.seen())
            played.problems += oracles.o8_log(case.log())
            played.restarts, played.writes = case.restarts, len(case.journal.writes())
        try:
            if not played.problems:
                played.problems += [f"O5: {line}" for line in differences(self.fresh(played.specs), played.state, set())]
        except AssertionError as error:
            played.problems.append(f"in a fresh namespace: {error}")
        played.seconds = time.monotonic() - began
        return played

    def _end(self, case: Case, hands: Hands, played: Played) -> None:
        """The faults stop; what can't be done is seen to be refused (O7), and then corrected as a person would."""
        calm(case)
        now, good = last_specs(played.steps)
        wrong = {key: variant for key, variant in now.items() if stalls(key[0], variant)}
        if wrong:
            told = f"O7: {sorted(wrong)} refused with a reason, and the others looked at"
            case.settle(lambda: all(refused(case, *key) for key in wrong) and _looked_at(case), what=told)
            played.problems += _safety(case, hands) + _final(case)
        specs = {
            key: good.get(key, "plain" if key[0] == "LLMEngine" else "one") if key in wrong else variant for key, variant in now.items()
        }
        for (kind, _), variant in list(specs.items()):
            if kind == "LLMService":
                engine = wanted("LLMService", "any", case.namespace, variant)["spec"]["engineRef"]["name"]
                specs.setdefault(("LLMEngine", engine), "plain")
        for (kind, name), variant in specs.items():
            if now.get((kind, name)) != variant:
                hands.put(wanted(kind, name, case.namespace, variant))
        played.specs = specs
        _reach(case, specs, "O3: what was wanted last")
        played.state = state_of(case)
        played.problems += _safety(case, hands) + _final(case)

    def fresh(self, specs: Specs) -> Flat:
        """The state that specs lead to in a namespace where nothing was before."""
        name = json.dumps(sorted(specs.items()))
        with self._lock:
            mine = name not in self._fresh
            known = self._fresh.setdefault(name, Future())
        if mine:
            try:
                known.set_result(self._make_fresh(specs))
            except BaseException as error:  # whoever waits for it must learn of it
                known.set_exception(error)
                raise
        return known.result()

    def _make_fresh(self, specs: Specs) -> Flat:
        with Case(self._ground, f"faults-fresh-{next(_numbers)}") as case:
            case.start()
            for (kind, name), variant in specs.items():
                case.api.create(wanted(kind, name, case.namespace, variant))
            _reach(case, specs, "a fresh namespace")
            state = state_of(case)
            assert len(state) >= _LEAST * len(specs), "there is something to compare"
            return state


def forgotten(history: Sequence[Seen]) -> list[str]:
    """Jobs that Kubernetes' own controller has forgotten: made again under the name of one that went, and never given a pod.

    It goes on waiting for pods of the first one, for five minutes (kubernetes/kubernetes issues 131917 and 142142). A sequence that
    deletes a Job by hand at the wrong moment meets that; no write of an operator helps then.
    """
    uids: dict[str, set[str]] = {}
    now: dict[tuple[str, str], dict[str, Any]] = {}
    for seen in history:
        if seen.kind == "Job":
            uids.setdefault(seen.obj["metadata"]["name"], set()).add(seen.obj["metadata"]["uid"])
        if seen.type == "DELETED":
            now.pop(seen.key, None)
        else:
            now[seen.key] = seen.obj
    with_pod = {owner["uid"] for (kind, _), obj in now.items() if kind == "Pod" for owner in obj["metadata"].get("ownerReferences", ())}
    return [
        name
        for (kind, name), obj in now.items()
        if kind == "Job"
        and len(uids[name]) > 1
        and obj["metadata"]["uid"] not in with_pod
        and not (obj.get("status") or {}).get("conditions")
    ]


def calm(case: Case) -> None:
    """Faults stop: no plan, no second operator, nothing is held, and the operator runs."""
    case.arm(Plan())
    case.stop_second()
    kubelet = case.kubelet
    kubelet.hold.clear()
    kubelet.delay.clear()
    kubelet.failures.clear()
    case.wait(lambda: case.running, what="the operator runs again")


def _reach(case: Case, specs: Specs, what: str) -> None:
    """Every resource is as wanted, nothing else is there, and it is quiet."""

    def reached() -> bool:
        state = case.witness.state()
        there = {key for key in state if key[0] in _ROOTS}
        return there == set(specs) and all(_current(state[key]) for key in there) and _looked_at(case)

    case.settle(reached, what=what)


def _current(obj: Document) -> bool:
    return is_ready(obj) and _seen(obj)


def _looked_at(case: Case) -> bool:
    """The operator has seen what is there: on a slow machine it may be quiet because it has not begun."""
    roots = (obj for (kind, _), obj in case.witness.state().items() if kind in (*_ROOTS, "LLMEngineBuild"))
    return all(_seen(obj) for obj in roots if "deletionTimestamp" not in obj["metadata"])


def _seen(obj: Document) -> bool:
    return bool((obj.get("status") or {}).get("observedGeneration") == obj["metadata"]["generation"])


def refused(case: Case, kind: str, name: str) -> bool:
    """O7: the newest spec is refused with a reason."""
    obj = case.witness.state().get((kind, name))
    stalled = condition(obj, "Stalled")
    return obj is not None and stalled.get("status") == "True" and stalled.get("observedGeneration") == obj["metadata"]["generation"]


def _safety(case: Case, hands: Hands) -> list[str]:
    """O9 on every status that was written, O10 at every moment."""
    return oracles.o9_conditions(case.journal.writes()) + oracles.o10_safety(case.witness.seen(), hands.mistreated)


def _final(case: Case) -> list[str]:
    return oracles.o9_final(obj for (kind, _), obj in case.witness.state().items() if kind.startswith("LLM"))


class Plays(Protocol):
    """What `smaller` needs of a player."""

    def one(self, steps: Sequence_, seed: int = 0) -> Played: ...

    def all(self, sequences: Mapping[int, Sequence_]) -> list[Played]: ...


def smaller(player: Plays, failed: Played, seconds: float, say: Callable[[str], Any] = print) -> Played:
    """Leave out steps for as long as it goes wrong without them. Several are tried at the same time, and the time is limited."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        tried = player.all(dict(enumerate(parts(failed.steps), start=1)))
        still = [one for one in tried if one.problems]
        if not still:
            break
        # All that can be missed by itself may well be missed together.
        needed = tuple(step for step, one in zip(failed.steps, tried, strict=True) if not one.problems)
        together = player.one(needed)
        best = together if together.problems else still[0]
        best.seed = failed.seed
        failed = best
        say(f"{len(failed.steps)} steps: {json.dumps(failed.steps)}")
    return failed


def told(played: Sequence[Played], **more: object) -> dict[str, object]:
    """One line of figures."""
    return {
        "what": "sequences",
        "sequences": len(played),
        "steps": sum(len(one.steps) for one in played),
        "hit": sum(one.hits > 0 for one in played),
        "faults": sum(one.hits for one in played),
        "restarts": sum(one.restarts for one in played),
        "writes": sum(one.writes for one in played),
        "failed": sum(bool(one.problems) and not one.forgotten for one in played),
        "forgotten": sum(bool(one.forgotten) for one in played),
        "seconds": round(sum(one.seconds for one in played)),
        **more,
    }
