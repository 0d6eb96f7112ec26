"""Observed objects in memory, with the indexes that gathering and routing need.

Fed by watches, by lists and by the answers to our own writes, which overtake each other; the newest resourceVersion wins. What was
deleted stays deleted: an older answer or event can't bring it back. A watch with a label selector calls deleted what has only lost its
label, so a deletion counts up to its own version: what is seen of the same object later is there again.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import NamedTuple

from trtllm_operator.observe.refs import Obj, Ref, ref_of, uid_of, version_of

Index = Callable[[Obj], Iterable[Hashable]]
"""Terms under which an object is found. Must not raise, whatever the object looks like."""

_TOMBSTONES = 8192
_FOR_EVER = sys.maxsize


class Put(NamedTuple):
    """What became of an observation."""

    changed: bool
    before: Obj | None


class Replaced(NamedTuple):
    """How a list differed from what was known: objects that are new or newer (with what they were), and objects that are gone."""

    touched: list[tuple[Obj, Obj | None]]
    vanished: list[Obj]


class Store:
    """Not thread-safe: one event loop owns it."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._objects: dict[Ref, Obj] = {}
        self._kinds: dict[str, dict[Ref, None]] = {}
        self._terms: dict[Hashable, dict[Ref, None]] = {}
        self._terms_of: dict[Ref, tuple[Hashable, ...]] = {}
        self._dead: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, ref: Ref) -> Obj | None:
        """The object of this name, if it is known."""
        return self._objects.get(ref)

    def of_kind(self, kind: str) -> Iterator[Obj]:
        """All objects of a kind."""
        return (self._objects[ref] for ref in tuple(self._kinds.get(kind, ())))

    def find(self, term: Hashable) -> list[Obj]:
        """Objects under one index term, ordered by kind and name so that equal knowledge gives equal input."""
        return [self._objects[ref] for ref in sorted(self._terms.get(term, ()))]

    def put(self, obj: Obj) -> Put:
        """Take in an observed object unless something as new or newer is known of it."""
        ref, uid = ref_of(obj), uid_of(obj)
        before = self._objects.get(ref)
        if version_of(obj) <= self._dead.get(uid, -_FOR_EVER) or (before is not None and 0 <= version_of(obj) <= version_of(before)):
            return Put(changed=False, before=before)
        if before is not None and uid_of(before) != uid:
            self._bury(uid_of(before))
        self._insert(ref, obj)
        return Put(changed=True, before=before)

    def remove(self, ref: Ref, uid: str, version: int = _FOR_EVER) -> Obj | None:
        """Forget an object that was deleted, as of `version` where only a watch or a list says so; returns what was known.

        A successor of the same name stays, and so does what is known of the same object since that version.
        """
        self._bury(uid, version)
        before = self._objects.get(ref)
        if before is None or (uid and uid_of(before) != uid) or version_of(before) > version:
            return None
        self._drop(ref)
        return before

    def replace(self, kind: str, items: Iterable[Obj], list_version: str, namespace: str = "") -> Replaced:
        """Take in a complete list of a kind (of one namespace, or all), as of `list_version`. What is newer than the list stays."""
        touched: list[tuple[Obj, Obj | None]] = []
        listed: set[Ref] = set()
        for obj in items:
            listed.add(ref_of(obj))
            put = self.put(obj)
            if put.changed:
                touched.append((obj, put.before))
        as_of = int(list_version) if list_version.isdigit() else None
        vanished = []
        for ref in tuple(self._kinds.get(kind, ())):
            if ref in listed or (namespace and ref.namespace != namespace):
                continue
            known = self._objects[ref]
            if as_of is None or version_of(known) <= as_of:
                vanished.append(known)
                self.remove(ref, uid_of(known), _FOR_EVER if as_of is None else as_of)
        return Replaced(touched, vanished)

    def _insert(self, ref: Ref, obj: Obj) -> None:
        terms = tuple(self._index(obj))
        if (old := self._terms_of.get(ref)) != terms:
            self._unindex(ref, old or ())
            for term in terms:
                self._terms.setdefault(term, {})[ref] = None
            self._terms_of[ref] = terms
        self._objects[ref] = obj
        self._kinds.setdefault(ref.kind, {})[ref] = None

    def _drop(self, ref: Ref) -> None:
        self._unindex(ref, self._terms_of.pop(ref, ()))
        del self._objects[ref]
        self._kinds[ref.kind].pop(ref, None)

    def _unindex(self, ref: Ref, terms: Iterable[Hashable]) -> None:
        for term in terms:
            refs = self._terms[term]
            refs.pop(ref, None)
            if not refs:
                del self._terms[term]

    def _bury(self, uid: str, version: int = _FOR_EVER) -> None:
        if not uid:
            return
        self._dead[uid] = max(version, self._dead.get(uid, version))
        while len(self._dead) > _TOMBSTONES:
            self._dead.popitem(last=False)
