"""The watch of one kind goes on whatever ends it: from where it was, or from a list where that can't be told any more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from trtllm_operator.kube.errors import ApiError, GoneError, ThrottledError, UnreachableError
from trtllm_operator.kube.resources import POD
from trtllm_operator.runtime import reflector as module
from trtllm_operator.runtime.reflector import Reflector

Script = list[Any]


def event(kind: str, version: int, name: str = "p") -> bytes:
    metadata = {"name": name, "namespace": "ns", "resourceVersion": str(version), "managedFields": [{"manager": "x"}]}
    return json.dumps({"type": kind, "object": {"kind": "Pod", "metadata": metadata}}).encode()


def error(code: int) -> bytes:
    return json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": code, "message": "no"}}).encode()


class Streams:
    """Stands where the client does: each watch gets the next script of lines; an exception in it is raised there. Then silence."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.versions: list[str] = []
        self.queries: list[Mapping[str, str]] = []

    async def lines(
        self, path: str, *, query: Mapping[str, str], silent_seconds: float, opened: Callable[[], None]
    ) -> AsyncIterator[bytes]:
        assert path == "/api/v1/pods"
        assert silent_seconds > 60
        self.versions.append(query["resourceVersion"])
        self.queries.append(query)
        if not self.scripts:
            opened()
            await asyncio.Event().wait()
        script = self.scripts.pop(0)
        for number, line in enumerate(script):
            if isinstance(line, ApiError):
                raise line
            if number == 0:
                opened()
            yield line


async def until(look: Callable[[], object]) -> None:
    """Let the others run until it is so."""
    async with asyncio.timeout(5):
        while not look():  # noqa: ASYNC110 - what is looked at sets no event
            await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(module, "_LONGEST_SECONDS", 0.002)


async def watched(streams: Streams, watches: int, lists: tuple[str, ...] = ()) -> list[tuple[str | None, str]]:
    """What is delivered until that many watches were opened."""
    told: list[tuple[str | None, str]] = []
    versions = list(lists)

    async def list_anew() -> str:
        told.append(("LISTED", versions[0]))
        return versions.pop(0)

    def deliver(kind: str | None, obj: dict[str, Any]) -> None:
        assert "managedFields" not in obj["metadata"]
        told.append((kind, obj["metadata"]["resourceVersion"]))

    reflector = Reflector(streams, POD, None, "10", list_anew, deliver)  # type: ignore[arg-type]
    running = asyncio.create_task(reflector.run())
    await until(lambda: len(streams.versions) >= watches and not reflector.silent_seconds())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return told


async def test_an_ended_watch_goes_on_after_the_last_version() -> None:
    streams = Streams([event("ADDED", 11), event("BOOKMARK", 20)], [event("MODIFIED", 21)])
    assert await watched(streams, 3) == [("ADDED", "11"), ("MODIFIED", "21")]
    assert streams.versions == ["10", "20", "21"]
    assert streams.queries[0]["labelSelector"] == "app.kubernetes.io/managed-by=trtllm-operator"
    assert streams.queries[0]["allowWatchBookmarks"] == "true"


@pytest.mark.parametrize("gone", [error(410), GoneError("410", status=410)])
async def test_after_a_gap_there_is_a_list(gone: Any) -> None:
    streams = Streams([event("ADDED", 11), gone])
    assert await watched(streams, 2, ("40",)) == [("ADDED", "11"), ("LISTED", "40")]
    assert streams.versions == ["10", "40"]


@pytest.mark.parametrize(
    "bad", [error(500), b"{", b'{"type": "ADDED"}', UnreachableError("reset"), ThrottledError("429", retry_after=0.001)]
)
async def test_an_error_is_told_once_and_loses_nothing(bad: Any, caplog: pytest.LogCaptureFixture) -> None:
    streams = Streams([event("ADDED", 11), bad], [bad], [bad])
    assert await watched(streams, 4) == [("ADDED", "11")]
    assert streams.versions == ["10", "11", "11", "11"]
    assert len(caplog.records) == 1


async def test_a_list_that_fails_is_tried_again() -> None:
    streams = Streams([error(410)])
    told = []
    fails = [UnreachableError("away")]

    async def list_anew() -> str:
        if fails:
            raise fails.pop()
        told.append("listed")
        return "50"

    reflector = Reflector(streams, POD, None, "10", list_anew, lambda *_: None)  # type: ignore[arg-type]
    running = asyncio.create_task(reflector.run())
    await until(lambda: len(streams.versions) == 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert told == ["listed"]
    assert streams.versions == ["10", "50"]


async def test_restarted_it_lists_first() -> None:
    streams = Streams()
    listed = asyncio.Event()

    async def list_anew() -> str:
        listed.set()
        return "60"

    reflector = Reflector(streams, POD, None, "10", list_anew, lambda *_: None)  # type: ignore[arg-type]
    running = asyncio.create_task(reflector.run())
    await until(lambda: streams.versions)
    assert reflector.silent_seconds() == 0
    reflector.restart()
    await listed.wait()
    await until(lambda: len(streams.versions) == 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert streams.versions == ["10", "60"]
