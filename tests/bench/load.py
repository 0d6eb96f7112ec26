"""Open-loop load: requests begin when they are meant to, whether or not the ones before have ended. Times count from the intended start."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.bare import Bare
from tests.bench.goals import percentile
from tests.bench.population import Group, Population, manifest
from tests.bench.rig import Rig
from tests.bench.witness import MADE
from tests.support.waiting import eventually
from trtllm_operator.kube.resources import BY_KIND

_LEAD_SECONDS = 0.2


@dataclass(frozen=True)
class Reaction:
    """Seconds from the intended start, by service in the same order."""

    began: float
    """The first intended start, on the monotonic clock."""
    created: list[float]
    """Until the create was answered."""
    reacted: list[float]
    """Until an independent watch saw the first child."""

    @property
    def ratio(self) -> float:
        """p99 of the reactions by p99 of the creates themselves."""
        return percentile(self.reacted, 99) / percentile(self.created, 99)


async def _send(bare: Bare, items: Sequence[tuple[Group, str]], per_second: float | None) -> tuple[list[float], list[float]]:
    """Intended starts and ends of creates; without a rate all are meant to begin at once."""
    start = time.monotonic() + _LEAD_SECONDS
    intended = [start + (number / per_second if per_second else 0.0) for number in range(len(items))]
    ended = [0.0] * len(items)

    async def one(number: int) -> None:
        group, name = items[number]
        await asyncio.sleep(max(0.0, intended[number] - time.monotonic()))
        await bare.request("POST", BY_KIND["LLMService"].path(group.namespace), manifest(group, name))
        ended[number] = time.monotonic()

    await asyncio.gather(*(one(number) for number in range(len(items))))
    return intended, ended


def reaction(rig: Rig, population: Population, per_second: float | None, items: Sequence[tuple[Group, str]] | None = None) -> Reaction:
    """Create services (all of the population, or some) and wait for the first child of each. An operator must be running."""
    chosen = population.names if items is None else items
    rig.witness.begin("LLMService", *MADE, owners=True)
    intended, ended = rig.run(lambda bare: _send(bare, chosen, per_second))
    names = [name for _, name in chosen]
    eventually(lambda: rig.witness.has_children(names), what="each service has a child", seconds=600, every=0.5)
    first = rig.witness.seen().first
    return Reaction(
        intended[0],
        [end - start for start, end in zip(intended, ended, strict=True)],
        [first[name] - start for start, (_, name) in zip(intended, chosen, strict=True)],
    )
