"""Plans of the fault proxy: a JSON list of `{"when": {...}, "do": "..."}`. The plan that made a test fail is all that is needed to see it again.

when:
    verb: `get`, `list`, `watch`, `create`, `patch`, `update`, `delete`, or `write` for the last four; absent: any.
    resource: plural with subresource (`llmengines/status`); absent: any, but for `events` unless `events` is named.
    name: of the object; absent: any.
    nth: the first request that is hit, counted from 1 over those that match; 1 by default.
    times: how many from there on, 1 by default; 0: all.
    each: true: of all that match, the first of each content; `nth` and `times` then mean nothing.
do:
    `kill-before`, `kill-after`: SIGKILL of the operator before the request is forwarded; after it was answered, and the answer is dropped.
        It is started again after `seconds`, by default at once. With `back`: the lists of its next life are stale, as under `stale`.
    `status:CODE`: answer so without forwarding; with `retryAfter`: seconds.
    `reset-before`, `reset-after`: close the connection without forwarding; after it was answered, and the answer is dropped.
    `truncate`: end the answer (of a watch: the first event) in its middle.
    `silent`: of a watch: say nothing any more. `gone`: of a watch: an ERROR event with code 410. `error-event`: one with code 500.
    `hold`: of a watch: keep back `count` events from the `first` on (1 by default), until all of them are there or `seconds` (3 by default)
        have passed. They come late; with `net`, only what they amount to: the last of each object, nothing of one that came and went.
        With `type`: counted from the first event of this type on (`DELETED`).
    `slow`: forward after `seconds`.
    `stale`: of a list: answer with what there was `back` writes before the newest (of the operator's, when it is first asked for in a
        life), as an API server does that lags behind. The watch after it goes on from there.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.support.journal import EVENTS, WRITES, Target, signature

ACTIONS = (
    "kill-before", "kill-after", "reset-before", "reset-after", "truncate", "silent", "gone", "error-event", "hold", "slow", "stale",
)  # fmt: skip
CODES = (400, 401, 403, 404, 409, 410, 422, 429, 500, 502, 503, 504)
_HOLD_SECONDS = 3.0
_WHEN = {"verb", "resource", "name", "nth", "times", "each"}


class PlanError(ValueError):
    """A plan is wrong; says where and what is right."""


@dataclass(frozen=True)
class Do:
    """What to do to a request."""

    action: str
    code: int = 0
    retry_after: float | None = None
    seconds: float = 0.0
    back: int | None = None
    first: int = 1
    count: int = 1
    net: bool = False
    type: str = ""

    def __str__(self) -> str:
        return f"status:{self.code}" if self.action == "status" else self.action


@dataclass
class Rule:
    """One line of a plan, with what it has counted."""

    document: Mapping[str, Any]
    do: Do
    matched: int = 0
    hits: int = 0
    seen: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Raises PlanError."""
        when, what = document.get("when"), str(document.get("do", ""))
        if not isinstance(when, dict) or set(when) - _WHEN:
            raise PlanError(f"{document}: `when` is an object with some of {sorted(_WHEN)}")
        action, _, code = what.partition(":")
        if action == "status" and code.isdigit() and int(code) in CODES:
            do = Do("status", int(code), document.get("retryAfter"))
        elif what in ACTIONS:
            seconds = float(document.get("seconds", _HOLD_SECONDS if what == "hold" else 0.0))
            more = {name: int(document[name]) for name in ("back", "first", "count") if name in document}
            do = Do(what, seconds=seconds, net=bool(document.get("net", False)), type=str(document.get("type", "")), **more)
        else:
            raise PlanError(f"{document}: `do` is one of {', '.join(ACTIONS)}, or status: and one of {CODES}")
        return cls(document, do)

    def hit(self, target: Target, body: bytes) -> bool:
        """Whether this request is to be hit; counts it."""
        when = self.document["when"]
        if not _matches(when, target):
            return False
        self.matched += 1
        if when.get("each"):
            mark = signature(target, body)
            hit = mark not in self.seen
            self.seen.add(mark)
        else:
            first, times = int(when.get("nth", 1)), int(when.get("times", 1))
            hit = self.matched >= first and (times == 0 or self.matched < first + times)
        self.hits += hit
        return hit


def _matches(when: Mapping[str, Any], target: Target) -> bool:
    verb = when.get("verb", target.verb)
    if verb != target.verb and not (verb == "write" and target.verb in WRITES):
        return False
    resource = when.get("resource")
    if resource is None:
        return target.resource != EVENTS and "name" not in when
    return bool(resource == target.resource and when.get("name", target.name) == target.name)


class Plan:
    """Rules; the first that hits a request decides."""

    def __init__(self, rules: Sequence[Mapping[str, Any]] = ()) -> None:
        """Raises PlanError."""
        self.rules = [Rule.read(rule) for rule in rules]
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file. Raises PlanError, OSError."""
        try:
            document = json.loads(path.read_text())
        except ValueError as error:
            raise PlanError(f"{path}: {error}") from error
        if not isinstance(document, list):
            raise PlanError(f"{path}: a plan is a list of rules")
        return cls(document)

    def dump(self) -> str:
        """As JSON, to be given to `load`."""
        return json.dumps([rule.document for rule in self.rules])

    def decide(self, target: Target, body: bytes) -> Do | None:
        """What to do to a request."""
        with self._lock:
            # All rules count, also those after the one that decides.
            hitting = [rule for rule in self.rules if rule.hit(target, body)]
        return hitting[0].do if hitting else None

    def missed(self) -> list[Plan]:
        """A plan for each rule that has hit nothing."""
        return [Plan([rule.document]) for rule in self.rules if not rule.hits]

    @property
    def hits(self) -> int:
        """How many requests were hit."""
        return sum(rule.hits for rule in self.rules)


def hit(target: Target, nth: int, do: str, **more: Any) -> dict[str, Any]:
    """A rule for the n-th request about something."""
    when: dict[str, Any] = {"verb": target.verb, "resource": target.resource, "nth": nth}
    if target.name:
        when["name"] = target.name
    return {"when": when, "do": do, **more}


def one(target: Target, nth: int, do: str, **more: Any) -> Plan:
    """Hit the n-th request about something."""
    return Plan([hit(target, nth, do, **more)])


def batches(points: Sequence[tuple[Target, int]], size: int, do: str, **more: Any) -> list[Plan]:
    """Plans that hit each point, up to `size` of them in one run. Those of one run are far apart."""
    count = -(-len(points) // size)
    return [Plan([hit(target, nth, do, **more) for target, nth in points[number::count]]) for number in range(count)]


def each_write(do: str, **more: Any) -> Plan:
    """Hit every write once, events as well: when it is sent again, it goes through."""
    every = {"verb": "write", "each": True}
    return Plan([{"when": every, "do": do, **more}, {"when": {**every, "resource": EVENTS}, "do": do, **more}])


def each_request(do: str, **more: Any) -> Plan:
    """As `each_write`, and the first read of each object by its name."""
    reads = {"when": {"verb": "get", "each": True}, "do": do, **more}
    return Plan([*(rule.document for rule in each_write(do, **more).rules), reads])
