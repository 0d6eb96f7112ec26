"""Who says how many pods there are, and how that passes from one to another without losing any.

The API server sets a field that its only owner no longer applies back to the default: an apply without `replicas` would leave one pod
of ten. So before we leave the field out, a second field manager takes it over with the number that it has (seen on a real API server).
How far that is, is written on the Deployment itself, because managedFields are not kept in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trtllm_operator.api.llmservice import LLMServiceSpec
from trtllm_operator.decide.decision import Apply
from trtllm_operator.decide.input import Obj
from trtllm_operator.desired import names
from trtllm_operator.desired.deployment import ReplicasMode
from trtllm_operator.desired.owners import owner_reference

_PASSING = "passing"


@dataclass(frozen=True)
class Replicas:
    """How the Deployment is applied."""

    mode: ReplicasMode
    send: int | None
    """Value of spec.replicas; None: leave the field out."""
    hand_over: Apply | None = None
    """Goes before the Deployment."""


def replicas(service: Mapping[str, Any], spec: LLMServiceSpec, deployment: Obj | None) -> Replicas:
    """Decide from the spec and from who held the number until now."""
    if spec.replicas is not None:
        return Replicas("fixed", spec.replicas)
    scaling = spec.autoscaling
    if deployment is None:
        # Started with the autoscaler's minimum, as a fixed number; the next pass hands it over. One replica is the default anyway.
        return Replicas("fixed", scaling.min_replicas) if scaling else Replicas("free", None)
    mode: ReplicasMode = "autoscaled" if scaling else "free"
    held = (deployment["metadata"].get("annotations") or {}).get(names.REPLICAS)
    if held == mode or (held == "autoscaled" and mode == "free"):
        return Replicas(mode, None)
    current = int((deployment.get("spec") or {}).get("replicas", 1))
    # An autoscaler lets a Deployment of zero replicas rest for ever, so it gets its minimum.
    value = max(current, scaling.min_replicas) if scaling else current
    return Replicas(mode, None, _hand_over(service, deployment, value))


def _hand_over(service: Mapping[str, Any], deployment: Obj, value: int) -> Apply:
    """The mark makes this apply differ from what is there even where the number does not, and shows a hand-over that was cut short."""
    metadata = deployment["metadata"]
    return Apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "annotations": {names.REPLICAS: _PASSING},
                "ownerReferences": [owner_reference(service, controller=True)],
            },
            "spec": {"replicas": value},
        },
        manager=names.REPLICAS_MANAGER,
    )
