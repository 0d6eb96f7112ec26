"""Exact counts of requests: until settled, when idle, after a restart, after changes that mean nothing. Seen by the recorder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from tests.bench import line_restart
from tests.bench.bare import JSON, MERGE, Bare, spread
from tests.bench.goals import Figure
from tests.bench.line_restart import verified
from tests.bench.population import Group, Population, check, create
from tests.bench.recorder import Request, by_resource, repeated
from tests.bench.replay import Score
from tests.bench.rig import Rig
from tests.support.operator_process import OperatorProcess
from tests.support.waiting import nothing_for
from trtllm_operator.kube.resources import BY_KIND

LINE = "counts"
ELECTION = {"LEADER_ELECTION": "true", "POD_NAMESPACE": "default", "POD_NAME": "bench"}


def minimum(writes: list[Request]) -> int:
    """How many would have been enough: each object once, each status once, one Event about each resource.

    Of a build's owners each list that is another one counts: services come one after another, and each must be among them before it has pods.
    """
    once = {write.what[:2] if write.target.resource == "events" else write.what for write in writes}
    return len(once)


def lines(rig: Rig, count: int, idle_seconds: float, restarts: int = 0) -> Iterator[Figure]:
    """All counts, of one population; and as it is there, so many restarts of `line_restart`."""
    population = rig.prepare(count)
    with rig.operator(ELECTION, recorded=True) as operator:
        mark = rig.recorder.mark()
        rig.witness.begin()
        rig.run(lambda bare: create(bare, population))
        rig.quiet(operator)
        rig.run(lambda bare: check(bare, population))
        writes, reads = rig.recorder.writes(mark), rig.recorder.reads(mark)
        reads = [read for read in reads if read.target.resource != "leases"]
        rig.scores[count] = Score(population, writes)
        details = {"writes": by_resource(writes), "more than once": repeated(writes), "refused": sum(w.status >= 400 for w in writes)}
        yield Figure(LINE, "API writes per resource until settled / minimum", (len(writes) / minimum(writes),), goal=1.0, details=details)
        yield Figure(LINE, "API writes per resource until settled", (len(writes) / count,), details={"minimum": minimum(writes) / count})
        yield Figure(
            LINE, "reads per resource until settled (without watches and lists)", (len(reads) / count,), goal=0, details=by_resource(reads)
        )
        yield from _idle(rig, count, idle_seconds)
        yield _irrelevant(rig, operator, population)
    mark = rig.recorder.mark()
    with rig.operator(ELECTION, recorded=True) as operator:
        verified(operator, population)
        rig.quiet(operator)
        writes = rig.recorder.writes(mark)
        reads = rig.recorder.reads(mark)
    yield Figure(LINE, f"writes at restart with nothing changed, {count} resources", (len(writes),), goal=0, details=by_resource(writes))
    yield Figure(LINE, f"reads at restart but for lists and watches, {count} resources", (len(reads),), details=by_resource(reads))
    if restarts:
        yield line_restart.compare(rig, population, restarts)
    rig.clear(population)


def _idle(rig: Rig, count: int, seconds: float) -> Iterator[Figure]:
    mark, began = rig.recorder.mark(), time.monotonic()
    nothing_for(seconds, lambda: None, what="time passes")
    minutes = (time.monotonic() - began) / 60
    reads = [read for read in rig.recorder.reads(mark) if read.target.resource != "leases"]
    found = [*rig.recorder.writes(mark), *reads]
    yield Figure(
        LINE,
        f"writes and reads per minute when idle, {count} resources (without watches and lists)",
        (len(found) / minutes,),
        goal=0,
        details={"seconds": seconds, **by_resource(found)},
    )
    yield Figure(LINE, "renewals of the Lease per minute, the price of leader election", (rig.recorder.renewals(mark) / minutes,))


def _irrelevant(rig: Rig, operator: OperatorProcess, population: Population) -> Figure:
    """Heartbeats in a child's status, somebody's label on a child, pods that report the same again."""
    rig.run(lambda bare: spread(population.names, lambda item: _pod(bare, *item)))
    rig.quiet(operator)
    mark = rig.recorder.mark()

    async def disturb(bare: Bare) -> None:
        for number in range(3):

            async def one(item: tuple[Group, str], beat: int = number) -> None:
                await _beat(bare, item[0].namespace, item[1], beat)

            await spread(population.names, one)

    rig.witness.begin("LLMService", "Deployment", "Service")
    rig.run(disturb)
    rig.quiet(operator)
    writes, reads = rig.recorder.writes(mark), rig.recorder.reads(mark)
    details = {"changes": population.count * 9, "reads": by_resource(reads), "writes": by_resource(writes)}
    return Figure(LINE, "writes after irrelevant changes (heartbeat, label, pod churn)", (len(writes),), goal=0, details=details)


async def _pod(bare: Bare, group: Group, name: str) -> None:
    """A pod of the service's Deployment, as its ReplicaSet would make it, that waits for a node."""
    deployment = await bare.json("GET", BY_KIND["Deployment"].path(group.namespace, name))
    template = deployment["spec"]["template"]
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{name}-x", "uid": deployment["metadata"]["uid"], "controller": True}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    path = f"/api/v1/namespaces/{group.namespace}/serviceaccounts/default?fieldManager=bench"
    await bare.request("PATCH", path, account, "application/apply-patch+yaml")
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{name}-x-y", "labels": template["metadata"]["labels"], "ownerReferences": [owner]},
        "spec": template["spec"],
    }
    await bare.request("POST", BY_KIND["Pod"].path(group.namespace), pod, JSON)


async def _beat(bare: Bare, namespace: str, name: str, number: int) -> None:
    told = {"type": "bench.example/Heartbeat", "status": "True", "reason": "Beat", "message": f"beat {number}"}
    status = {"status": {"conditions": [told]}}
    pods = {"status": {"conditions": [{**told, "lastProbeTime": f"2026-01-01T00:00:{number:02d}Z"}]}}
    label = {"metadata": {"labels": {"bench.example/number": str(number)}}}
    await bare.request("PATCH", BY_KIND["Deployment"].path(namespace, name, "status"), status, MERGE)
    await bare.request("PATCH", BY_KIND["Service"].path(namespace, name), label, MERGE)
    await bare.request("PATCH", BY_KIND["Pod"].path(namespace, f"{name}-x-y", "status"), pods, "application/strategic-merge-patch+json")
