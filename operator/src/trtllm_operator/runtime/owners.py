"""Entries among the owners of objects that many resources share.

Hundreds of services may serve one build, and each is one of its owners. The API server needs the longer for a write the more owners there
are, and most of the time again for each of several writes that meet: with a server-side apply of each for itself, 300 services of one
engine took four times as long as 300 of many engines. So one write at a time, with everything that came up while the one before was under
way. It is a whole list with a resourceVersion, so that no entry gets lost that was not seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trtllm_operator.decide.decision import Entry
from trtllm_operator.desired.match import difference
from trtllm_operator.kube import apply as kube
from trtllm_operator.kube.client import Client
from trtllm_operator.kube.errors import ConflictError, NotFoundError, TransientError
from trtllm_operator.observe.refs import Obj, Ref, owners_of, ref_of, uid_of, version_of
from trtllm_operator.runtime.confirm import Confirm, OutdatedError, refresh, sure
from trtllm_operator.runtime.intake import Intake

_TRIES = 3
"""Of one write that meets changes by others, such as the garbage collector's."""


class LeavingError(Exception):
    """An object of the wanted name is on its way out; it can be made again when it is gone."""


@dataclass
class _Batch:
    """Changes that go together: uid of an owner -> its reference, or None where it leaves."""

    changes: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    answer: dict[str, Any] | None = None
    error: Exception | None = None


class Owners:
    """Joins and leaves. Belongs to one event loop."""

    def __init__(self, client: Client, intake: Intake, idle: Callable[[], None]) -> None:
        """`idle` is called for each write that changed nothing."""
        self._client = client
        self._intake = intake
        self._idle = idle
        self._waiting: dict[tuple[Ref, str], _Batch] = {}
        self._sending: dict[tuple[Ref, str], _Batch] = {}

    async def join(self, entry: Entry, confirm: Confirm = sure) -> bool:
        """Be among the owners; whether that took a write. `confirm` is called before: an entry that is missing may have gone with its owner.

        Raises:
            LeavingError: the object is being deleted. OutdatedError: it is gone, or another one now; or of `confirm`.
            ApiError: as `kube.apply.patch_metadata`; a ConflictError only where others change it all the time.
        """
        return await self._change(entry, entry.owner, confirm)

    async def leave(self, entry: Entry) -> bool:
        """Be among them no longer. As `join`, but that an object that is gone is left."""
        try:
            return await self._change(entry, None)
        except OutdatedError:
            return False

    async def _change(self, entry: Entry, owner: Mapping[str, Any] | None, confirm: Confirm = sure) -> bool:
        uid = str(entry.owner["uid"])
        if _owners(self._known(entry), {uid: owner}) is None:
            return False
        await confirm()
        key = (ref_of(entry.obj), uid_of(entry.obj))
        batch = self._waiting.get(key)
        if batch is None:
            batch = self._waiting[key] = _Batch()
            batch.changes[uid] = owner
            await self._send(key, batch, entry)
        else:
            batch.changes[uid] = owner
            await batch.over.wait()
            if batch.error is not None:
                raise batch.error
            if batch.answer is not None:
                self._intake.wrote(batch.answer)  # by this pass as well, to which it is no news then
        return True

    async def _send(self, key: tuple[Ref, str], batch: _Batch, entry: Entry) -> None:
        """Wait for the batch before, and write what has come together meanwhile."""
        try:
            if (before := self._sending.get(key)) is not None:
                await before.over.wait()
            self._sending[key] = self._waiting.pop(key)
            batch.answer = await self._write(entry, batch.changes)
        except Exception as error:
            batch.error = error
            raise
        except BaseException:
            batch.error = TransientError(f"{key[0]}: the pass that was about to write its owners was given up")
            raise
        finally:
            for batches in (self._waiting, self._sending):
                if batches.get(key) is batch:
                    del batches[key]
            batch.over.set()

    async def _write(self, entry: Entry, changes: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any] | None:
        """The answer; None where others have made the changes meanwhile."""
        for rest in reversed(range(_TRIES)):
            known = self._known(entry)
            owners = _owners(known, changes)
            if owners is None:
                return None
            try:
                answer = await kube.patch_metadata(self._client, known, {"ownerReferences": owners})
            except ConflictError:
                await refresh(self._client, self._intake, known)
                if not rest:
                    raise
            except NotFoundError as error:
                if error.names != entry.obj["metadata"]["name"]:
                    raise  # the kind is not served at the moment, which says nothing of the object
                self._intake.deleted(ref_of(known), uid_of(known))
                raise OutdatedError from error
            else:
                if version_of(answer) == version_of(known):
                    self._idle()
                self._intake.wrote(answer)
                return answer
        return None

    def _known(self, entry: Entry) -> Obj:
        """The newest that is known of it. Raises OutdatedError, LeavingError."""
        known = self._intake.store.get(ref_of(entry.obj))
        if known is None or uid_of(known) != uid_of(entry.obj):
            raise OutdatedError
        if "deletionTimestamp" in known["metadata"]:
            raise LeavingError(f"{ref_of(known)} is being deleted")
        return known


def _owners(known: Obj, changes: Mapping[str, Mapping[str, Any] | None]) -> list[Mapping[str, Any]] | None:
    """All owners as they should be; None where they are so already."""
    present = {str(owner.get("uid")): owner for owner in owners_of(known)}
    news = {
        uid: owner
        for uid, owner in changes.items()
        if (uid in present if owner is None else difference(owner, present.get(uid)) is not None)
    }
    if not news:
        return None
    return [owner for owner in (present | news).values() if owner is not None]
