"""What the operator wrote, written again by the bare client: the same requests into other namespaces, each service's in their order."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.bench.bare import JSON_PATCH, Bare, spread
from tests.bench.population import Group, Population, manifest
from tests.bench.recorder import Request
from trtllm_operator.kube.resources import BY_KIND


@dataclass(frozen=True)
class Write:
    """One request as a text with uids, names and namespaces of the run in which it was recorded."""

    method: str
    path: str
    body: str
    content_type: str


class Score:
    """Writes by the name of the service that they are for."""

    def __init__(self, population: Population, writes: Iterable[Request]) -> None:
        """`writes` are those that the operator sent while `population` settled. Refused ones are left out: they made nothing.

        Services that joined the owners of their build in one write join one by one here.
        """
        self._recorded = population
        self._of: defaultdict[str, list[Write]] = defaultdict(list)
        names = {uid: name for name, uid in population.uids.items()}
        self.left_out = 0
        joined: set[str] = set()
        for write in writes:
            if write.owners is not None and write.status < 400:
                for owner in write.owners:
                    if owner["uid"] in names and owner["uid"] not in joined:
                        joined.add(owner["uid"])
                        append = [{"op": "add", "path": "/metadata/ownerReferences/-", "value": owner}]
                        self._of[names[owner["uid"]]].append(Write(write.method, write.path, json.dumps(append), JSON_PATCH))
                continue
            name = next((names[uid] for uid in _uids(write) if uid in names), None)
            if name is None or write.status >= 400:
                self.left_out += 1
                continue
            self._of[name].append(Write(write.method, write.path, write.body, write.content_type))

    @property
    def count(self) -> int:
        """Writes of the operator that are played."""
        return sum(map(len, self._of.values()))

    async def play(self, bare: Bare, population: Population) -> None:
        """Make the users' services and everything that belongs to them, in the same order as they were made when it was recorded."""
        before = {name: group for group, name in self._recorded.names}
        pairs = [(group, name, before[name]) for group, name in population.names]

        async def one(item: tuple[Group, str, Group]) -> None:
            group, name, old = item
            made = await bare.json("POST", BY_KIND["LLMService"].path(group.namespace), manifest(group, name))
            uid = population.uids[name] = made["metadata"]["uid"]
            changes = {old.namespace: group.namespace, self._recorded.uids[name]: uid}
            changes |= {old.uids[key]: group.uids[key] for key in old.uids}
            for write in self._of[name]:
                body = json.loads(_changed(write.body, changes))
                if "/status?" in write.path:
                    del body["metadata"]["resourceVersion"]  # of the service as it was then; nobody else writes to this one
                await bare.request(write.method, _changed(write.path, changes), body, write.content_type)

        await spread(pairs, one)


def _changed(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


def _uids(write: Request) -> list[str]:
    """Every uid that the write names as its owner or subject."""
    body: Any = json.loads(write.body)
    metadata = body.get("metadata") or {}
    owners = [str(owner.get("uid")) for owner in metadata.get("ownerReferences", ())]
    return [*owners, str(metadata.get("uid")), str((body.get("regarding") or {}).get("uid"))]
