"""Conditions by the rules of Kubernetes' API conventions, kstatus and Flux: https://github.com/fluxcd/pkg/tree/main/runtime/conditions.

`Ready` is always there; `Reconciling` and `Stalled` only while true, never both; Ready=Unknown means Reconciling=True; Stalled=True means Ready=False.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from trtllm_operator.decide.decision import Event

Status = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Condition:
    """One condition as decided; times and generations are added when the status is made."""

    type: str
    status: Status
    reason: str
    message: str = ""


def ready(message: str) -> tuple[Condition, ...]:
    """The resource is what its spec asks for."""
    return (Condition("Ready", "True", "Ready", message),)


def progressing(reason: str, message: str) -> tuple[Condition, ...]:
    """Under way; goes on by itself."""
    return (Condition("Ready", "Unknown", reason, message), Condition("Reconciling", "True", reason, message))


def stalled(reason: str, message: str) -> tuple[Condition, ...]:
    """A person must act."""
    return (Condition("Ready", "False", reason, message), Condition("Stalled", "True", reason, message))


def idle(reason: str, message: str) -> tuple[Condition, ...]:
    """Not ready by wish (suspended): nothing is under way and nothing is wrong."""
    return (Condition("Ready", "False", reason, message),)


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds, as Kubernetes writes times."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def finish(conditions: Iterable[Condition], observed: Iterable[Mapping[str, Any]], generation: int, now: datetime) -> list[dict[str, Any]]:
    """Conditions for the status: a transition time changes only with `status`, so a pass without news changes nothing.

    Messages are made one line: they quote logs and kubelets, and `kubectl get` shows them in a table.
    """
    before = {item.get("type"): item for item in observed}
    stamp = timestamp(now)
    result = []
    for condition in conditions:
        old = before.get(condition.type)
        same = old is not None and old.get("status") == condition.status
        result.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                "message": " ".join(condition.message.split())[:32768],
                "observedGeneration": generation,
                "lastTransitionTime": (old or {}).get("lastTransitionTime") if same else stamp,
            }
        )
    return result


def transitions(conditions: Iterable[Condition], observed: Iterable[Mapping[str, Any]]) -> tuple[Event, ...]:
    """Events for conditions whose status or reason changed: one for each change, though several conditions show it.

    `Reconciling` and `Stalled` repeat what `Ready` says, and so does every other condition with the reason of `Ready`.
    """
    before = {item.get("type"): item for item in observed}
    summary = next((c.reason for c in conditions if c.type == "Ready"), None)
    events = []
    for condition in conditions:
        if condition.type in ("Reconciling", "Stalled"):
            continue
        old = before.get(condition.type)
        if old is not None and old.get("status") == condition.status and old.get("reason") == condition.reason:
            continue
        if old is None and (condition.status == "Unknown" or (not before and condition.type != "Ready")):
            continue  # where a new resource begins is no news; that it is ready, or can't become so, is
        if condition.type != "Ready" and condition.reason == summary:
            continue
        stalled_now = any(c.type == "Stalled" and c.reason == condition.reason for c in conditions)
        events.append(Event("Warning" if stalled_now else "Normal", condition.reason, f"{condition.type}: {condition.message}"[:1024]))
    seen: set[tuple[str, str]] = set()
    unique = []
    for event in events:
        mark = (event.reason, event.message.split(": ", 1)[-1])
        if mark not in seen:
            seen.add(mark)
            unique.append(event)
    return tuple(unique)
