"""Owner references: what the garbage collector counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def owner_reference(owner: Mapping[str, Any], *, controller: bool) -> dict[str, Any]:
    """A reference to an owner of the same namespace. One controller at most; further owners only keep the object alive."""
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": controller,
    }


def owner_uids(obj: Mapping[str, Any], kind: str | None = None) -> set[str]:
    """Uids of the owners that an observed object has."""
    return {ref["uid"] for ref in obj["metadata"].get("ownerReferences", ()) if kind is None or ref.get("kind") == kind}


def controlled_by(obj: Mapping[str, Any], uid: str) -> bool:
    """Does this owner control the object?"""
    return any(ref["uid"] == uid and ref.get("controller") for ref in obj["metadata"].get("ownerReferences", ()))


def without(owners: Iterable[str], uid: str) -> set[str]:
    """Owners that remain when one leaves."""
    return {owner for owner in owners if owner != uid}
