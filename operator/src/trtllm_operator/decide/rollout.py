"""How far a Deployment is, and whether new pods come before old ones go or after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trtllm_operator.decide.input import Hints, Obj
from trtllm_operator.decide.podstate import gpus_of, pod_problem
from trtllm_operator.desired import names
from trtllm_operator.desired.deployment import Strategy, template_hash


@dataclass(frozen=True)
class Rollout:
    """What the Deployment controller says about a revision. Numbers count for nothing while it has not seen the newest spec."""

    seen: bool
    """The Deployment holds this revision, and its controller has seen that."""
    before: bool
    """This revision was complete before: what happens now is scaling or repair."""
    scaled: bool
    """The Deployment asks for as many pods as it should."""
    wanted: int
    total: int
    updated: int
    ready: int
    available: int
    failed: str | None = None
    """Message, where the progress deadline has passed."""
    rejected: str | None = None
    """Message, where the API server refuses pods."""

    @property
    def replaced(self) -> bool:
        """No pod of another revision is left."""
        return self.seen and self.updated == self.total and (self.total > 0 or self.wanted == 0)

    @property
    def complete(self) -> bool:
        return self.replaced and self.scaled and self.available == self.total == self.wanted


def observe(deployment: Obj | None, revision: str, replicas: int | None, *, before: bool = False) -> Rollout:
    """The state of `revision`; `replicas` is the number that is asked for, where it is ours to ask."""
    spec, status = (deployment or {}).get("spec") or {}, (deployment or {}).get("status") or {}
    generation = int((deployment or {}).get("metadata", {}).get("generation", 0))
    seen = bool(revision) and template_hash(spec.get("template", {})) == revision and int(status.get("observedGeneration", 0)) >= generation
    has = int(spec.get("replicas", 1))
    by_type = {c.get("type"): c for c in status.get("conditions", ())}
    progressing, refused = by_type.get("Progressing", {}), by_type.get("ReplicaFailure", {})
    late = progressing.get("status") == "False" and progressing.get("reason") == "ProgressDeadlineExceeded"
    return Rollout(
        seen=seen,
        before=before,
        scaled=replicas in (None, has),
        wanted=has if replicas is None else replicas,
        total=int(status.get("replicas", 0)),
        updated=int(status.get("updatedReplicas", 0)),
        ready=int(status.get("readyReplicas", 0)),
        available=int(status.get("availableReplicas", 0)),
        failed=str(progressing.get("message", "")) if seen and late else None,
        rejected=str(refused.get("message", "")) if seen and refused.get("status") == "True" else None,
    )


def strategy(
    asked: Literal["auto", "surge", "inPlace"],
    rollout: Rollout,
    deployment: Obj | None,
    revision: str,
    pods: Sequence[Obj],
    nodes: Sequence[Obj] | None,
    hints: Hints,
    resource: str,
) -> Strategy:
    """`auto` surges; when a new pod waits for GPUs that an old one would set free, it replaces in place until the rollout is done."""
    if asked != "auto":
        return asked
    if deployment is None or rollout.complete:
        return "surge"
    template = (deployment.get("spec") or {}).get("template", {})
    if template_hash(template) == revision and (deployment["metadata"].get("annotations") or {}).get(names.STRATEGY) == "inPlace":
        return "inPlace"
    waiting = [pod for pod in alive(pods) if template_hash(pod) == revision and _waits_for_gpu(pod, nodes, hints, resource)]
    holding = [pod for pod in alive(pods) if template_hash(pod) != revision and (pod.get("spec") or {}).get("nodeName")]
    return "inPlace" if any(_would_serve(old, new, nodes, resource) for new in waiting for old in holding) else "surge"


def alive(pods: Iterable[Obj]) -> list[Obj]:
    """Pods that are not done and not on their way out, by name."""
    living = (
        pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"] and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    )
    return sorted(living, key=lambda pod: str(pod["metadata"]["name"]))


def _waits_for_gpu(pod: Obj, nodes: Sequence[Obj] | None, hints: Hints, resource: str) -> bool:
    """Only where such nodes exist: stopping a pod that serves for one that fits nowhere would gain nothing."""
    found = pod_problem(pod, nodes, hints, resource)
    return found is not None and found.reason == "WaitingForGPU"


def _would_serve(old: Obj, new: Obj, nodes: Sequence[Obj] | None, resource: str) -> bool:
    """Would the GPUs of the old pod do for the new one?"""
    if gpus_of(old, resource) < gpus_of(new, resource):
        return False
    wanted: Mapping[str, Any] = new["spec"].get("nodeSelector") or {}
    node = next((n for n in nodes or () if n["metadata"]["name"] == old["spec"]["nodeName"]), None)
    if node is None:
        return bool(wanted == (old["spec"].get("nodeSelector") or {}))
    labels = node["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in wanted.items())
