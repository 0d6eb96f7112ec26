"""The PodDisruptionBudget of an LLMService: how many pods a node drain may take at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtllm_operator.api.llmservice import Availability
from trtllm_operator.desired import names
from trtllm_operator.desired.match import with_hash


def disruption_budget(namespace: str, name: str, availability: Availability, owner: Mapping[str, Any]) -> dict[str, Any]:
    """`maxUnavailable` rather than `minAvailable`: with one replica the latter would block every drain for ever."""
    return with_hash(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {**names.common_labels("server"), names.SERVICE: names.label_value(name)},
                "ownerReferences": [dict(owner)],
            },
            "spec": {
                "maxUnavailable": availability.max_unavailable,
                "selector": {"matchLabels": names.service_selector(name)},
                # A pod that never became ready serves nobody: it must not block a drain.
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            },
        }
    )
