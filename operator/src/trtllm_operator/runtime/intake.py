"""The one way of observations into the store: each is compared with what is known, and only news puts roots into the queue."""

from __future__ import annotations

import logging
from typing import Any

from trtllm_operator.desired.names import MANAGED_BY, MANAGER
from trtllm_operator.kube.lists import Listing, strip
from trtllm_operator.observe.refs import ROOTS, Obj, Ref, labels_of, ref_of, uid_of, version_of
from trtllm_operator.observe.routes import roots_of, slim_node
from trtllm_operator.observe.store import Store
from trtllm_operator.runtime.freshness import Freshness
from trtllm_operator.runtime.queue import Queue

_log = logging.getLogger(__name__)


class Intake:
    """Store, queue and freshness kept in step. One event loop owns it."""

    def __init__(self, store: Store, queue: Queue, freshness: Freshness) -> None:
        self.store = store
        self._queue = queue
        self._freshness = freshness

    def heard(self, kind: str | None, obj: dict[str, Any]) -> None:
        """One event of a watch: kind ADDED, MODIFIED, DELETED, or None for an object of the watch's first list. Never raises."""
        try:
            prepared = _prepare(obj)
            self._freshness.heard(prepared)
            if kind == "DELETED":
                self._gone(prepared)
            else:
                self._take(prepared)
        except Exception:  # noqa: BLE001 - one event that is not understood must not end the watch
            _log.exception("an event was not understood and is left to the next list")

    def wrote(self, obj: dict[str, Any]) -> None:
        """The answer to a write of ours: known at once, and due from the watch, or told by it already."""
        watched = obj["kind"] in ROOTS or labels_of(obj).get(MANAGED_BY) == MANAGER
        if not self._take(_prepare(obj)):
            self._queue.own(_cause(obj))
        elif watched:
            self._freshness.await_watch(obj)

    def read(self, obj: dict[str, Any]) -> None:
        """An object that was read on its own."""
        self._take(_prepare(obj))

    def deleted(self, ref: Ref, uid: str) -> None:
        """A deletion of ours has taken the object away at once."""
        known = self.store.remove(ref, uid)
        self._freshness.vanished(ref)
        if known is not None:
            self._enqueue(known, None)

    def listed(self, kind: str, listing: Listing, namespace: str = "") -> int:
        """A complete list; returns how many differences it told."""
        items: list[Obj] = [_prepare(item) for item in listing.items]
        replaced = self.store.replace(kind, items, listing.resource_version, namespace)
        for obj, before in replaced.touched:
            self._freshness.await_watch(obj)
            self._enqueue(obj, before)
        for obj in replaced.vanished:
            self._freshness.vanished(ref_of(obj))
            self._enqueue(obj, None)
        return len(replaced.touched) + len(replaced.vanished)

    def caught_up(self, kind: str, listing: Listing, namespace: str = "") -> int:
        """A list that a watch goes on after: what it tells, the watch will not tell again. Returns how many differences it told."""
        told = self.listed(kind, listing, namespace)
        self._freshness.caught_up(kind, listing.resource_version, namespace)
        return told

    def _take(self, obj: Obj) -> bool:
        put = self.store.put(obj)
        if put.changed:
            self._enqueue(obj, put.before)
        return put.changed

    def _gone(self, obj: Obj) -> None:
        ref = ref_of(obj)
        self._freshness.vanished(ref)
        known = self.store.remove(ref, uid_of(obj), version_of(obj))
        # Each on its own, not as a change from one to the other: what goes just as it was is news all the same.
        self._enqueue(obj, None)
        if known is not None:
            self._enqueue(known, None)

    def _enqueue(self, obj: Obj, before: Obj | None) -> None:
        for key in roots_of(self.store, obj, before):
            self._queue.add(key, _cause(obj))


def _cause(obj: Obj) -> tuple[Ref, int]:
    """One state of one object."""
    return ref_of(obj), version_of(obj)


def _prepare(obj: dict[str, Any]) -> Obj:
    return slim_node(obj) if obj.get("kind") == "Node" else strip(obj)
