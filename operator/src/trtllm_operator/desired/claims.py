"""Persistent volume claims: one for each checkpoint, one for each engine; or directories on a claim that the user gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trtllm_operator.api.llmengine import ModelFacts, Storage
from trtllm_operator.desired import names
from trtllm_operator.desired.match import with_hash

GIB = 2**30


def _gib(size: float) -> str:
    """Rounded up, with room for file systems' own needs (ext4 keeps 5 % for root)."""
    return f"{int(size * 1.1 // GIB) + 2}Gi"


def checkpoint_size(model: ModelFacts, storage: Storage) -> str:
    """Size of a checkpoint's claim."""
    return storage.size or _gib(model.bytes)


def engine_size(model: ModelFacts, storage: Storage) -> str:
    """Size of an engine's claim: while it is made, it holds the converted checkpoint and the engine, each about as large as the weights."""
    return storage.size or _gib(2 * model.bytes)


def claim(
    namespace: str, name: str, size: str, storage: Storage, labels: Mapping[str, str], owners: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A claim of ours. Its owners keep it alive; with the last of them it goes."""
    spec: dict[str, Any] = {
        "accessModes": list(storage.access_modes or ["ReadWriteOnce"]),
        "resources": {"requests": {"storage": size}},
    }
    if storage.storage_class_name:
        spec["storageClassName"] = storage.storage_class_name
    return with_hash(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {**names.common_labels("storage"), **labels},
                "ownerReferences": [dict(owner) for owner in owners],
            },
            "spec": spec,
        }
    )
