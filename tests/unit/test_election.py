"""Leader election against a Lease in memory that behaves as the API server's: rules, clocks, races."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from trtllm_operator.kube.errors import ApiError, ConflictError, ForbiddenError, NotFoundError, UnreachableError
from trtllm_operator.runtime.election import Elector, LeadershipLostError, Terms

TERMS = Terms("system", lease_seconds=15, renew_seconds=10, retry_seconds=0.001)


class Server:
    """One Lease, with compare-and-swap."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.failure: ApiError | None = None
        self.writes = 0

    async def json(self, method: str, _path: str, *, body: Mapping[str, Any] | None = None, **_: Any) -> Any:
        if self.failure is not None:
            raise self.failure
        if method == "GET":
            if self.lease is None:
                raise NotFoundError("no Lease")
            return self.lease
        assert body is not None
        sent = body["metadata"].get("resourceVersion")
        if method == "POST" and self.lease is not None:
            raise ConflictError("exists")
        if method == "PUT":
            if self.lease is None:
                raise NotFoundError("no Lease")
            if sent != self.lease["metadata"]["resourceVersion"]:
                raise ConflictError("changed")
        self.version += 1
        self.writes += 1
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        return self.lease

    @property
    def holder(self) -> str:
        return str(self.lease["spec"]["holderIdentity"]) if self.lease else ""


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def elector(server: Server, name: str, clock: Clock, skew: float = 0.0) -> Elector:
    def now() -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=clock.seconds + skew)

    return Elector(server, TERMS, name, clock=clock, now=now)  # type: ignore[arg-type]


async def take(candidate: Elector) -> bool:
    return await candidate._attempt()


def test_the_first_takes_it_and_the_second_waits_the_whole_lease() -> None:
    server, clock = Server(), Clock()
    one, two = elector(server, "one", clock), elector(server, "two", clock, skew=-300)

    async def check() -> None:
        assert await take(one)
        assert one.holds()
        assert not await take(two)
        clock.seconds += 14.9
        assert not await take(two), "not yet: it saw the Lease 14.9 s ago"
        clock.seconds += 0.2
        assert not one.holds(), "the holder had given up before"
        assert await take(two)
        assert not await take(one)

    asyncio.run(check())
    assert server.holder == "two"
    assert server.lease is not None
    assert server.lease["spec"]["leaseTransitions"] == 1


@pytest.mark.parametrize("skew", [-300.0, 0.0, 300.0])
def test_clocks_of_different_machines_do_not_matter(skew: float) -> None:
    server, clock = Server(), Clock()
    one, two = elector(server, "one", clock), elector(server, "two", clock, skew)

    async def check() -> None:
        assert await take(one)
        for _ in range(20):
            clock.seconds += 4
            assert await take(one)
            assert not await take(two)
            assert one.holds()
            assert not two.holds()

    asyncio.run(check())


def test_at_no_moment_two_hold_it() -> None:
    server, clock = Server(), Clock()
    candidates = [elector(server, name, clock, skew) for name, skew in (("a", 0), ("b", 300), ("c", -300))]

    async def check() -> None:
        for step in range(400):
            clock.seconds += 1
            # One of them sleeps for twenty seconds now and then, as with SIGSTOP.
            for number, candidate in enumerate(candidates):
                if (step // 20) % 3 != number:
                    await take(candidate)
                assert sum(other.holds() for other in candidates) <= 1

    asyncio.run(check())
    assert server.writes > 100


def test_given_back_it_is_taken_at_once() -> None:
    server, clock = Server(), Clock()
    one, two = elector(server, "one", clock), elector(server, "two", clock)

    async def check() -> None:
        await one.acquire()
        assert not await take(two)
        await one.release()
        assert not one.holds()
        assert server.holder == ""
        assert await take(two)
        await one.release()

    asyncio.run(check())
    assert server.holder == "two", "who does not hold it gives nothing back"


def test_the_holder_ends_when_another_has_it() -> None:
    server, clock = Server(), Clock()
    one, two = elector(server, "one", clock), elector(server, "two", clock)

    async def check() -> None:
        await one.acquire()
        await take(two)
        clock.seconds += 16
        await two.acquire()
        with pytest.raises(LeadershipLostError, match="two has taken"):
            await one.hold()
        assert not one.holds()
        await one.release()

    asyncio.run(check())
    assert server.holder == "two"


def test_the_holder_ends_when_it_can_not_renew_in_time() -> None:
    server, clock = Server(), Clock()
    one = elector(server, "one", clock)

    async def check() -> None:
        await one.acquire()
        server.failure = UnreachableError("away")
        holding = asyncio.create_task(one.hold())
        await asyncio.sleep(0.02)
        assert not holding.done(), "a moment without an answer costs nothing"
        clock.seconds += 11
        with pytest.raises(LeadershipLostError, match="not be renewed for 10 s"):
            await holding

    asyncio.run(check())


def test_a_deleted_lease_is_made_again() -> None:
    server, clock = Server(), Clock()
    one = elector(server, "one", clock)

    async def check() -> None:
        await one.acquire()
        server.lease = None
        assert not await take(one)
        assert await take(one)

    asyncio.run(check())
    assert server.holder == "one"


def test_a_missing_right_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    server, clock = Server(), Clock()
    one = elector(server, "one", clock)
    server.failure = ForbiddenError("leases is forbidden")

    async def check() -> None:
        for _ in range(3):
            assert not await take(one)

    asyncio.run(check())
    assert [record.message for record in caplog.records if "apply the operator's RBAC" in record.message] != []
    assert len(caplog.records) == 1


def test_a_restart_of_the_same_pod_need_not_wait() -> None:
    server, clock = Server(), Clock()

    async def check() -> None:
        await elector(server, "pod-1", clock).acquire()
        assert await take(elector(server, "pod-1", clock))

    asyncio.run(check())
    assert server.lease is not None
    assert server.lease["spec"]["leaseTransitions"] == 0


def test_an_absurd_duration_is_not_believed() -> None:
    server, clock = Server(), Clock()
    one, two = elector(server, "one", clock), elector(server, "two", clock)

    async def check() -> None:
        await one.acquire()
        assert server.lease is not None
        server.lease["spec"]["leaseDurationSeconds"] = 10**9
        assert not await take(two)
        clock.seconds += 301
        assert await take(two)

    asyncio.run(check())
