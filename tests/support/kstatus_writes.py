"""What holds of each status that the operator writes, beyond the rules of conditions: tools see the class that was meant, and its reasons are ours.

For whatever sees every write: the pure worlds, the journal of the fault proxy, the witness of a real API server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.kstatus import Verdict, broken, verdict
from trtllm_operator.api.reasons import REASONS

Obj = Mapping[str, Any]

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def conditions(obj: Obj) -> dict[str, Mapping[str, Any]]:
    """Conditions by type."""
    return {str(c["type"]): c for c in (obj.get("status") or {}).get("conditions") or ()}


def expected(obj: Obj) -> Verdict:
    """The class that the operator meant, read from the reason of Ready alone; `kstatus.verdict` reads everything else."""
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    if (obj.get("status") or {}).get("observedGeneration") != obj["metadata"].get("generation"):
        return "InProgress"
    ready = conditions(obj).get("Ready", {})
    if ready.get("reason") == "Ready":
        return "Current"
    return "Failed" if ready.get("status") == "False" and ready.get("reason") != "Suspended" else "InProgress"


def wrong(obj: Obj) -> list[str]:
    """What a written status breaks: names of rules, then sentences. An object of one of our kinds, as the API server has kept it."""
    rules = list(broken(obj, final=False))
    return rules or list(_wrong(obj))


def _wrong(obj: Obj) -> Iterator[str]:
    found = conditions(obj)
    wanted, seen = expected(obj), verdict(obj)
    if wanted != seen:
        yield f"kstatus says {seen}, and {wanted} is meant"
    generation = (obj.get("status") or {}).get("observedGeneration")
    for kind, condition in found.items():
        if condition["reason"] not in REASONS:
            yield f"{kind} has the reason {condition['reason']}, which is not documented"
        if kind in ("Reconciling", "Stalled") and condition["status"] != "True":
            yield f"{kind} is there though it is {condition['status']}"
        if kind in ("Ready", "Reconciling", "Stalled") and condition.get("observedGeneration") != generation:
            yield f"{kind} speaks of generation {condition.get('observedGeneration')}, and the status of {generation}"
        if not _TIME.fullmatch(str(condition.get("lastTransitionTime"))):
            yield f"{kind} has the time {condition.get('lastTransitionTime')!r}"
        if "\n" in condition.get("message", ""):
            yield f"the message of {kind} has more than one line"
    if not found["Ready"].get("message"):
        yield "Ready has no message"
    yield from _unfounded(obj, seen)


def _unfounded(obj: Obj, seen: Verdict) -> Iterator[str]:
    """Current without what it promises."""
    if seen != "Current":
        return
    status = obj["status"]
    if obj["kind"] == "LLMService":
        if status.get("current") != status.get("target") or not status.get("url"):
            yield "Current, but what answers is not what is wanted"
        if status.get("readyReplicas") != status.get("replicas"):
            yield f"Current with {status.get('readyReplicas')} of {status.get('replicas')} pods"
    elif not status.get("artifact"):
        yield "Current without an artifact"
    elif obj["kind"] == "LLMEngine" and status["artifact"]["build"] != status.get("build"):
        yield "Current with the artifact of another build"


def wrong_change(before: Obj, after: Obj) -> Iterator[str]:
    """What one version of an object may not make of the one before it, when nobody but the operator writes the status."""
    old, new = conditions(before), conditions(after)
    for kind, condition in new.items():
        was = old.get(kind)
        if was is not None and was["status"] == condition["status"] and was["lastTransitionTime"] != condition["lastTransitionTime"]:
            yield f"{kind} stays {condition['status']}, and its lastTransitionTime changes"
    seen = [(obj.get("status") or {}).get("observedGeneration", -1) for obj in (before, after)]
    if seen[0] > seen[1]:
        yield f"observedGeneration goes from {seen[0]} back to {seen[1]}"
