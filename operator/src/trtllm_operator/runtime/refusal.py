"""A status that says what keeps a pass from doing its work: over what was decided, or over what was there before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from trtllm_operator.decide import conditions
from trtllm_operator.decide.decision import Event
from trtllm_operator.desired.match import MAP
from trtllm_operator.observe.refs import Obj, nested

REFUSED = "ApplyRefused"
CONFLICT = "NameConflict"
INTERNAL = "InternalError"

_SUMMARY = ("Ready", "Reconciling", "Stalled")


def observed_conditions(root: Obj) -> list[Mapping[str, Any]]:
    """Conditions of a resource; those that can't be read are left out."""
    found = nested(root, "status", "conditions")
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, Sequence) and not isinstance(found, str) else []


def refused_status(
    root: Obj, decided: Mapping[str, Any] | None, reason: str, message: str, now: datetime, *, passes: bool = False
) -> tuple[dict[str, Any], tuple[Event, ...]]:
    """The status with Ready=False and Stalled=True for this reason, and the events of that transition.

    `decided` is the status that the pass would have written; None where there was no decision. `passes`: Ready=Unknown and
    Reconciling=True instead, because it may work the next time without anybody's doing.
    """
    base = decided if decided is not None else nested(root, "status")
    status = dict(base) if isinstance(base, Mapping) else {}
    before = observed_conditions(root)
    generation = int(root["metadata"].get("generation") or 0)
    kept = before if decided is None else decided.get("conditions") or ()
    others = [item for item in kept if item.get("type") not in _SUMMARY]
    shown = (conditions.progressing if passes else conditions.stalled)(reason, message)
    status["conditions"] = [*others, *conditions.finish(shown, before, generation, now)]
    status["observedGeneration"] = generation
    return status, conditions.transitions(shown, before)


def same_status(desired: Mapping[str, Any], observed: Any) -> bool:
    """Does the observed status say the same? Absent, null and empty are one; so is a zero that the schema's defaults filled in."""
    return _same(desired, observed if isinstance(observed, Mapping) else {})


def _same(desired: Any, observed: Any) -> bool:
    if desired == observed:
        return True
    if isinstance(desired, MAP) and isinstance(observed, MAP):
        for key in desired.keys() | observed.keys():
            if key in desired:
                if not _same(desired[key], observed.get(key)):
                    return False
            elif not _nothing(observed[key]):
                return False
        return True
    if isinstance(desired, list | tuple) and isinstance(observed, list | tuple):
        if len(desired) != len(observed):
            return False
        return all(_same(want, have) for want, have in zip(_ordered(desired), _ordered(observed), strict=True))
    return _empty(desired) and _empty(observed)


def _ordered(items: list[Any] | tuple[Any, ...]) -> list[Any]:
    """Conditions and stages are maps by their key to the API server, which may keep another order than ours."""
    for key in ("type", "name"):
        if items and all(isinstance(item, MAP) and isinstance(item.get(key), str) for item in items):
            return sorted(items, key=lambda item: str(item[key]))
    return list(items)


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | dict | list | tuple | Mapping) and len(value) == 0)


def _nothing(value: Any) -> bool:
    if isinstance(value, MAP):
        return all(_nothing(inner) for inner in value.values())
    return _empty(value) or (isinstance(value, int | float) and value == 0)
