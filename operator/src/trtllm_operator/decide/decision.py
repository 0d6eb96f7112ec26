"""What a decision says. `runtime.reconcile` carries it out in this order: apply, delete, status, events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trtllm_operator.desired.names import MANAGER


@dataclass(frozen=True)
class Apply:
    """One server-side apply, forced. Not sent where the observed object is as desired already (`desired.match`).

    With `create_only` the object is never applied again once it exists: Jobs and claims, whose specs can't change.
    """

    obj: Mapping[str, Any]
    manager: str = MANAGER
    create_only: bool = False
    leaves: str | None = None
    """uid of an owner that goes: sent exactly while the observed object still has its entry, by that owner's field manager."""


@dataclass(frozen=True)
class Delete:
    """One deletion, with uid and resourceVersion as preconditions, so that what has changed since is never deleted."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str | None = None


@dataclass(frozen=True)
class Event:
    """A Kubernetes Event on the root object. Made on transitions only."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Decision:
    """Everything that one pass does."""

    status: Mapping[str, Any] | None = None
    """The whole status as it should be; None: leave it. Written only where it differs from what is there."""
    apply: tuple[Apply, ...] = ()
    delete: tuple[Delete, ...] = ()
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
    """Seconds after which to look again, where nothing that is watched will tell."""
