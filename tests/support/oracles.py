"""What must hold whatever happens. Each oracle returns what it found wrong; numbers are those of issue and reference (O1 to O12)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from tests.support import kstatus_writes
from tests.support.journal import EVENTS, Entry
from tests.support.journal_witness import Seen
from tests.support.kstatus import broken, verdict
from trtllm_operator.desired import names

Json = dict[str, Any]
Counts = Counter[str]
ROOTS = {"llmengines/status", "llmenginebuilds/status", "llmservices/status"}
_CHANCE = re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{5}$")  # the alphabet of the API server's random suffixes
_TROUBLE = re.compile(r"Traceback|Unclosed|was never (retrieved|awaited)")


def creations(history: Iterable[Seen], namespace: str) -> Counts:
    """How often each object was made and went, by anyone. Suffixes of chance are folded."""
    counts: Counts = Counter()
    for seen in history:
        if seen.type != "MODIFIED":
            drawn = seen.obj["metadata"].get("generateName")
            name = f"{drawn}*" if drawn else str(seen.obj["metadata"]["name"])
            counts[f"{'create' if seen.type == 'ADDED' else 'delete'} {seen.kind} {name.replace(namespace, 'NAMESPACE')}"] += 1
    return counts


def own_counts(writes: Iterable[Entry]) -> Counts:
    """CREATE (also by server-side apply) and DELETE of the operator itself that had an effect. Without Events, which are told at most once."""
    counts: Counts = Counter()
    for entry in writes:
        if entry.resource.startswith(EVENTS):
            continue
        if entry.status == 201:
            counts[f"create {entry.resource} {entry.name}"] += 1
        elif entry.verb == "delete" and entry.status in (200, 202):
            counts[f"delete {entry.resource} {_CHANCE.sub('-*', entry.name)}"] += 1
    return counts


def o2_counts(wanted: Counts, found: Counts, whose: str) -> list[str]:
    """O2: nothing is made or deleted more or less often than without faults.

    There is no tolerance for objects: names are the operator's own and a create is one server-side apply, so a write that was repeated
    finds what the first one made. Events are left out: one may be lost, or told again, by a crash beside it.
    """
    return [
        f"O2: {whose}: {what}: {wanted[what]} times without the fault, {found[what]} times with it"
        for what in sorted(wanted.keys() | found.keys())
        if wanted[what] != found[what]
    ]


def o8_log(log: str) -> list[str]:
    """O8: no exception that nobody caught."""
    lines = log.splitlines()
    found = [number for number, line in enumerate(lines) if _TROUBLE.search(line)]
    return ["O8: the operator's log:\n" + "\n".join(lines[max(0, found[0] - 2) : found[0] + 25])] if found else []


def o9_conditions(writes: Iterable[Entry]) -> list[str]:
    """O9: the rules of conditions hold in every status that was written, as the API server has kept it, and kstatus says what is meant."""
    wrong = []
    for entry in writes:
        if entry.resource in ROOTS and entry.answer is not None and entry.status < 400:
            rules = kstatus_writes.wrong(entry.answer)
            if rules:
                wrong.append(f"O9: {', '.join(rules)}: {entry.resource} {entry.name}: {entry.answer.get('status', {}).get('conditions')}")
    return wrong


def o9_final(objects: Iterable[Json]) -> list[str]:
    """O9 at the end: all of the rules, for every resource of ours that is not on its way out and, as kstatus sees it, does not wait for anything."""
    return [
        f"O9: {', '.join(rules)}: {obj['kind']} {obj['metadata']['name']}: {(obj.get('status') or {}).get('conditions')}"
        for obj in objects
        if "deletionTimestamp" not in obj["metadata"] and (rules := list(broken(obj, final=verdict(obj) != "InProgress")))
    ]


def o10_safety(history: Sequence[Seen], mistreated: Collection[str] = ()) -> list[str]:
    """O10: at every moment at most one Job works on a stage of a build; what serves has an artifact; no claim in use goes.

    `mistreated`: where the test itself has deleted builds or claims, what serves from them is not judged.
    """
    now: dict[tuple[str, str], Json] = {}
    wrong: list[str] = []
    for seen in history:
        if seen.type == "DELETED":
            now.pop(seen.key, None)
        else:
            now[seen.key] = seen.obj
        check = _SAFETY.get(seen.kind)
        if check is not None and (seen.kind == "Job" or not mistreated):
            wrong += [text for text in check(seen, now) if text not in wrong]
    return wrong


def _one_job(_: Seen, now: dict[tuple[str, str], Json]) -> list[str]:
    working: Counter[tuple[str, str]] = Counter()
    for (kind, _name), obj in now.items():
        labels = obj["metadata"].get("labels", {})
        if kind == "Job" and names.BUILD in labels and _active(obj):
            working[labels[names.BUILD], labels[names.STAGE]] += 1
    return [f"O10: {count} active Jobs for stage {stage} of build {build}" for (build, stage), count in working.items() if count > 1]


def _active(job: Json) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or ()
    ended = any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)
    return not ended and "deletionTimestamp" not in job["metadata"]


def claims_of(pod_spec: Json) -> set[str]:
    """Names of the claims that a pod mounts."""
    return {volume["persistentVolumeClaim"]["claimName"] for volume in pod_spec.get("volumes", ()) if "persistentVolumeClaim" in volume}


def _serves(deployment: Json, now: dict[tuple[str, str], Json]) -> bool:
    """Does a living service control it? Without one it is the garbage collector's, which takes things in any order."""
    alive = {
        obj["metadata"]["uid"] for (kind, _), obj in now.items() if kind == "LLMService" and "deletionTimestamp" not in obj["metadata"]
    }
    return any(owner["uid"] in alive for owner in deployment["metadata"].get("ownerReferences", ()))


def _has_artifact(seen: Seen, now: dict[tuple[str, str], Json]) -> list[str]:
    if seen.type == "DELETED" or not _serves(seen.obj, now):
        return []
    claims = claims_of(seen.obj["spec"]["template"]["spec"])
    artifacts = [
        ((build.get("status") or {}).get("artifact") or {}).get("claimName") for (kind, _), build in now.items() if kind == "LLMEngineBuild"
    ]
    if claims & set(artifacts):
        return []
    return [f"O10: Deployment {seen.obj['metadata']['name']} serves from {sorted(claims)}, but artifacts are on {artifacts}"]


def _unused(seen: Seen, now: dict[tuple[str, str], Json]) -> list[str]:
    if seen.type != "DELETED" and "deletionTimestamp" not in seen.obj["metadata"]:
        return []
    name = seen.obj["metadata"]["name"]
    using = [
        key
        for (kind, key), obj in now.items()
        if kind == "Deployment" and _serves(obj, now) and name in claims_of(obj["spec"]["template"]["spec"])
    ]
    return [f"O10: claim {name} is deleted while Deployment {using[0]} serves from it"] if using else []


_SAFETY: dict[str, Callable[[Seen, dict[tuple[str, str], Json]], list[str]]] = {
    "Job": _one_job,
    "Deployment": _has_artifact,
    "PersistentVolumeClaim": _unused,
}
