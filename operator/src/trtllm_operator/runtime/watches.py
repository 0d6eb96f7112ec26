"""All watches: kopf's, of the kinds that people write, and our own, of what the operator makes and looks at.

kopf takes each object through a task and a queue of its own, and lists anew whenever it starts. For a handful of resources that is no
matter; their children are five times as many and change more often. operator/docs/performance.md has the figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from trtllm_operator.kube.client import Client
from trtllm_operator.kube.resources import ROOTS, Resource
from trtllm_operator.runtime.handlers import Deliver
from trtllm_operator.runtime.reflector import Reflector
from trtllm_operator.runtime.relist import Relister
from trtllm_operator.runtime.watcher import Watcher

_SILENT_SECONDS = 60.0


class Watches:
    """Everything is delivered in the event loop that `run` runs in."""

    def __init__(
        self, client: Client, relister: Relister, resources: Sequence[Resource], namespaces: Sequence[str], deliver: Deliver
    ) -> None:
        """`relister` has listed all `resources` already."""
        self._kopf = Watcher(ROOTS, namespaces, deliver, relister.soon, relister.all_soon)
        self._reflectors = [
            Reflector(
                client,
                resource,
                namespace or None,
                relister.versions[resource.kind, namespace],
                partial(relister.catch_up, resource, namespace),
                deliver,
            )
            for resource in resources
            if resource not in ROOTS
            for namespace in relister.namespaces(resource)
        ]

    async def run(self) -> None:
        """Watch, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._kopf.run())
            for reflector in self._reflectors:
                group.create_task(reflector.run())

    def restart(self) -> None:
        """Open all watches anew, each after a list."""
        self._kopf.restart()
        for reflector in self._reflectors:
            reflector.restart()

    def recovered(self, kind: str) -> None:
        """The API server serves the kind again: watch it, if kopf has left it out."""
        if kind in {resource.kind for resource in ROOTS} and self._kopf.unwatched(kind):
            self._kopf.restart()

    def silent(self) -> set[str]:
        """Kinds that nobody has watched for a minute."""
        return self._kopf.silent() | {r.resource.kind for r in self._reflectors if r.silent_seconds() > _SILENT_SECONDS}
