"""The NetworkPolicy of an LLMService: who may send requests. trtllm-serve has no authentication and unguarded internal endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtllm_operator.api.llmservice import NetworkPeer, NetworkPolicySettings
from trtllm_operator.desired import names
from trtllm_operator.desired.commands import PORT
from trtllm_operator.desired.match import with_hash


def network_policy(namespace: str, name: str, settings: NetworkPolicySettings, owner: Mapping[str, Any]) -> dict[str, Any]:
    """Requests from the clients only; nothing goes out, not even DNS: the model is on a volume, and ranks talk inside the pod.

    Probes come from the node and a pod always reaches itself; no policy stops either.
    """
    peers = [{"podSelector": {}}] if settings.clients is None else [_peer(client) for client in settings.clients]
    # A rule without peers would admit everybody, so an empty list of clients means no rule at all.
    ingress = [{"from": peers, "ports": [{"port": PORT, "protocol": "TCP"}]}] if peers else []
    return with_hash(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {**names.common_labels("server"), names.SERVICE: names.label_value(name)},
                "ownerReferences": [dict(owner)],
            },
            "spec": {
                "podSelector": {"matchLabels": names.service_selector(name)},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": ingress,
                "egress": [],
            },
        }
    )


def _peer(client: NetworkPeer) -> dict[str, Any]:
    peer: dict[str, Any] = {}
    if client.namespace_labels is not None:
        peer["namespaceSelector"] = {"matchLabels": dict(client.namespace_labels)} if client.namespace_labels else {}
    if client.pod_labels is not None:
        peer["podSelector"] = {"matchLabels": dict(client.pod_labels)} if client.pod_labels else {}
    return peer
