"""Complete lists: once before anything is decided, then from time to time. They cure what a watch never told, such as a deletion
while the API server was away.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from trtllm_operator.kube.client import Client
from trtllm_operator.kube.errors import ApiError, ForbiddenError, NotFoundError
from trtllm_operator.kube.lists import list_all
from trtllm_operator.kube.resources import NODE, Resource
from trtllm_operator.runtime.freshness import Freshness
from trtllm_operator.runtime.intake import Intake

_log = logging.getLogger(__name__)

_SOON_SECONDS = 1.0
_LONGEST_SECONDS = 10.0
_TOGETHER = 4  # lists at the same time while seeding


class Relister:
    """Lists kinds, each in all namespaces or in those that are watched."""

    def __init__(
        self, client: Client, intake: Intake, freshness: Freshness, resources: Sequence[Resource], namespaces: Sequence[str], period: float
    ) -> None:
        """`period`: seconds between two lists of a kind."""
        self.recovered: Callable[[str], None] = lambda _: None
        """Called with a kind that can be listed again after its lists failed."""
        self.versions: dict[tuple[str, str], str] = {}
        """resourceVersion of the last list, by kind and namespace."""
        self._problems: dict[Resource, str] = {}
        self._client = client
        self._intake = intake
        self._freshness = freshness
        self.resources = list(resources)
        self._namespaces = tuple(namespaces)
        self._period = period
        self._due: dict[Resource, float] = {}
        self._wake = asyncio.Event()

    async def seed(self) -> None:
        """List every kind, however long it takes until the API server, the CRDs and the rights are there."""
        limit = asyncio.Semaphore(_TOGETHER)
        async with asyncio.TaskGroup() as group:
            for resource in tuple(self.resources):
                group.create_task(self._seed(resource, limit))
        self._freshness.reset()  # watches begin after these lists
        self._spread()

    @property
    def reads_nodes(self) -> bool:
        """Whether nodes can be read."""
        return NODE in self.resources

    async def _seed(self, resource: Resource, limit: asyncio.Semaphore) -> None:
        delay, said = 0.5, ""
        while True:
            try:
                async with limit:
                    await self.relist(resource)
            except ForbiddenError as error:
                if resource is NODE:
                    _log.info("going on without nodes, which the operator has no right to read: compute capabilities must be given")
                    self.resources.remove(NODE)
                    return
                text = f"no right to list {resource.plural}; apply the operator's RBAC. {error}"
            except NotFoundError:
                text = f"the API server does not know {resource.api_version} {resource.plural}; install the CRDs"
            except ApiError as error:
                text = str(error)
            else:
                return
            if text != said:
                _log.warning("waiting: %s", text)
                said = text
            await asyncio.sleep(delay * (0.75 + 0.5 * random.random()))  # noqa: S311 - jitter, no secret
            delay = min(delay * 2, _LONGEST_SECONDS)

    def namespaces(self, resource: Resource) -> Sequence[str]:
        """Where a kind is listed: each watched namespace, or all at once by an empty name."""
        return self._namespaces if resource.namespaced and self._namespaces else ("",)

    async def relist(self, resource: Resource) -> int:
        """List one kind now; returns how many differences there were. Raises as `kube.lists.list_all`."""
        differences = 0
        for namespace in self.namespaces(resource):
            listing = await list_all(self._client, resource, namespace or None)
            self.versions[resource.kind, namespace] = listing.resource_version
            differences += self._intake.listed(resource.kind, listing, namespace)
        self._freshness.listed(resource.kind)
        return differences

    async def catch_up(self, resource: Resource, namespace: str) -> str:
        """List what a watch goes on after; returns the version of the list. Raises as `kube.lists.list_all`."""
        listing = await list_all(self._client, resource, namespace or None)
        self._intake.caught_up(resource.kind, listing, namespace)
        return listing.resource_version

    def soon(self, kind: str) -> None:
        """A watch has begun anew with a list, so deletions before it may have been missed: list the kind after it."""
        self._bring_forward([resource for resource in self.resources if resource.kind == kind])

    def all_soon(self) -> None:
        """The watches have ended with an error, whose cause the lists can tell."""
        self._bring_forward(self.resources)

    def _bring_forward(self, resources: Sequence[Resource]) -> None:
        due = asyncio.get_running_loop().time() + _SOON_SECONDS
        for resource in resources:
            if self._due.get(resource, 0.0) > due:
                self._due[resource] = due
                self._wake.set()

    async def run(self) -> None:
        """List each kind once a period, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            resource = min(self._due, key=lambda candidate: self._due[candidate])
            self._wake.clear()
            try:
                async with asyncio.timeout_at(self._due[resource]):
                    await self._wake.wait()
                continue
            except TimeoutError:
                pass
            self._due[resource] = loop.time() + self._period
            try:
                differences = await self.relist(resource)
            except Exception as error:  # noqa: BLE001 - whatever came instead of a list, there will be another
                self._failed(resource, error)
                self._due[resource] = loop.time() + min(self._period, _LONGEST_SECONDS)
            else:
                if differences:
                    _log.info("the list of %s told %d changes before its watch", resource.plural, differences)
                if self._problems.pop(resource, None) is not None:
                    _log.info("%s can be listed again", resource.plural)
                    self.recovered(resource.kind)

    def _failed(self, resource: Resource, error: Exception) -> None:
        match error:
            case NotFoundError():
                self._freshness.unserved(resource.kind)
                text = f"the API server does not know {resource.api_version} {resource.plural}; install the CRDs. What there is stays"
            case ForbiddenError():
                text = f"no right to list {resource.plural}; apply the operator's RBAC. {error}"
            case ApiError():
                text = f"the list of {resource.plural} failed and is tried again: {error}"
            case _:
                text = f"the list of {resource.plural} failed and is tried again: {error!r}"
        if self._problems.get(resource) != text:
            _log.warning("%s", text)
        self._problems[resource] = text

    def _spread(self) -> None:
        """Kinds take turns, so that the API server never gets all lists at once."""
        now, step = asyncio.get_running_loop().time(), self._period / max(1, len(self.resources))
        self._due = {resource: now + self._period + step * number for number, resource in enumerate(self.resources)}
