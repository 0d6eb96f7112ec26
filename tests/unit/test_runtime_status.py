"""A status that could not be written is not forgotten: the pass counts as failed, so that there is another."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from trtllm_operator.decide import conditions
from trtllm_operator.decide.decision import Decision
from trtllm_operator.decide.input import BuildInput, EngineInput, ServiceInput
from trtllm_operator.desired.config import Config
from trtllm_operator.kube.errors import classify
from trtllm_operator.kube.events import EventPoster
from trtllm_operator.observe import index
from trtllm_operator.observe.gather import Gatherer
from trtllm_operator.observe.hints import HintBook
from trtllm_operator.observe.refs import ref_of
from trtllm_operator.observe.store import Store
from trtllm_operator.runtime.freshness import Freshness
from trtllm_operator.runtime.intake import Intake
from trtllm_operator.runtime.queue import Queue
from trtllm_operator.runtime.reconcile import Deciders, Outcome, Reconciler
from trtllm_operator.runtime.writer import Writer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVICE: dict[str, Any] = {
    "apiVersion": "trtllm.dev/v1alpha1",
    "kind": "LLMService",
    "metadata": {"name": "s", "namespace": "ns", "uid": "u", "resourceVersion": "5", "generation": 1},
    "spec": {},
}


class Refusing:
    """Stands where the client does: answers the first writes of the status badly, the others as the API server would."""

    def __init__(self, code: int, message: str = "no", times: int = 1, names: str = "") -> None:
        self.code, self.left = code, times
        self.answer = json.dumps({"message": message, "details": {"name": names}})
        self.statuses: list[Any] = []
        self.live = SERVICE
        self.versions: list[str] = []
        self.events: list[str] = []

    async def json(self, method: str, path: str, *, body: Any = None, **_: Any) -> Any:
        if path.endswith("/events"):
            self.events.append(body["reason"])
            return body
        if method == "GET":
            return self.live
        assert (method, path) == ("PATCH", "/apis/trtllm.dev/v1alpha1/namespaces/ns/llmservices/s/status")
        self.versions.append(body["metadata"]["resourceVersion"])
        if self.left:
            self.left -= 1
            raise classify(method, path, self.code, {}, self.answer)
        self.statuses.append(body["status"])
        return {**SERVICE, "status": body["status"], "metadata": {**SERVICE["metadata"], "resourceVersion": "6"}}


def _decide(given: ServiceInput) -> Decision:
    shown = conditions.ready("served")
    seen = (given.service.get("status") or {}).get("conditions", ())
    return Decision(
        status={"observedGeneration": 1, "conditions": conditions.finish(shown, seen, 1, given.now)},
        events=conditions.transitions(shown, seen),
    )


def _nothing(_: EngineInput | BuildInput) -> Decision:
    return Decision()


async def _pass(client: Refusing, passes: int = 1) -> list[Outcome]:
    store = Store(index.terms)
    store.put(SERVICE)
    intake = Intake(store, Queue(), Freshness())
    gatherer = Gatherer(store, HintBook(), Config(tools_image="example.test/tools:1"), reads_nodes=lambda: False)
    events = EventPoster(client, "pod")  # type: ignore[arg-type]
    writer = Writer(client, intake)  # type: ignore[arg-type]
    reconciler = Reconciler(store, gatherer, writer, events, Deciders(_nothing, _nothing, _decide), now=lambda: NOW)
    return [await reconciler.run(ref_of(SERVICE)) for _ in range(passes)]


@pytest.mark.parametrize(
    ("code", "message"),
    [(404, "not found"), (409, "has been modified"), (422, "metadata.uid: Invalid value"), (403, "no right"), (500, "x")],
)
async def test_a_status_that_is_not_written_makes_another_pass(code: int, message: str) -> None:
    client = Refusing(code, message)
    first, second = await _pass(client, 2)
    assert first.failed
    assert not second.failed
    assert [status["conditions"][0]["reason"] for status in client.statuses] == ["Ready"]
    assert "Ready" in client.events


async def test_an_answer_that_names_the_resource_as_not_there_tells_that_it_is_gone() -> None:
    """Its deletion may be told late, and until then each pass would write about it."""
    client = Refusing(404, names="s")
    assert await _pass(client, 2) == [Outcome(), Outcome()]
    assert len(client.versions) == 1
    assert client.events == []


async def test_what_belongs_to_a_successor_is_not_told_as_a_refusal() -> None:
    client = Refusing(409)
    await _pass(client)
    assert client.events == []


async def test_a_refused_status_is_told_once() -> None:
    client = Refusing(403, "no right", times=3)
    outcomes = await _pass(client, 3)
    assert all(outcome.failed for outcome in outcomes)
    assert client.events.count("ApplyRefused") == 1


def _live(version: str, generation: int = 1, uid: str = "u") -> dict[str, Any]:
    metadata = {**SERVICE["metadata"], "resourceVersion": version, "generation": generation, "uid": uid}
    return {**SERVICE, "metadata": metadata}


async def test_a_status_that_was_overtaken_by_a_label_is_written_in_the_same_pass() -> None:
    client = Refusing(409)
    client.live = _live("6")
    (outcome,) = await _pass(client)
    assert (outcome.failed, outcome.again_after) == (False, None)
    assert client.versions == ["5", "6"], "each write names the version that it was decided from"


async def test_a_status_that_was_overtaken_by_another_spec_is_left_to_the_next_pass() -> None:
    """Under a storm of changes each pass must have a bounded number of writes."""
    client = Refusing(409)
    client.live = _live("6", generation=2)
    (outcome,) = await _pass(client)
    assert not outcome.failed
    assert outcome.again_after is not None
    assert client.statuses == []


async def test_a_status_never_reaches_a_successor_of_the_same_name() -> None:
    """The API server does not look at the uid in a status write of a custom resource."""
    client = Refusing(409)
    client.live = _live("9", uid="another")
    await _pass(client)
    assert client.versions == ["5", "9"]
    assert client.events == ["Ready"], "told once, of the one that is there"


class EditedByHand(Refusing):
    """Stands where the client does: somebody else owns `Stalled` and a condition of another type, which an apply leaves alone."""

    def __init__(self) -> None:
        super().__init__(500, times=0)
        self.replaced: list[Any] = []

    async def json(self, method: str, path: str, *, body: Any = None, content_type: str = "", **more: Any) -> Any:
        if "merge-patch" in content_type:
            assert body["metadata"] == {"resourceVersion": "6"}, "of the version that was seen"
            self.replaced.append([item["type"] for item in body["status"]["conditions"]])
            return {**SERVICE, "status": body["status"], "metadata": {**SERVICE["metadata"], "resourceVersion": "7"}}
        answer = await super().json(method, path, body=body, **more)
        if "status" in answer:
            lies = [{"type": kind, "status": "True", "reason": "ByHand", "message": ""} for kind in ("Stalled", "example.com/Checked")]
            answer["status"] = {**answer["status"], "conditions": [*answer["status"]["conditions"], *lies]}
        return answer


async def test_a_summary_that_somebody_wrote_by_hand_is_taken_away_and_other_conditions_stay() -> None:
    client = EditedByHand()
    outcomes = await _pass(client, 2)
    assert not any(outcome.failed for outcome in outcomes)
    assert client.replaced == [["Ready", "example.com/Checked"]]
