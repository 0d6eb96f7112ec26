"""One pass over one root: gather, decide, apply, delete, one status write, events. Nothing is remembered that would be missed after a
restart: what memory there is only saves requests and log lines.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from trtllm_operator.api.reasons import remedy_of
from trtllm_operator.decide.decision import Apply, Decision, Entry, Event
from trtllm_operator.decide.input import BuildInput, EngineInput, ServiceInput
from trtllm_operator.kube.errors import ApiError, ConflictError, InvalidError, NotFoundError, RefusedError, TransientError, WebhookDownError
from trtllm_operator.kube.events import EventPoster
from trtllm_operator.observe.gather import Gatherer
from trtllm_operator.observe.refs import BUILD, ENGINE, SERVICE, Obj, Ref, is_new, nested, ref_of, uid_of, version_of
from trtllm_operator.observe.store import Store
from trtllm_operator.runtime.confirm import Confirm, Confirmation, OutdatedError, sources, sure
from trtllm_operator.runtime.owners import LeavingError
from trtllm_operator.runtime.refusal import CONFLICT, INTERNAL, REFUSED, refused_status, same_status
from trtllm_operator.runtime.writer import NameTakenError, Writer

_log = logging.getLogger(__name__)

_LEAVING_SECONDS = 2.0
_FOREIGN_SECONDS = 60.0
_REMEMBERED = 4096
_PASSES = 2
_SOON_SECONDS = 0.1


@dataclass(frozen=True)
class Deciders:
    """The decision function of each root kind."""

    engine: Callable[[EngineInput], Decision]
    build: Callable[[BuildInput], Decision]
    service: Callable[[ServiceInput], Decision]


@dataclass(frozen=True)
class Outcome:
    """What the queue must know of a pass."""

    again_after: float | None = None
    failed: bool = False
    at_least: float = 0.0
    """Seconds that the API server asked to wait for."""
    problem: str = "none"
    """Class of what went wrong, for the metrics."""
    put_off: bool = False
    """The rest of the work comes behind what waits now."""


class _Refusal(Exception):
    def __init__(self, reason: str, message: str, *, passes: bool = False) -> None:
        """`passes`: nobody has to act on this resource; it is tried again until it works."""
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.passes = passes


class _SupersededError(OutdatedError):
    """There is another spec by now, for which another pass is due: under a storm of changes each pass writes its children and one status."""


class Reconciler:
    """Runs passes. One instance serves all workers."""

    def __init__(
        self,
        store: Store,
        gatherer: Gatherer,
        writer: Writer,
        events: EventPoster,
        deciders: Deciders,
        *,
        serves: Callable[[str], bool] = lambda _: True,
        others_wait: Callable[[], bool] = lambda: False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._gatherer = gatherer
        self._writer = writer
        self._events = events
        self._deciders = deciders
        self._serves = serves
        self._others_wait = others_wait
        self._now = now
        self._foreign: dict[Ref, dict[Ref, Obj]] = {}
        self._said: OrderedDict[tuple[Ref, str], None] = OrderedDict()

    async def run(self, key: Ref) -> Outcome:
        """One pass. Raises nothing but what is a bug of this layer."""
        root = self._store.get(key)
        if root is None or "deletionTimestamp" in root["metadata"]:
            # Nothing outside the cluster has to be cleaned, and the garbage collector does the rest.
            self._foreign.pop(key, None)
            return Outcome()
        if not self._serves(key.kind):
            return Outcome(failed=True, problem="Unserved")  # it may be gone, and children that it does not own any more would be made anew
        try:
            await self._look_at_foreign(key, root)
            return await self._pass(key, root)
        except (TransientError, ConflictError) as error:
            _log.debug("%s: %s", key, error)
            return Outcome(failed=True, at_least=error.retry_after or 0.0, problem=type(error).__name__)
        except NotFoundError as error:
            self._say(key, f"{error}")  # a namespace or kind that went away meanwhile
            return Outcome(failed=True, problem="NotFoundError")

    async def _pass(self, key: Ref, root: Obj) -> Outcome:
        """Decide and carry out; once more, from what there is, where what it was decided from turns out to have changed."""
        confirmation = self._writer.confirmation()
        for _ in range(_PASSES):
            try:
                return await self._once(key, root, confirmation)
            except OutdatedError as error:
                present = self._store.get(key)
                if present is None or "deletionTimestamp" in present["metadata"]:
                    return Outcome()
                if isinstance(error, _SupersededError):
                    break
                root = present
        return Outcome(again_after=_SOON_SECONDS)

    async def _once(self, key: Ref, root: Obj, confirmation: Confirmation) -> Outcome:
        """Raises OutdatedError."""
        now = self._now()
        try:
            decision, goes_by = self._decide(key, root, now)
        except Exception as error:  # noqa: BLE001 - one object that can't be decided must not stop the others
            self._say(key, f"the decision failed: {error!r}", error)
            what = (
                f"The operator can't work on this resource: {repr(error)[:1024]}. This is an error in the operator: report it with its log."
            )
            return await self._refuse(key, root, None, _Refusal(INTERNAL, what), now)
        confirm = partial(confirmation.of, goes_by)
        new = is_new(root)
        confirm_new = sure if new else partial(confirmation.of, (root,))
        again = decision.requeue_after
        wrote = begun = False
        try:
            for can_wait, write in self._writes(key, decision, confirm, confirm_new):
                if can_wait and new and begun and self._others_wait():
                    return Outcome(put_off=True)  # its pods come up meanwhile
                try:
                    written = await write()
                    wrote |= written
                    begun |= written and not can_wait
                except LeavingError as error:
                    _log.debug("%s: %s", key, error)
                    again = min(again or _LEAVING_SECONDS, _LEAVING_SECONDS)
            for gone in decision.delete:
                await self._writer.delete(gone, confirm)
                wrote = True
        except NameTakenError as error:
            known = self._foreign.setdefault(key, {})
            news = error.ref not in known
            known[error.ref] = error.taken
            if news and key.kind == SERVICE:
                return Outcome(again_after=0.0)  # the decision can say it better
            return await self._refuse(key, root, decision.status, _Refusal(CONFLICT, str(error)), now)
        except (RefusedError, ValueError) as error:
            self._say(key, str(error))
            what = f"The API server refuses what the operator wants to make: {str(error)[:3072].rstrip('. ')}. {remedy_of(REFUSED)}"
            refusal = _Refusal(REFUSED, what, passes=isinstance(error, WebhookDownError))
            return await self._refuse(key, root, decision.status, refusal, now)
        if wrote and (after := self._after(key, root, now)) is not None:
            root, decision = after
        if decision.status is None:
            await self._post(root, decision.events)
        elif not await self._write_status(key, root, decision.status, decision.events):
            return Outcome(failed=True, problem="StatusNotWritten")
        if key in self._foreign:
            again = min(again or _FOREIGN_SECONDS, _FOREIGN_SECONDS)
        return Outcome(again_after=again)

    def _writes(
        self, key: Ref, decision: Decision, confirm: Confirm, confirm_new: Confirm
    ) -> Iterator[tuple[bool, Callable[[], Awaitable[bool]]]]:
        """Everything but deletions, in its order; and whether it can wait."""
        owners, taken = self._writer.owners, self._foreign.get(key, {})

        async def leave(entry: Entry) -> bool:
            await confirm()
            return await owners.leave(entry)

        async def apply(wanted: Apply) -> bool:
            if (other := taken.get(ref_of(wanted.obj))) is not None:
                raise NameTakenError(other)
            return await self._writer.apply(wanted, confirm, confirm_new)

        yield from ((False, partial(owners.join, entry, confirm_new)) for entry in decision.join)
        yield from ((wanted.can_wait, partial(apply, wanted)) for wanted in decision.apply)
        yield from ((False, partial(leave, entry)) for entry in decision.leave)

    def _after(self, key: Ref, root: Obj, now: datetime) -> tuple[Obj, Decision] | None:
        """What would be decided with this pass's own writes in view: its status saves the one that the next pass would write over."""
        present = self._store.get(key)
        if (
            present is None
            or uid_of(present) != uid_of(root)
            or present["metadata"].get("generation") != root["metadata"].get("generation")
        ):
            return None
        try:
            return present, self._decide(key, present, now)[0]
        except Exception as error:  # noqa: BLE001 - the next pass meets it again, and tells it
            _log.debug("%s: the decision after the writes failed: %r", key, error)
            return None

    def _decide(self, key: Ref, root: Obj, now: datetime) -> tuple[Decision, tuple[Obj, ...]]:
        """The decision, and what it goes by."""
        given: EngineInput | BuildInput | ServiceInput
        match key.kind:
            case kind if kind == ENGINE:
                given = self._gatherer.engine(root, now)
                return self._deciders.engine(given), sources(given)
            case kind if kind == BUILD:
                given = self._gatherer.build(root, now)
                return self._deciders.build(given), sources(given)
            case _:
                given = self._gatherer.service(root, now, tuple(self._foreign.get(key, {}).values()))
                return self._deciders.service(given), sources(given)

    async def _look_at_foreign(self, key: Ref, root: Obj) -> None:
        """Objects of others are not watched, so they are read again."""
        for ref, foreign in list(self._foreign.get(key, {}).items()):
            found = await self._writer.still_foreign(foreign, uid_of(root))
            if found is None:
                del self._foreign[key][ref]
            else:
                self._foreign[key][ref] = found
        if key in self._foreign and not self._foreign[key]:
            del self._foreign[key]

    async def _refuse(self, key: Ref, root: Obj, decided: Mapping[str, Any] | None, refusal: _Refusal, now: datetime) -> Outcome:
        """Show what keeps the pass from its work, and try again ever more slowly."""
        status, events = refused_status(root, decided, refusal.reason, refusal.message, now, passes=refusal.passes)
        written = await self._write_status(key, root, status, events)
        if refusal.reason == CONFLICT and written:
            return Outcome(again_after=_FOREIGN_SECONDS, problem=CONFLICT)
        return Outcome(failed=True, at_least=1.0, problem=refusal.reason)

    async def _write_status(self, key: Ref, root: Obj, status: Mapping[str, Any], events: tuple[Event, ...]) -> bool:
        """Write it if it says something new; False where it could not be written. Then nothing but another pass makes up for it.

        Raises OutdatedError where the resource has changed since `root`.
        """
        written = True
        if not same_status(status, nested(root, "status")):
            try:
                await self._writer.status(root, status)
            except ConflictError as error:
                # Changed, or deleted and made again, and the watch has not told yet; or a conflict that passes.
                _log.debug("%s: %s", key, error)
                try:
                    await self._writer.refresh(root)
                except RefusedError:
                    return False  # no right to read: the watch will tell
                present = self._store.get(key)
                if present is not None and version_of(present) <= version_of(root):
                    return False
                same = present is not None and present["metadata"].get("generation") == root["metadata"].get("generation")
                raise (OutdatedError if same else _SupersededError) from error
            except NotFoundError as error:
                _log.debug("%s: %s", key, error)
                return False
            except RefusedError as error:
                if isinstance(error, InvalidError) and "uid" in str(error).lower():
                    return False  # as above, in the words that the API server has for an object that exists
                self._say(key, str(error))
                events = (*events, Event("Warning", REFUSED, f"The status can't be written: {error}"))
                written = False
        await self._post(root, events)
        return written

    async def _post(self, root: Obj, events: tuple[Event, ...]) -> None:
        for event in events:
            try:
                await self._events.post(root, event)
            except ApiError as error:
                _log.debug("an event was not posted: %s", error)  # nice to have, and told by the conditions as well

    def _say(self, key: Ref, text: str, error: Exception | None = None) -> None:
        """Log once what stays the same."""
        mark = (key, text)
        level = logging.DEBUG if mark in self._said else logging.WARNING
        self._said[mark] = None
        self._said.move_to_end(mark)
        while len(self._said) > _REMEMBERED:
            self._said.popitem(last=False)
        _log.log(level, "%s: %s", key, text, exc_info=error if level == logging.WARNING else None)
