"""Paths, classes of errors, events. What needs an API server is in tests/loop."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trtllm_operator.decide.decision import Event
from trtllm_operator.kube import errors
from trtllm_operator.kube.events import EventPoster
from trtllm_operator.kube.lists import strip
from trtllm_operator.kube.resources import BY_KIND, NODE, resource_of


def test_paths() -> None:
    assert BY_KIND["Pod"].path("ns", "p", "log") == "/api/v1/namespaces/ns/pods/p/log"
    assert BY_KIND["LLMEngine"].path() == "/apis/trtllm.dev/v1alpha1/llmengines"
    assert BY_KIND["LLMEngine"].path("ns", "e", "status") == "/apis/trtllm.dev/v1alpha1/namespaces/ns/llmengines/e/status"
    assert NODE.path("ignored", "n") == "/api/v1/nodes/n"
    assert BY_KIND["Job"].path("a/b", "c?d") == "/apis/batch/v1/namespaces/a%2Fb/jobs/c%3Fd"


def test_kinds_that_are_not_ours_to_touch_are_refused() -> None:
    with pytest.raises(ValueError, match="v1 Secret is not among the kinds"):
        resource_of("v1", "Secret")
    with pytest.raises(ValueError, match="extensions/v1beta1 Deployment"):
        resource_of("extensions/v1beta1", "Deployment")


def status(code: int, message: str = "m", reason: str = "", **details: Any) -> str:
    return json.dumps({"kind": "Status", "code": code, "message": message, "reason": reason, "details": details})


@pytest.mark.parametrize(
    ("code", "body", "expected"),
    [
        (404, status(404), errors.NotFoundError),
        (409, status(409), errors.ConflictError),
        (410, status(410), errors.GoneError),
        (403, status(403), errors.ForbiddenError),
        (403, status(403, causes=[{"reason": "NamespaceTerminating"}]), errors.TerminatingError),
        (422, status(422), errors.InvalidError),
        (400, status(400), errors.InvalidError),
        (
            500,
            status(500, "failed to create typed patch object (ns/x; v1, Kind=ConfigMap): .data.a: expected string"),
            errors.TypedPatchError,
        ),
        (500, status(500, 'Internal error occurred: failed calling webhook "w": failed to call webhook'), errors.WebhookDownError),
        (500, status(500, "etcdserver: request timed out"), errors.TransientError),
        (503, "upstream is away", errors.TransientError),
        (401, status(401), errors.TransientError),
        (502, "[1, 2]", errors.TransientError),
        (422, status(422, details="odd"), errors.InvalidError),
    ],
)
def test_refusals_have_classes(code: int, body: str, expected: type[errors.ApiError]) -> None:
    error = errors.classify("PATCH", "/path", code, {}, body)
    assert type(error) is expected
    assert str(error).startswith(f"PATCH /path: {code}")


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("0.5", 0.5), ("Wed, 21 Oct", None), (None, None), ("-3", 0.0)])
def test_throttling_says_how_long(header: str | None, seconds: float | None) -> None:
    error = errors.classify("GET", "/p", 429, {} if header is None else {"Retry-After": header}, "")
    assert isinstance(error, errors.ThrottledError)
    assert error.retry_after == seconds


def test_managed_fields_are_left_out_of_a_copy() -> None:
    given = {"kind": "Pod", "metadata": {"name": "p", "managedFields": [1]}}
    assert strip(given) == {"kind": "Pod", "metadata": {"name": "p"}}
    assert "managedFields" in given["metadata"]
    same = {"metadata": {"name": "p"}}
    assert strip(same) is same


class Recorder:
    """Stands where the client does; keeps what is posted."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []

    async def json(self, method: str, path: str, *, body: Any, **_: Any) -> Any:
        assert (method, path) == ("POST", "/apis/events.k8s.io/v1/namespaces/ns/events")
        self.posted.append(body)
        return body


ROOT = {
    "apiVersion": "trtllm.dev/v1alpha1",
    "kind": "LLMService",
    "metadata": {"name": "s", "namespace": "ns", "uid": "u", "resourceVersion": "5"},
}


async def test_equal_events_are_one_and_numbers_make_no_news() -> None:
    recorder, clock = Recorder(), [0.0]
    poster = EventPoster(recorder, "pod-1", clock=lambda: clock[0])  # type: ignore[arg-type]
    assert await poster.post(ROOT, Event("Warning", "Retrying", "attempt 1 failed"))
    assert not await poster.post(ROOT, Event("Warning", "Retrying", "attempt 2 failed"))
    assert await poster.post(ROOT, Event("Warning", "Retrying", "another cause"))
    assert await poster.post(ROOT, Event("Normal", "Retrying", "attempt 1 failed"))
    clock[0] = 601
    assert await poster.post(ROOT, Event("Warning", "Retrying", "attempt 3 failed"))
    assert len(recorder.posted) == 4
    first = recorder.posted[0]
    assert first["regarding"]["uid"] == "u"
    assert first["metadata"] == {"generateName": "s-", "namespace": "ns"}
    assert first["reportingInstance"] == "pod-1"


async def test_a_flood_about_one_object_is_cut_and_does_not_cut_others() -> None:
    recorder, clock = Recorder(), [0.0]
    poster = EventPoster(recorder, "pod-1", clock=lambda: clock[0])  # type: ignore[arg-type]
    sent = [await poster.post(ROOT, Event("Normal", f"R{chr(65 + n)}", "m")) for n in range(40)]
    assert sum(sent) == 25
    assert await poster.post(ROOT, Event("Warning", "Wrong", "what is wrong can still be told"))
    other = {**ROOT, "metadata": {**ROOT["metadata"], "uid": "v"}}  # type: ignore[dict-item]
    assert await poster.post(other, Event("Normal", "R", "m"))
    clock[0] = 300
    assert await poster.post(ROOT, Event("Normal", "Later", "m"))


async def test_a_long_message_is_cut_to_what_the_api_takes() -> None:
    recorder = Recorder()
    await EventPoster(recorder, "p").post(ROOT, Event("Normal", "R", "ü" * 2000))  # type: ignore[arg-type]
    assert len(recorder.posted[0]["note"].encode()) <= 1024
