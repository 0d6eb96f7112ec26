"""Entries among the owners of a shared object: one write at a time, with all that came up meanwhile, and none lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from trtllm_operator.decide.decision import Entry
from trtllm_operator.kube.errors import ConflictError, ForbiddenError, TransientError, classify
from trtllm_operator.observe import index
from trtllm_operator.observe.refs import Ref, owners_of
from trtllm_operator.observe.store import Store
from trtllm_operator.runtime.confirm import OutdatedError
from trtllm_operator.runtime.freshness import Freshness
from trtllm_operator.runtime.intake import Intake
from trtllm_operator.runtime.owners import LeavingError, Owners
from trtllm_operator.runtime.queue import Queue


def owner(name: str) -> dict[str, Any]:
    return {"apiVersion": "trtllm.dev/v1alpha1", "kind": "LLMService", "name": name, "uid": f"uid-{name}", "controller": False}


def build(*owners: str, version: str = "1", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "trtllm.dev/v1alpha1",
        "kind": "LLMEngineBuild",
        "metadata": {
            "name": "b",
            "namespace": "ns",
            "uid": "uid-b",
            "resourceVersion": version,
            "ownerReferences": [owner(name) for name in owners],
            **metadata,
        },
    }


class Server:
    """Stands where the client does: one object, changed by merge patches with preconditions. Each waits until it is let through."""

    def __init__(self, there: dict[str, Any] | None) -> None:
        self.there = there
        self.open = asyncio.Event()
        self.open.set()
        self.writes = 0
        self.refuses = 0

    @property
    def names(self) -> list[str]:
        assert self.there is not None
        return [entry["name"] for entry in owners_of(self.there)]

    async def json(self, method: str, path: str, *, body: Any = None, **_: Any) -> Any:
        await self.open.wait()
        if self.there is None:
            raise classify(method, path, 404, {}, json.dumps({"message": "gone", "details": {"name": "b"}}))
        if method == "GET":
            return self.there
        self.writes += 1
        if self.refuses:
            raise classify(method, path, self.refuses, {}, "{}")
        metadata = self.there["metadata"]
        if any(body["metadata"][key] != metadata[key] for key in ("uid", "resourceVersion")):
            raise classify(method, path, 409, {}, "{}")
        version = str(int(metadata["resourceVersion"]) + 1)
        self.there = {**self.there, "metadata": {**metadata, **body["metadata"], "resourceVersion": version}}
        return self.there


class World:
    def __init__(self, there: dict[str, Any] | None, known: dict[str, Any] | None = None) -> None:
        self.server = Server(there)
        self.store = Store(index.terms)
        if (seen := known or there) is not None:
            self.store.put(seen)
        self.idle = 0
        self.queue = Queue()
        client: Any = self.server
        self.owners = Owners(client, Intake(self.store, self.queue, Freshness()), self._idle)

    def _idle(self) -> None:
        self.idle += 1

    def entry(self, name: str) -> Entry:
        return Entry(build(), owner(name))


async def test_what_comes_up_during_a_write_goes_with_the_next() -> None:
    world = World(build("e"))
    world.server.open.clear()
    joining = [asyncio.create_task(world.owners.join(world.entry(f"s{number}"))) for number in range(20)]
    await asyncio.sleep(0)
    late = [asyncio.create_task(world.owners.join(world.entry(f"t{number}"))) for number in range(20)]
    await asyncio.sleep(0)
    world.server.open.set()
    assert all(await asyncio.gather(*joining, *late))
    assert sorted(world.server.names) == sorted(["e", *(f"{letter}{number}" for letter in "st" for number in range(20))])
    assert world.server.writes <= 3, "and not forty"
    assert world.idle == 0


async def test_joins_and_leaves_go_together() -> None:
    world = World(build("e", "old"))
    world.server.open.clear()
    first = asyncio.create_task(world.owners.join(world.entry("a")))
    await asyncio.sleep(0)
    others = [asyncio.create_task(world.owners.leave(world.entry("old"))), asyncio.create_task(world.owners.join(world.entry("new")))]
    await asyncio.sleep(0)
    world.server.open.set()
    await asyncio.gather(first, *others)
    assert world.server.names == ["e", "a", "new"]
    assert world.server.writes == 2


async def test_nothing_is_written_where_it_is_so_already() -> None:
    world = World(build("e", "a"))
    assert not await world.owners.join(world.entry("a"))
    assert not await world.owners.leave(world.entry("b"))
    assert world.server.writes == 0


async def test_an_entry_that_was_not_seen_is_kept() -> None:
    """The watch is behind: the list that would be written is not the one that there is."""
    world = World(build("e", "unseen", version="7"), known=build("e", version="3"))
    assert await world.owners.join(world.entry("a"))
    assert world.server.names == ["e", "unseen", "a"]


async def test_others_that_change_it_all_the_time_end_the_try() -> None:
    world = World(build("e"))
    world.server.refuses = 409
    with pytest.raises(ConflictError):
        await world.owners.join(world.entry("a"))
    assert world.server.writes == 3


async def test_a_refusal_is_told_to_all_whom_it_concerns_and_the_next_write_goes_on() -> None:
    world = World(build("e"))
    world.server.open.clear()
    tasks = [asyncio.create_task(world.owners.join(world.entry(name))) for name in "abc"]
    await asyncio.sleep(0)
    world.server.refuses = 403
    world.server.open.set()
    assert {type(error) for error in await asyncio.gather(*tasks, return_exceptions=True)} == {ForbiddenError}
    world.server.refuses = 0
    assert await world.owners.join(world.entry("a"))
    assert world.server.names == ["e", "a"]


async def test_who_waits_for_a_pass_that_is_given_up_tries_again() -> None:
    world = World(build("e"))
    world.server.open.clear()
    first = asyncio.create_task(world.owners.join(world.entry("a")))
    await asyncio.sleep(0)
    leads, follows = (asyncio.create_task(world.owners.join(world.entry(name))) for name in "bc")
    await asyncio.sleep(0)
    leads.cancel()
    with pytest.raises(TransientError):
        await follows
    world.server.open.set()
    await first
    assert await world.owners.join(world.entry("c"))
    assert world.server.names == ["e", "a", "c"]


@pytest.mark.parametrize("there", [None, build(version="9", uid="another")])
async def test_only_that_very_object_is_joined(there: dict[str, Any] | None) -> None:
    world = World(there, known=build("e"))
    with pytest.raises(OutdatedError):
        await world.owners.join(world.entry("a"))
    assert world.server.there == there
    assert not await World(there, known=build("e", "a")).owners.leave(world.entry("a"))


async def test_what_is_being_deleted_is_waited_for() -> None:
    world = World(build("e", deletionTimestamp="2026-01-01T00:00:00Z"))
    with pytest.raises(LeavingError):
        await world.owners.join(world.entry("a"))


async def test_that_a_pass_has_joined_is_no_news_to_it_whoever_wrote() -> None:
    world = World(build("e"))
    world.server.open.clear()

    async def fail(name: str) -> None:
        """A pass that joins, and fails of something else."""
        key = await world.queue.get()
        await world.owners.join(world.entry(name))
        world.queue.failed(key, at_least=100)
        world.queue.done(key)

    names = ("a", "b", "c")
    for name in names:
        world.queue.add(Ref("LLMService", "ns", name))
    passes = [asyncio.create_task(fail(name)) for name in names]
    await asyncio.sleep(0)
    world.server.open.set()
    await asyncio.gather(*passes)
    assert sorted(world.server.names) == [*names, "e"]
    waiting = [await world.queue.get() for _ in range(len(world.queue))]
    assert [key.kind for key in waiting] == ["LLMEngineBuild"], "to the build it is news"
