"""Requests about one `coordination.k8s.io/v1` Lease. A replacement carries the version that was read, so of two at once one gets a 409."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trtllm_operator.kube.client import Client
from trtllm_operator.kube.errors import NotFoundError
from trtllm_operator.kube.resources import LEASE

_SECONDS = 5.0
"""A renewal that takes longer is better tried again: what holds the Lease has ten."""


@dataclass(frozen=True)
class Held:
    """What a Lease says."""

    holder: str
    """Empty: given back."""
    seconds: int
    """How long the others must not have seen a renewal before they may take it."""
    acquired: str
    renewed: str
    """Times of the holder's clock, which nobody compares with another clock."""
    transitions: int
    version: str
    """resourceVersion; empty: there is no Lease yet."""


NOBODY = Held("", 0, "", "", 0, "")


async def read(client: Client, namespace: str, name: str) -> Held:
    """The Lease as it is; `NOBODY` where there is none. Raises ApiError as `Client.json`."""
    try:
        return _held(await client.json("GET", LEASE.path(namespace, name), seconds=_SECONDS))
    except NotFoundError:
        return NOBODY


async def write(client: Client, namespace: str, name: str, held: Held) -> Held:
    """Replace the version that `held` names, or make the Lease.

    Raises:
        ConflictError: it is not as it was read. ApiError: as `Client.json`.
    """
    body: dict[str, Any] = {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "holderIdentity": held.holder,
            "leaseDurationSeconds": held.seconds,
            "acquireTime": held.acquired,
            "renewTime": held.renewed,
            "leaseTransitions": held.transitions,
        },
    }
    if not held.version:
        return _held(await client.json("POST", LEASE.path(namespace), body=body, seconds=_SECONDS))
    body["metadata"]["resourceVersion"] = held.version
    return _held(await client.json("PUT", LEASE.path(namespace, name), body=body, seconds=_SECONDS))


def stamp(now: datetime) -> str:
    """A time as Leases have it (MicroTime)."""
    return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _held(obj: Any) -> Held:
    spec = obj.get("spec") or {}
    return Held(
        holder=str(spec.get("holderIdentity") or ""),
        seconds=int(spec.get("leaseDurationSeconds") or 0),
        acquired=str(spec.get("acquireTime") or ""),
        renewed=str(spec.get("renewTime") or ""),
        transitions=int(spec.get("leaseTransitions") or 0),
        version=str(obj["metadata"].get("resourceVersion", "")),
    )
