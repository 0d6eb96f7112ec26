"""Writes of one pass: only what differs, never what is not ours, and every answer goes back into the store."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from trtllm_operator.decide.decision import Apply, Delete
from trtllm_operator.desired import names
from trtllm_operator.desired.match import difference, with_hash
from trtllm_operator.kube import apply as kube
from trtllm_operator.kube.client import Client
from trtllm_operator.kube.errors import ConflictError, NotFoundError
from trtllm_operator.kube.lists import get
from trtllm_operator.kube.resources import resource_of
from trtllm_operator.observe.refs import ROOTS, Obj, Ref, controller_of, labels_of, nested, owners_of, ref_of, uid_of, version_of
from trtllm_operator.runtime.confirm import Confirm, Confirmation, OutdatedError, refresh, sure
from trtllm_operator.runtime.intake import Intake
from trtllm_operator.runtime.owners import LeavingError, Owners

_log = logging.getLogger(__name__)
_REMEMBERED = 4096


class NameTakenError(Exception):
    """An object of the wanted name exists and belongs to somebody else."""

    def __init__(self, taken: Obj) -> None:
        ref = ref_of(taken)
        controller = controller_of(taken)
        whose = f"controlled by {controller.get('kind')} {controller.get('name')}" if controller else "not made by trtllm-operator"
        super().__init__(
            f"{ref.kind} {ref.name} exists already and is {whose}; it is left alone. Rename this resource, or remove that object."
        )
        self.taken = taken
        self.ref = ref


class Writer:
    """Carries out parts of decisions."""

    def __init__(self, client: Client, intake: Intake, idle: Callable[[], None] = lambda: None) -> None:
        """`idle` is called for each write that changed nothing: the comparison before it is not as good as it could be."""
        self._client = client
        self._intake = intake
        self._idle = idle
        self.owners = Owners(client, intake, idle)
        self._settled: OrderedDict[tuple[Ref, str], tuple[int, str]] = OrderedDict()

    async def apply(self, wanted: Apply, confirm: Confirm = sure, confirm_new: Confirm = sure) -> bool:
        """Make one object as it should be; whether that took a write.

        `confirm` is called before an object that exists is changed, `confirm_new` before one is made, or gets us as one more owner.

        Raises:
            NameTakenError: it exists and is not ours. LeavingError: it is being deleted. OutdatedError: of either.
            ApiError: as `kube.apply.apply`.
        """
        obj = _prepared(wanted)
        ref = ref_of(obj)
        observed = self._intake.store.get(ref)
        if observed is None:
            await confirm_new()
            observed = await self._create(obj, wanted.manager)
            if observed is None:
                return True
        self._check(obj, observed)
        if wanted.create_only:
            return await self._claim_again(obj, observed, confirm)
        if self._as_desired(ref, obj, observed, wanted.manager):
            return False
        # One more owner takes nothing from a build. But where our entry is missing, it may have gone with its owner.
        await (confirm_new if ref.kind in ROOTS else confirm)()
        answer = await kube.apply(self._client, obj, manager=wanted.manager)
        if version_of(answer) == version_of(observed):
            self._idle()
            _log.info("apply of %s changed nothing, though %s differed", ref, difference(obj, observed) or "its hash")
        self._settle((ref, wanted.manager), (version_of(answer), names.short(obj)))
        self._intake.wrote(answer)
        return True

    async def _create(self, obj: Obj, manager: str) -> Obj | None:
        """Make an object that is not known; returns the one that turned out to exist, if so. Raises ConflictError where it went at once."""
        try:
            answer = await kube.apply(self._client, obj, manager=manager, create=True)
        except ConflictError as conflict:
            ref = ref_of(obj)
            try:
                found = await get(self._client, resource_of(obj["apiVersion"], obj["kind"]), ref.namespace, ref.name)
            except NotFoundError:
                raise conflict from None  # gone between the two requests: nothing to tell, only to try again
            if not is_ours(found, obj):
                raise NameTakenError(found) from None
            return found
        self._intake.wrote(answer)
        return None

    async def _claim_again(self, obj: Obj, observed: Obj, confirm: Confirm) -> bool:
        """Give an object that is never applied again its labels and owners back, without which nobody would see how it ends."""
        metadata, found = obj["metadata"], observed["metadata"]
        labels, owners = metadata.get("labels") or {}, metadata.get("ownerReferences") or ()
        if difference({"labels": labels, "ownerReferences": owners}, found) is None:
            return False
        await confirm()
        uids = {owner["uid"] for owner in owners}
        others = [owner for owner in owners_of(observed) if owner.get("uid") not in uids]
        answer = await kube.patch_metadata(self._client, observed, {"labels": labels, "ownerReferences": [*others, *owners]})
        self._intake.wrote(answer)
        _log.info("%s had lost a label or its owner, and has it back", ref_of(obj))
        return True

    def _check(self, obj: Obj, observed: Obj) -> None:
        if "deletionTimestamp" in observed["metadata"]:
            raise LeavingError(f"{ref_of(obj)} is being deleted")
        if is_ours(observed, obj):
            return
        controller = controller_of(observed) or {}
        owner = self._intake.store.get(Ref(str(controller.get("kind")), ref_of(obj).namespace, str(controller.get("name"))))
        if labels_of(observed).get(names.MANAGED_BY) == names.MANAGER and (owner is None or uid_of(owner) != controller.get("uid")):
            # Left by a deleted resource of the same name; the garbage collector is on its way.
            raise LeavingError(f"{ref_of(obj)} belongs to a deleted {controller.get('kind')}")
        raise NameTakenError(observed)

    def _as_desired(self, ref: Ref, obj: Obj, observed: Obj, manager: str) -> bool:
        same_hash = manager != names.MANAGER or _hash(observed) == _hash(obj)
        if same_hash and difference(obj, observed) is None:
            return True
        # What was applied to this very version is not applied again, even if the server writes it down in other words.
        settled = self._settled.get((ref, manager))
        return settled is not None and settled == (version_of(observed), names.short(obj))

    def _settle(self, key: tuple[Ref, str], value: tuple[int, str]) -> None:
        self._settled[key] = value
        self._settled.move_to_end(key)
        while len(self._settled) > _REMEMBERED:
            self._settled.popitem(last=False)

    async def delete(self, gone: Delete, confirm: Confirm = sure) -> None:
        """Delete one object, if it is still the one that was meant. `confirm` is called before.

        Raises ApiError as `kube.apply.delete`; not where the object is gone. A 404 that does not name it says only that nobody serves
        its kind at the moment. Raises OutdatedError of `confirm`.
        """
        await confirm()
        ref = Ref(gone.kind, gone.namespace, gone.name)
        try:
            left = await kube.delete(
                self._client, gone.api_version, gone.kind, gone.namespace, gone.name, uid=gone.uid, resource_version=gone.resource_version
            )
        except NotFoundError as error:
            if error.names != gone.name:
                raise
            left = None
        if left is None:
            self._intake.deleted(ref, gone.uid)
        else:
            self._intake.wrote(left)

    def confirmation(self) -> Confirmation:
        """For one pass."""
        return Confirmation(self._client, self._intake)

    async def refresh(self, known: Obj) -> None:
        """Read an object again, and take it in. Raises ApiError."""
        await refresh(self._client, self._intake, known)

    async def status(self, root: Obj, status: Mapping[str, Any]) -> None:
        """Write the status of a root. Raises as `kube.apply.apply_status`, and OutdatedError where the answer is that the root is gone."""
        key = (ref_of(root), "status")
        mark = names.short([uid_of(root), status])
        if self._settled.get(key) == (version_of(root), mark):
            return
        try:
            answer = await kube.apply_status(self._client, root, status)
        except NotFoundError as error:
            if error.names != key[0].name:
                raise  # the kind is not served at the moment, which says nothing of the root
            self._intake.deleted(key[0], uid_of(root))
            raise OutdatedError from error
        if contradicting := _contradicting(status, answer):
            _log.info("%s: somebody else has set %s by hand; taking it away", ref_of(root), ", ".join(sorted(contradicting)))
            kept = [item for item in nested(answer, "status", "conditions") or () if item.get("type") not in contradicting]
            answer = await kube.replace_conditions(self._client, answer, kept)
        if version_of(answer) == version_of(root):
            self._idle()
        self._settle(key, (version_of(answer), mark))
        self._intake.wrote(answer)

    async def still_foreign(self, foreign: Obj, wanted_uid: str) -> Obj | None:
        """Read an object of somebody else again; None where it is gone or has become ours. Raises ApiError as `kube.lists.get`."""
        ref = ref_of(foreign)
        try:
            found = await get(self._client, resource_of(foreign["apiVersion"], foreign["kind"]), ref.namespace, ref.name)
        except NotFoundError:
            return None
        controller = controller_of(found)
        return None if controller is not None and controller.get("uid") == wanted_uid else found


def _contradicting(status: Mapping[str, Any], answer: Obj) -> set[str]:
    """Types of ours that must not be there now, but are. Conditions of other types may be others' business."""
    wanted = {item["type"] for item in status.get("conditions") or ()}
    found = {str(item.get("type")) for item in nested(answer, "status", "conditions") or ()}
    return (found - wanted) & {"Reconciling", "Stalled"}


def is_ours(observed: Obj, wanted: Obj) -> bool:
    """May `wanted` be applied over `observed`? Only if the same object controls both, or nobody controls it and it has our label."""
    here, there = controller_of(wanted), controller_of(observed)
    if there is not None:
        return here is not None and here.get("uid") == there.get("uid")
    return observed["kind"] in ROOTS or labels_of(observed).get(names.MANAGED_BY) == names.MANAGER


def _prepared(wanted: Apply) -> Mapping[str, Any]:
    """With the hash of what is desired; without it where several managers apply the same object, each with another owner in it."""
    metadata = wanted.obj["metadata"]
    annotations = metadata.get("annotations") or {}
    if wanted.manager == names.MANAGER:
        return wanted.obj if names.DESIRED_HASH in annotations else with_hash(wanted.obj)
    if names.DESIRED_HASH not in annotations:
        return wanted.obj
    others = {key: value for key, value in annotations.items() if key != names.DESIRED_HASH}
    return {**wanted.obj, "metadata": {**metadata, "annotations": others}}


def _hash(obj: Obj) -> str | None:
    value = nested(obj, "metadata", "annotations", names.DESIRED_HASH)
    return value if isinstance(value, str) else None
