"""Services in groups: one namespace and one verified engine for each so many. Made, looked at, and taken away again."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from tests.bench import engines
from tests.bench.bare import Bare, spread
from tests.bench.engines import ENGINE, Model
from tests.bench.witness import MADE
from tests.support.samples import service
from trtllm_operator.kube.resources import BY_KIND, EVENT

SERVICES_PER_ENGINE = 20
"""A build lists each service that serves it among its owners, and so grows with them; see `line_shared`."""

_TOGETHER = 8


@dataclass
class Group:
    """One namespace with one engine."""

    namespace: str
    services: list[str]
    uids: dict[str, str]
    """uid in the model -> uid here."""


@dataclass
class Population:
    """So many services in groups."""

    groups: list[Group]
    uids: dict[str, str] = field(default_factory=dict)
    """Name of a service -> its uid, once it is made. Names are unique over all groups."""

    @property
    def names(self) -> list[tuple[Group, str]]:
        """All services, group by group in turn, as if many users came at the same time."""
        longest = max((len(group.services) for group in self.groups), default=0)
        return [(group, group.services[row]) for row in range(longest) for group in self.groups if row < len(group.services)]

    @property
    def count(self) -> int:
        """Services."""
        return sum(len(group.services) for group in self.groups)


async def prepare(
    bare: Bare, model: Model, number: int, count: int, per_engine: int = SERVICES_PER_ENGINE, letter: str = "s"
) -> Population:
    """Namespaces and engines for `count` services, of which none is made yet. Their names begin with the letter."""
    made: dict[int, Group] = {}

    async def group(first: int) -> None:
        index = first // per_engine
        namespace = f"bench-{number:03d}-{index:03d}"
        uids = await engines.copy(bare, model, namespace)
        made[index] = Group(namespace, [f"{letter}{item:05d}" for item in range(first, min(count, first + per_engine))], uids)

    await spread(range(0, count, per_engine), group, _TOGETHER)
    return Population([made[index] for index in sorted(made)])


def manifest(group: Group, name: str) -> dict[str, Any]:
    """What a user would apply: one replica, everything else left out."""
    return service(name, group.namespace, engine=ENGINE, replicas=1)


async def create(bare: Bare, population: Population) -> None:
    """The users' part: make all services, so many at the same time."""

    async def one(item: tuple[Group, str]) -> None:
        group, name = item
        made = await bare.json("POST", BY_KIND["LLMService"].path(group.namespace), manifest(group, name))
        population.uids[name] = made["metadata"]["uid"]

    await spread(population.names, one)


class UnsettledError(Exception):
    """Something is not as it must be in the end, so the time until it was says nothing."""


async def check(bare: Bare, population: Population, *, generation: bool = True) -> None:
    """Everything is there: children, owners of the builds, statuses of the newest generation. Raises UnsettledError."""
    for group in population.groups:
        made: defaultdict[str, set[str]] = defaultdict(set)
        for kind in MADE:
            for obj in (await bare.json("GET", BY_KIND[kind].path(group.namespace)))["items"]:
                for owner in obj["metadata"].get("ownerReferences", ()):
                    made[owner["name"]].add(kind)
        builds = (await bare.json("GET", BY_KIND["LLMEngineBuild"].path(group.namespace)))["items"]
        owners = {owner["name"] for build in builds for owner in build["metadata"]["ownerReferences"]}
        found = (await bare.json("GET", BY_KIND["LLMService"].path(group.namespace)))["items"]
        names = {obj["metadata"]["name"] for obj in found}
        late = {
            obj["metadata"]["name"] for obj in found if (obj.get("status") or {}).get("observedGeneration") != obj["metadata"]["generation"]
        }
        wrong = sorted(name for name in group.services if made[name] < CHILDREN or name not in owners & names)
        wrong += sorted(late) if generation else []
        if wrong:
            told = [
                condition
                for obj in found
                if obj["metadata"]["name"] == wrong[0]
                for condition in (obj.get("status") or {}).get("conditions", ())
            ]
            why = "; ".join(f"{condition['type']} {condition['status']}: {condition['message']}" for condition in told)
            raise UnsettledError(
                f"{len(wrong)} of {len(group.services)} services of {group.namespace} are not settled; {wrong[0]} has {sorted(made[wrong[0]])}: {why}"
            )


CHILDREN = set(MADE) - {"ConfigMap"}
"""Without options there is no ConfigMap."""


async def clear(bare: Bare, namespaces: list[str]) -> None:
    """Delete everything in these namespaces, and them as far as that goes without the controller that does it."""
    kinds = [*(resource for resource in BY_KIND.values() if resource.namespaced), EVENT]

    async def one(namespace: str) -> None:
        await engines.let_claims_go(bare, namespace)
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Background"}
        for resource in kinds:
            await bare.request("DELETE", resource.path(namespace), options)

    await spread(namespaces, one, _TOGETHER)


async def objects(bare: Bare) -> int:
    """List and parse everything that the operator keeps, with its selectors and page size; returns how many there are."""
    count = 0
    for resource in BY_KIND.values():
        query = "limit=500" + (f"&labelSelector={resource.selector}" if resource.selector else "")
        token = ""
        while True:
            page = json.loads(await bare.request("GET", f"{resource.path()}?{query}{token}"))
            count += len(page["items"])
            if not (more := page["metadata"].get("continue")):
                break
            token = f"&continue={more}"
    return count
