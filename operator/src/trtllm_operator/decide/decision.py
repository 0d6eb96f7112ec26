"""What a decision says. `runtime.reconcile` carries it out in this order: join, apply, leave, delete, status, events."""

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
    can_wait: bool = False
    """A new resource's object without which its pods come up as well: made when other new resources have those that theirs need."""


@dataclass(frozen=True)
class Entry:
    """One owner's entry among the owners of an object that it shares with others."""

    obj: Mapping[str, Any]
    """The shared object as observed. Its name and uid count: a successor of the same name is another object."""
    owner: Mapping[str, Any]
    """The owner's reference, as `desired.owners.owner_reference` makes it."""


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
    join: tuple[Entry, ...] = ()
    """Objects to be among the owners of, before anything that needs them is made."""
    apply: tuple[Apply, ...] = ()
    leave: tuple[Entry, ...] = ()
    """Objects of which others are owners, too, and this resource shall not be any longer."""
    delete: tuple[Delete, ...] = ()
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
    """Seconds after which to look again, where nothing that is watched will tell."""
