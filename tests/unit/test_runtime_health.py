"""Freshness, probes, intake and hints, each with a clock of the test's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from trtllm_operator.kube.errors import InvalidError
from trtllm_operator.kube.lists import Listing
from trtllm_operator.observe import index
from trtllm_operator.observe.hints import HintBook
from trtllm_operator.observe.refs import Ref
from trtllm_operator.observe.store import Store
from trtllm_operator.runtime.freshness import Freshness
from trtllm_operator.runtime.hints import HintPoller
from trtllm_operator.runtime.intake import Intake
from trtllm_operator.runtime.probes import Health
from trtllm_operator.runtime.queue import Queue

SERVICE = Ref("LLMService", "ns", "s")


class World:
    def __init__(self) -> None:
        self.time = 0.0
        self.store = Store(index.terms)
        self.queue = Queue()
        self.freshness = Freshness(lambda: self.time)
        self.intake = Intake(self.store, self.queue, self.freshness)
        self.health = Health(self.freshness, lambda: 0.0, 600)

    async def keys(self) -> set[Ref]:
        found = set()
        while len(self.queue):
            key = await self.queue.get()
            self.queue.done(key)
            found.add(key)
        return found


def service(version: int = 1, **more: Any) -> dict[str, Any]:
    return {"kind": "LLMService", "metadata": {"name": "s", "namespace": "ns", "uid": "u", "resourceVersion": str(version)}, **more}


async def test_the_echo_of_our_own_write_is_no_news_but_a_sign_of_life() -> None:
    world = World()
    world.intake.wrote(service(2))
    assert await world.keys() == {SERVICE}
    world.time = 50
    assert world.freshness.deaf_seconds() == 50
    world.intake.heard("MODIFIED", service(2))
    assert await world.keys() == set()
    assert world.freshness.deaf_seconds() == 0


async def test_a_later_event_answers_for_an_earlier_one() -> None:
    world = World()
    world.intake.wrote(service(2))
    world.intake.heard("MODIFIED", service(9))
    assert world.freshness.deaf_seconds() == 0
    world.intake.heard("MODIFIED", service(3))
    assert world.store.get(SERVICE) == service(9)


async def test_a_deletion_tells_the_root_and_ends_the_wait() -> None:
    world = World()
    world.intake.wrote(service(2))
    await world.keys()
    world.intake.heard("DELETED", service(3))
    assert await world.keys() == {SERVICE}
    assert world.freshness.deaf_seconds() == 0
    assert len(world.store) == 0


async def test_a_list_tells_only_differences() -> None:
    world = World()
    assert world.intake.listed("LLMService", Listing("5", [service(2)])) == 1
    assert await world.keys() == {SERVICE}
    assert world.intake.listed("LLMService", Listing("6", [service(2)])) == 0
    assert await world.keys() == set()
    assert world.intake.listed("LLMService", Listing("7", [])) == 1
    assert await world.keys() == {SERVICE}


async def test_an_event_that_is_not_understood_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.intake.heard("ADDED", {"kind": "LLMService"})
    assert "not understood" in caplog.text


def test_alive_without_the_api_server_dead_with_deaf_watches() -> None:
    world = World()
    assert world.health.unready() == "not everything has been listed yet"
    world.health.seeded = True
    world.freshness.listed("Pod")
    assert world.health.unready() is None
    world.time = 5000
    assert world.health.dead() is None, "nothing is known to have been missed"
    assert "not been listed for 5000 s" in (world.health.unready() or "")
    world.freshness.await_watch(service(2))
    world.time += 241
    assert "watches have not told" in (world.health.dead() or "")


def test_a_pass_that_does_not_end_is_death() -> None:
    assert "a pass has not ended" in (Health(Freshness(), lambda: 301.0, 600).dead() or "")


NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


class Reads:
    """What an API server would tell; counts how often it is asked."""

    def __init__(self) -> None:
        self.logs: dict[str, str] = {}
        self.warnings: dict[str, str] = {}
        self.asked: list[str] = []

    async def log_tail(self, namespace: str, pod: str) -> str:
        self.asked.append(f"log {namespace}/{pod}")
        if pod not in self.logs:
            raise InvalidError("container is waiting to start")
        return self.logs[pod]

    async def newest_warning(self, namespace: str, uid: str) -> str | None:
        self.asked.append(f"warning {namespace}/{uid}")
        return self.warnings.get(uid)


def child(kind: str, name: str, owner: dict[str, Any], age: float = 60, **more: Any) -> dict[str, Any]:
    reference = {"kind": owner["kind"], "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "controller": True}
    created = (NOW - timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = {
        "name": name,
        "namespace": "ns",
        "uid": name,
        "resourceVersion": "1",
        "creationTimestamp": created,
        "ownerReferences": [reference],
    }
    return {"kind": kind, "metadata": metadata, **more}


RUNNING = {"phase": "Running", "containerStatuses": [{"name": "stage", "state": {"running": {}}}]}
COMPLETE = {"conditions": [{"type": "Complete", "status": "True"}]}


class Polling(World):
    def __init__(self) -> None:
        super().__init__()
        self.reads = Reads()
        self.book = HintBook()
        self.poller = HintPoller(self.reads, self.store, self.book, self.queue.add, clock=lambda: self.time, now=lambda: NOW)
        self.root = service()
        self.store.put(self.root)


async def test_progress_is_read_while_a_stage_runs_and_told_when_it_changes() -> None:
    world = Polling()
    job = child("Job", "j", world.root)
    world.store.put(job)
    world.store.put(child("Pod", "p", job, status=RUNNING))
    world.reads.logs["p"] = 'trtllm-progress {"stage": "build", "percent": 10}'
    assert await world.poller.look() == 1
    assert await world.keys() == {SERVICE}
    assert world.book.about(["p"]).progress == {"p": {"stage": "build", "percent": 10}}
    world.time += 3
    assert await world.poller.look() == 1
    assert await world.keys() == set(), "no news, no pass"


async def test_nothing_is_read_when_nothing_runs() -> None:
    world = Polling()
    done = child("Job", "done", world.root, status=COMPLETE)
    suspended = child("Job", "suspended", world.root, spec={"suspend": True})
    fresh = child("Job", "fresh", world.root, age=1)
    for obj in (
        done,
        suspended,
        fresh,
        child("Pod", "p", done, status={"phase": "Succeeded"}),
        child("Pod", "q", world.root, status=RUNNING),
    ):
        world.store.put(obj)
    assert await world.poller.look() == 0
    assert world.reads.asked == []


async def test_warnings_are_read_about_what_hangs_ever_more_seldom() -> None:
    world = Polling()
    job = child("Job", "j", world.root)
    waiting = child("Job", "w", world.root)
    for obj in (job, waiting, child("Pod", "p", waiting, status={"phase": "Pending"})):
        world.store.put(obj)
    world.reads.warnings = {"j": "exceeded quota"}
    assert await world.poller.look() == 2
    assert sorted(world.reads.asked) == ["warning ns/j", "warning ns/p"]
    assert world.book.about(["j"]).warnings == {"j": "exceeded quota"}
    assert await world.keys() == {SERVICE}
    reads = 0
    for _ in range(200):
        world.time += 3
        reads += await world.poller.look()
    assert 8 <= reads <= 20, "ten minutes of hanging"
    world.store.put({**child("Job", "j", world.root, status=COMPLETE), "metadata": {**job["metadata"], "resourceVersion": "2"}})
    await world.poller.look()
    assert world.book.about(["j"]).warnings == {}


async def test_a_refused_read_is_no_hint_and_no_error() -> None:
    world = Polling()
    job = child("Job", "j", world.root)
    world.store.put(job)
    world.store.put(child("Pod", "p", job, status=RUNNING))
    assert await world.poller.look() == 1
    assert world.book.about(["p"]).progress == {}
    assert await world.keys() == set()
