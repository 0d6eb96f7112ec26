"""The Service in front of the pods of an LLMService."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtllm_operator.api.llmservice import ServicePort
from trtllm_operator.desired import names
from trtllm_operator.desired.match import with_hash

PORT_NAME = "http"


def service(namespace: str, name: str, port: ServicePort, owner: Mapping[str, Any]) -> dict[str, Any]:
    """The Service. It has the name of the LLMService, so the address is known before anything runs."""
    return with_hash(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {**names.common_labels("server"), names.SERVICE: names.label_value(name)},
                "ownerReferences": [dict(owner)],
            },
            "spec": {
                "type": port.type,
                "selector": names.service_selector(name),
                "ports": [{"name": PORT_NAME, "port": port.port, "targetPort": PORT_NAME, "protocol": "TCP"}],
            },
        }
    )


def url(namespace: str, name: str, port: int) -> str:
    """Base URL for OpenAI clients inside the cluster."""
    return f"http://{name}.{namespace}.svc:{port}/v1"
