"""Identity of observed objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from trtllm_operator.api import llmengine, llmenginebuild, llmservice
from trtllm_operator.api.common import UNSEEN_GENERATION

Obj = Mapping[str, Any]

ENGINE = llmengine.Kind.kind
BUILD = llmenginebuild.Kind.kind
SERVICE = llmservice.Kind.kind
ROOTS = frozenset({ENGINE, BUILD, SERVICE})
"""Kinds with a reconciler."""


class Ref(NamedTuple):
    """One object by name; the namespace is empty for nodes. For a root kind it is also the key of the queue."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def ref_of(obj: Obj) -> Ref:
    """The reference to an object."""
    metadata = obj["metadata"]
    return Ref(obj["kind"], metadata.get("namespace") or "", metadata["name"])


def uid_of(obj: Obj) -> str:
    """uid, or empty where an object was never on a server."""
    return str(obj["metadata"].get("uid") or "")


def version_of(obj: Obj) -> int:
    """The resourceVersion as a number. Kubernetes orders them since 1.35 by contract and always did in practice; -1 where it is none."""
    text = str(obj["metadata"].get("resourceVersion") or "")
    return int(text) if text.isdigit() else -1


def owners_of(obj: Obj) -> Iterator[Mapping[str, Any]]:
    """Entries of ownerReferences."""
    for reference in obj["metadata"].get("ownerReferences") or ():
        if isinstance(reference, Mapping):
            yield reference


def controller_of(obj: Obj) -> Mapping[str, Any] | None:
    """The owner that controls the object, if one does."""
    return next((reference for reference in owners_of(obj) if reference.get("controller")), None)


def labels_of(obj: Obj) -> Mapping[str, str]:
    """Labels, perhaps none."""
    labels = obj["metadata"].get("labels")
    return labels if isinstance(labels, Mapping) else {}


def ready_status(obj: Obj) -> str:
    """Status of the condition Ready; `Unknown` where there is none."""
    status = obj.get("status")
    conditions = status.get("conditions") if isinstance(status, Mapping) else None
    for condition in conditions or ():
        if isinstance(condition, Mapping) and condition.get("type") == "Ready":
            return str(condition.get("status"))
    return "Unknown"


def is_new(root: Obj) -> bool:
    """Whether the operator has written no status yet."""
    return nested(root, "status", "observedGeneration") in (None, UNSEEN_GENERATION)


def nested(obj: Any, *path: str) -> Any:
    """A value deep inside, or None where the path ends early or in something that is no map."""
    for key in path:
        if not isinstance(obj, Mapping):
            return None
        obj = obj.get(key)
    return obj
