"""The operator's runtime with decisions of a few lines, for tests of the runtime itself. Run as a program.

A service gets a ConfigMap and a Deployment without replicas; an engine gets one LLMEngineBuild-free status and a Job. Annotations of the
root ask for misbehaviour.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from trtllm_operator.decide import conditions
from trtllm_operator.decide.decision import Apply, Decision, Delete
from trtllm_operator.decide.input import BuildInput, EngineInput, Obj, ServiceInput
from trtllm_operator.desired import names
from trtllm_operator.desired.owners import owner_reference
from trtllm_operator.runtime import operator
from trtllm_operator.runtime.main import run
from trtllm_operator.runtime.reconcile import Deciders
from trtllm_operator.runtime.settings import read_settings
from trtllm_operator.runtime.watches import Watches

ASK = "test.trtllm.dev/ask"
"""Annotation: `raise` (the decision fails), `invalid` (a child that the API server refuses), `typed` (one that does not fit the schema),
`block` (the event loop stands still, once)."""

BLOCK_SECONDS = 8.0
_blocked: set[str] = set()


def _child(root: Obj, api_version: str, kind: str, suffix: str, body: dict[str, Any]) -> dict[str, Any]:
    metadata = root["metadata"]
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": f"{metadata['name']}{suffix}",
            "namespace": metadata["namespace"],
            "labels": {**names.common_labels("test"), names.SERVICE: names.label_value(metadata["name"])},
            "ownerReferences": [owner_reference(root, controller=True)],
        },
        **body,
    }


def _status(root: Obj, conditions_now: tuple[conditions.Condition, ...], now: Any) -> tuple[dict[str, Any], Any]:
    before = (root.get("status") or {}).get("conditions", ())
    generation = root["metadata"]["generation"]
    return {
        "observedGeneration": generation,
        "conditions": conditions.finish(conditions_now, before, generation, now),
    }, conditions.transitions(conditions_now, before)


def service(inp: ServiceInput) -> Decision:
    """A ConfigMap and a Deployment for each service; ready when both are there."""
    root = inp.service
    ask = (root["metadata"].get("annotations") or {}).get(ASK)
    if ask == "raise":
        raise KeyError("poisoned on request")
    if ask == "block" and root["metadata"]["uid"] not in _blocked:
        _blocked.add(root["metadata"]["uid"])
        time.sleep(BLOCK_SECONDS)
    taken = [obj["metadata"]["name"] for obj in inp.foreign]
    if taken:
        status, events = _status(root, conditions.stalled("NameConflict", f"{taken[0]} belongs to somebody else"), inp.now)
        return Decision(status=status, events=events)
    labels = {names.SERVICE: names.label_value(root["metadata"]["name"])}
    data: Any = {"engine": root["spec"]["engineRef"]["name"], "replicas": str(root["spec"].get("replicas", 1))}
    if ask == "invalid":
        data = {"not a valid key!": "x"}
    if ask == "typed":
        data = {"nested": {"no": "string"}}
    config = _child(root, "v1", "ConfigMap", "-options", {"data": data})
    container = {"name": "serve", "image": "stub", "env": [{"name": "A", "value": "1"}], "resources": {"requests": {"cpu": "1000m"}}}
    template = {"metadata": {"labels": {**names.common_labels("test"), **labels}}, "spec": {"containers": [container]}}
    deployment = _child(
        root, "apps/v1", "Deployment", "", {"spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}}
    )
    there = {child["kind"] for child in inp.children}
    found = (
        conditions.ready("both are there") if {"ConfigMap", "Deployment"} <= there else conditions.progressing("Progressing", "being made")
    )
    status, events = _status(root, found, inp.now)
    return Decision(status=status, apply=(Apply(config), Apply(deployment)), events=events)


def engine(inp: EngineInput) -> Decision:
    """One Job, never made again; a Job of an older generation is deleted."""
    root = inp.engine
    generation = str(root["metadata"]["generation"])
    pod = {"restartPolicy": "Never", "containers": [{"name": "stage", "image": "stub"}]}
    job = _child(root, "batch/v1", "Job", f"-{generation}", {"spec": {"suspend": True, "template": {"spec": pod}}})
    old = [
        Delete("batch/v1", "Job", j["metadata"]["namespace"], j["metadata"]["name"], j["metadata"]["uid"], j["metadata"]["resourceVersion"])
        for j in inp.jobs
        if j["metadata"]["name"] != job["metadata"]["name"]
    ]
    status, events = _status(root, conditions.progressing("Building", "one Job"), inp.now)
    return Decision(status=status, apply=(Apply(job, create_only=True),), delete=tuple(old), events=events)


def build(inp: BuildInput) -> Decision:
    """Nothing."""
    status, events = _status(inp.build, conditions.ready("nothing to do"), inp.now)
    return Decision(status=status, events=events)


class DeafWatches(Watches):
    """Watches that never tell anything."""

    async def run(self) -> None:
        """Run nothing."""
        await asyncio.Event().wait()

    def restart(self) -> None:
        """Restart nothing."""

    def silent(self) -> set[str]:
        """Nothing to complain of."""
        return set()


if __name__ == "__main__":
    if os.environ.get("TEST_DEAF"):
        vars(operator)["Watches"] = DeafWatches
    sys.exit(run(read_settings(os.environ), Deciders(engine=engine, build=build, service=service)))
