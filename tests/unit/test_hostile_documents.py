"""Documents that are made to break their reader: what one user puts into one resource must not take the operator from all others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from kopf._cogs.clients.api import iter_jsonlines

from tests.unit.test_kstatus_states import at
from tests.unit.test_service_world import World, service_object
from trtllm_operator.desired.options import DEEPEST, MOST_BYTES, excess
from trtllm_operator.kube import documents, errors
from trtllm_operator.observe.hints import PROGRESS, parse_progress
from trtllm_operator.runtime.answers import Answer

LEVELS = (documents.DEEPEST, 1500, 9000)


def nested(levels: int, inner: str = "1") -> str:
    """Text of objects and lists in each other."""
    pairs = ['{"a":', "["]
    opened = [pairs[number % 2] for number in range(levels)]
    return "".join(opened) + inner + "".join("}" if one.startswith("{") else "]" for one in reversed(opened))


def depth(value: Any) -> int:
    """Levels, without recursion."""
    found, level = 0, [value]
    while level := [item for one in level for item in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())]:
        found += 1
    return found


@pytest.mark.parametrize("levels", LEVELS)
def test_only_what_is_too_deep_is_lost(levels: int) -> None:
    text = f'{{"items":[{{"metadata":{{"name":"good"}}}},{{"metadata":{{"name":"bad ]}}[{{ \\" \\\\"}},"x":{nested(levels)},"y":[1]}},2]}}'
    found = documents.loads(text.encode())
    assert [item["metadata"]["name"] for item in found["items"][:2]] == ["good", 'bad ]}[{ " \\']
    assert found["items"][1]["y"] == [1]
    assert found["items"][2] == 2
    assert depth(found) <= max(documents.DEEPEST, levels + 4 if levels < 900 else 0)


@pytest.mark.parametrize("levels", LEVELS)
def test_a_cut_document_is_cut_at_its_place(levels: int) -> None:
    assert depth(json.loads(documents.cut(nested(levels).encode()))) == documents.DEEPEST


@given(st.recursive(st.none() | st.integers() | st.text('[]{}"\\a\u00e9'), lambda v: st.lists(v) | st.dictionaries(st.text('[]{}"\\b'), v)))
def test_what_is_not_too_deep_is_left_as_it_is(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False).encode()
    assert documents.cut(text) == text
    assert documents.parsable(text) is text


@pytest.mark.parametrize("text", [b"[" * 20000, b'{"a":' * 20000, b"]" * 20000, b'"', b"\xff", b""])
def test_what_is_no_json_is_said_to_be_none(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        documents.loads(text)


@pytest.mark.parametrize("body", ["[" * 20000, nested(9000), "\x00", "x" * 10**6])
def test_an_error_of_any_form_is_classified(body: str) -> None:
    found = errors.classify("GET", "/x", 500, {}, body)
    assert isinstance(found, errors.TransientError)
    assert len(str(found)) < 4096


@pytest.mark.parametrize("text", [nested(20000), "[" * 200000, '{"stage":' + nested(5000) + "}"])
def test_a_log_of_any_form_is_read(text: str) -> None:
    good = PROGRESS + json.dumps({"stage": "build", "percent": 7})
    assert parse_progress(f"{good}\n{PROGRESS}{text}\n") == {"stage": "build", "percent": 7}


def test_a_termination_message_that_is_too_deep_is_no_report() -> None:
    world = at("build")
    job = world.job("build")
    ended = {"exitCode": 1, "message": '{"a":' + "[" * 4000, "startedAt": "2026-01-01T12:30:00Z", "finishedAt": "2026-01-01T12:30:00Z"}
    world.pod(job, phase="Failed", containerStatuses=[{"name": "stage", "state": {"terminated": ended}}])
    job["status"] = {"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": "2026-01-01T12:30:00Z"}]}
    world.settle()
    assert world.ready()[0] != "True"


@pytest.fixture
async def stream() -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers a list, and a watch in pieces that end anywhere."""
    pieces: list[bytes] = []

    async def watch(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.Response(body=b"".join(pieces), content_type="application/json")
        answer = web.StreamResponse()
        await answer.prepare(request)
        for piece in pieces:
            await answer.write(piece)
        return answer

    app = web.Application()
    app.router.add_get("/", watch)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/", pieces
    await runner.cleanup()


async def test_a_watch_tells_all_that_can_be_told(stream: tuple[str, list[bytes]]) -> None:
    """Read as kopf reads it."""
    url, pieces = stream
    lines = [{"n": 1}, {"n": 2, "deep": None}, {"n": 3, "long": "x" * 300000}, {"n": 4}]
    data = b"\n".join(json.dumps(line).replace("null", nested(9000)).encode() for line in lines)
    pieces += [data[i : i + 7001] for i in range(0, len(data), 7001)]
    async with aiohttp.ClientSession(response_class=Answer) as session, session.get(url, params={"watch": "true"}) as answer:
        found = [json.loads(line) async for line in iter_jsonlines(answer.content)]
    assert [line["n"] for line in found] == [1, 2, 3, 4]
    assert found[2] == lines[2]


async def test_a_list_tells_all_that_can_be_told(stream: tuple[str, list[bytes]]) -> None:
    url, pieces = stream
    pieces.append(f'{{"items": [{{"n": 1}}, {{"n": 2, "deep": {nested(9000)}}}]}}'.encode())
    async with aiohttp.ClientSession(response_class=Answer) as session, session.get(url) as answer:
        assert [item["n"] for item in (await answer.json())["items"]] == [1, 2]


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"x": _deep(DEEPEST)}, "levels"),
        ({"x": _deep(150)}, "levels"),
        ({"x": [[]] * 3, "y": "a" * MOST_BYTES}, "bytes"),
        ({str(number): list(range(300)) for number in range(64)}, "bytes"),
    ],
)
def test_options_beyond_use_are_refused_and_nothing_is_touched(options: dict[str, Any], word: str) -> None:
    world = World(service_object())
    world.roll_out()
    before = {key: dict(obj["spec"]) for key, obj in world.objects.items() if "spec" in obj}
    world.change(serve={"options": options})
    world.settle()
    status, reason, message = world.condition("Ready")
    assert (status, reason) == ("False", "InvalidSpec")
    assert word in message
    assert "serve.options" in message
    assert {key: dict(obj["spec"]) for key, obj in world.objects.items() if "spec" in obj} == before


@pytest.mark.parametrize("options", [{}, {"x": _deep(DEEPEST - 2)}, {"x": "a" * (MOST_BYTES - 100)}, {"x": [1, [2, {"y": None}]]}])
def test_options_within_bounds_are_taken(options: dict[str, Any]) -> None:
    assert excess(options) is None
