"""How things are in a namespace, for tests on a real API server."""

from __future__ import annotations

from collections.abc import Iterable

from tests.support.api import Api, Document
from tests.support.kubelet_standin import STAGE
from tests.support.samples import is_ready
from tests.support.waiting import eventually

ROOTS = ("LLMEngine", "LLMEngineBuild", "LLMService")
CHILDREN = ("Job", "PersistentVolumeClaim", "Deployment", "Service", "ConfigMap", "PodDisruptionBudget", "NetworkPolicy")
SETTLE_SECONDS = 90.0
_KUBERNETES_OWN = "kube-root-ca.crt"


def ready(api: Api, namespace: str, kind: str, name: str, *, seconds: float = SETTLE_SECONDS) -> Document:
    """Wait until it is Ready for its newest spec, and return it. Raises AssertionError with its status."""

    def look() -> Document:
        found = api.find(kind, name, namespace)
        return found if found is not None and is_ready(found) and observed(found) else {}

    try:
        return eventually(look, what=f"{kind} {name} ready", seconds=seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}; its status: {(api.find(kind, name, namespace) or {}).get('status')}") from error


def observed(obj: Document) -> bool:
    """Whether the status speaks of the newest spec."""
    return bool((obj.get("status") or {}).get("observedGeneration") == obj["metadata"]["generation"])


def jobs(api: Api, namespace: str, stage: str) -> list[str]:
    """Names of the Jobs of a stage."""
    return [job["metadata"]["name"] for job in api.list("Job", namespace) if job["metadata"].get("labels", {}).get(STAGE) == stage]


def things(api: Api, namespace: str, kinds: Iterable[str] = (*ROOTS, *CHILDREN)) -> list[Document]:
    """All objects of these kinds, but for those that Kubernetes puts into every namespace."""
    found = []
    for kind in kinds:
        found += [{**obj, "kind": kind} for obj in api.list(kind, namespace) if obj["metadata"]["name"] != _KUBERNETES_OWN]
    return found


def named(objects: Iterable[Document]) -> set[str]:
    """`Kind name` of each."""
    return {f"{obj['kind']} {obj['metadata']['name']}" for obj in objects}


def identities(api: Api, namespace: str, kinds: Iterable[str] = CHILDREN) -> dict[str, tuple[str, object]]:
    """Uid and generation of each object (its version, where it has no generation): what no write of the operator may change."""
    return {
        f"{obj['kind']} {obj['metadata']['name']}": (
            obj["metadata"]["uid"],
            obj["metadata"].get("generation") or obj["metadata"]["resourceVersion"],
        )
        for obj in things(api, namespace, kinds)
    }


def warnings(api: Api, namespace: str, name: str) -> list[Document]:
    """Warning events about an object of that name."""
    selector = f"type=Warning,involvedObject.name={name}"
    found: list[Document] = api.request("GET", f"/api/v1/namespaces/{namespace}/events", fieldSelector=selector)["items"]
    return found
