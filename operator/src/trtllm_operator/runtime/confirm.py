"""Before anything that exists is changed or deleted: are the objects that the decision goes by still what they are known as?

Watches and lists may be behind, each for itself: after a restart on an API server that lags, or where the watch of a child is ahead of
its root's. A decision from an older root would undo what was made since. Reading a root by name is answered from etcd, not from a
cache, so one such read in a pass that has something to undo is enough; a pass that does nothing, or makes things for a root that is new,
needs none. What a root that was looked at before is missing may have gone with it: there the root alone is read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from trtllm_operator.decide.input import BuildInput, EngineInput, ServiceInput
from trtllm_operator.kube.client import Client
from trtllm_operator.kube.errors import NotFoundError
from trtllm_operator.kube.lists import get
from trtllm_operator.kube.resources import resource_of
from trtllm_operator.observe.refs import Obj, Ref, nested, ref_of, uid_of, version_of
from trtllm_operator.runtime.intake import Intake

Confirm = Callable[[], Awaitable[None]]
"""Called before an object that exists is changed or deleted. Raises OutdatedError, and ApiError where the sources can't be read."""


class OutdatedError(Exception):
    """What a decision was made from is not what there is. The store knows better now."""


async def sure() -> None:
    """Nothing to confirm."""


def sources(given: EngineInput | BuildInput | ServiceInput) -> tuple[Obj, ...]:
    """The objects whose content decides how children should be."""
    match given:
        case EngineInput():
            return (given.engine,)
        case BuildInput():
            return (given.build, *given.engines)
        case _:
            build = given.builds.get(str(nested(given.engine, "status", "artifact", "build")))
            return tuple(obj for obj in (given.service, given.engine, build) if obj is not None)


class Confirmation:
    """Of one pass. Each source is read once, however often the pass decides anew."""

    def __init__(self, client: Client, intake: Intake) -> None:
        self._client = client
        self._intake = intake
        self._read: set[Ref] = set()

    async def of(self, known: tuple[Obj, ...]) -> None:
        """Read these objects, unless this pass has read them.

        Raises:
            OutdatedError: one of them has changed in what decisions go by, or is gone. ApiError: it can't be read.
        """
        outdated = False
        for obj in known:
            if (ref := ref_of(obj)) not in self._read:
                outdated |= await refresh(self._client, self._intake, obj)
                self._read.add(ref)
        if outdated:
            raise OutdatedError


async def refresh(client: Client, intake: Intake, known: Obj) -> bool:
    """Read an object by name and take it in; whether it differs from what is known in what decisions go by. Raises ApiError."""
    ref = ref_of(known)
    try:
        live = await get(client, resource_of(known["apiVersion"], known["kind"]), ref.namespace, ref.name)
    except NotFoundError as error:
        if error.names != ref.name:
            raise  # the kind is not served at the moment, which says nothing of the object
        intake.deleted(ref, uid_of(known))
        return True
    intake.read(live)
    return version_of(live) > version_of(known) and _told(live) != _told(known)


def _told(obj: Obj) -> tuple[Any, ...]:
    metadata = obj["metadata"]
    return (*(metadata.get(key) for key in ("uid", "generation", "deletionTimestamp")), obj.get("status"))
