"""What tools make of a status: kstatus' verdict on an object, and Flux' rules for conditions, written anew from their descriptions.

kstatus: https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus. Rules: https://github.com/fluxcd/pkg/tree/main/runtime/conditions/check.
Flux' FAIL0010 is left out: it wants observedGeneration to lag while Reconciling, and ours says at once which spec has been seen, as
Kubernetes' API conventions ask. Either way kstatus says InProgress.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

Verdict = Literal["InProgress", "Current", "Failed", "Terminating"]
Obj = Mapping[str, Any]

_NEGATIVE = ("Reconciling", "Stalled")


def _conditions(obj: Obj) -> list[Mapping[str, Any]]:
    return list((obj.get("status") or {}).get("conditions") or ())


def _status_of(obj: Obj, kind: str) -> str | None:
    """Status of a condition; None where there is no such condition."""
    return next((str(c["status"]) for c in _conditions(obj) if c["type"] == kind), None)


def verdict(obj: Obj) -> Verdict:
    """What kstatus says about a custom resource."""
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    generation, observed = obj["metadata"].get("generation"), (obj.get("status") or {}).get("observedGeneration")
    if None not in (generation, observed) and generation != observed:
        return "InProgress"
    for condition in _conditions(obj):
        if condition["status"] == "True" and condition["type"] in _NEGATIVE:
            return "InProgress" if condition["type"] == "Reconciling" else "Failed"
    # Without any condition that it knows kstatus takes a resource for settled.
    return "Current" if _status_of(obj, "Ready") in (None, "True") else "InProgress"


Rule = Callable[[Obj], bool]


def _is_ready(obj: Obj) -> bool:
    return _status_of(obj, "Ready") == "True"


def _generation(obj: Obj) -> int:
    return int(obj["metadata"]["generation"])


def _observed(obj: Obj) -> int:
    return int((obj.get("status") or {}).get("observedGeneration", 0))


def _condition_generations(obj: Obj) -> list[int]:
    return [int(condition.get("observedGeneration", 0)) for condition in _conditions(obj)]


RULES: dict[str, Rule] = {
    "FAIL0001": lambda obj: not _is_ready(obj) or not any(_status_of(obj, kind) == "True" for kind in _NEGATIVE),
    "FAIL0002": lambda obj: _status_of(obj, "Ready") is not None,
    "FAIL0003": lambda obj: _status_of(obj, "Reconciling") != "True" or _status_of(obj, "Ready") == "False",
    "FAIL0004": lambda obj: _status_of(obj, "Stalled") != "True" or _status_of(obj, "Ready") == "False",
    "FAIL0005": lambda obj: None in (_status_of(obj, "Reconciling"), _status_of(obj, "Stalled")),
    "FAIL0006": lambda obj: _observed(obj) <= _generation(obj),
    "FAIL0007": lambda obj: _observed(obj) >= _generation(obj) or not _is_ready(obj),
    "FAIL0008": lambda obj: not _is_ready(obj) or min(_condition_generations(obj)) >= _generation(obj),
    "FAIL0009": lambda obj: not _is_ready(obj) or set(_condition_generations(obj)) == {_observed(obj)},
    "FAIL0011": lambda obj: _status_of(obj, "Ready") != "Unknown" or _status_of(obj, "Reconciling") == "True",
}
"""Name -> whether the rule holds."""

ON_EVERY_WRITE = ("FAIL0001", "FAIL0002", "FAIL0004", "FAIL0005", "FAIL0006", "FAIL0011")
"""Those that hold while work is under way, too; the others are for states in which nothing more will happen."""


def broken(obj: Obj, *, final: bool) -> Iterator[str]:
    """Names of the rules that a status breaks."""
    for name, holds in RULES.items():
        if (final or name in ON_EVERY_WRITE) and not holds(obj):
            yield name
