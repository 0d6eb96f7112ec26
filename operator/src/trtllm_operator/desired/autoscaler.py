"""The HorizontalPodAutoscaler of an LLMService. The replicas of the Deployment are its alone while it exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtllm_operator.api.base import seconds
from trtllm_operator.api.llmservice import Autoscaling, Metric
from trtllm_operator.desired import names
from trtllm_operator.desired.match import with_hash

LONGEST_STABILIZATION = 3600  # seconds; the API server refuses more


def autoscaler(namespace: str, name: str, settings: Autoscaling, owner: Mapping[str, Any]) -> dict[str, Any]:
    """The autoscaler, for the Deployment of the same name."""
    spec: dict[str, Any] = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": settings.min_replicas,
        "maxReplicas": settings.max_replicas,
        "metrics": [_metric(metric) for metric in settings.metrics],
    }
    if settings.scale_down_stabilization is not None:
        spec["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": seconds(settings.scale_down_stabilization)}}
    return with_hash(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {**names.common_labels("server"), names.SERVICE: names.label_value(name)},
                "ownerReferences": [dict(owner)],
            },
            "spec": spec,
        }
    )


def _metric(metric: Metric) -> dict[str, Any]:
    if metric.average_utilization is not None:
        target: dict[str, Any] = {"type": "Utilization", "averageUtilization": metric.average_utilization}
    else:
        target = {"type": "AverageValue", "averageValue": metric.average_value}
    if metric.type == "resource":
        return {"type": "Resource", "resource": {"name": metric.name, "target": target}}
    return {"type": "Pods", "pods": {"metric": {"name": metric.name}, "target": target}}
