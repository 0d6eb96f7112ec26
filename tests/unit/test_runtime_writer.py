"""What the writer makes of the answers to deletions, and what a pass leaves alone while its kind is not served."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from trtllm_operator.decide.decision import Decision, Delete
from trtllm_operator.desired.config import Config
from trtllm_operator.kube.errors import NotFoundError, classify
from trtllm_operator.kube.events import EventPoster
from trtllm_operator.observe import index
from trtllm_operator.observe.gather import Gatherer
from trtllm_operator.observe.hints import HintBook
from trtllm_operator.observe.refs import ref_of
from trtllm_operator.observe.store import Store
from trtllm_operator.runtime.freshness import Freshness
from trtllm_operator.runtime.intake import Intake
from trtllm_operator.runtime.queue import Queue
from trtllm_operator.runtime.reconcile import Deciders, Reconciler
from trtllm_operator.runtime.writer import Writer

LABELS = {"app.kubernetes.io/managed-by": "trtllm-operator"}
CONFIG: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "c", "namespace": "ns", "uid": "u", "resourceVersion": "5", "labels": LABELS},
}
SERVICE: dict[str, Any] = {
    "apiVersion": "trtllm.dev/v1alpha1",
    "kind": "LLMService",
    "metadata": {"name": "s", "namespace": "ns", "uid": "s", "resourceVersion": "5", "generation": 1},
    "spec": {},
}
GONE = Delete("v1", "ConfigMap", "ns", "c", "u")


class NotThere:
    """Stands where the client does, and answers everything with a 404 of that body."""

    def __init__(self, body: str) -> None:
        self.body = body
        self.asked = 0

    async def json(self, method: str, path: str, **_: Any) -> Any:
        self.asked += 1
        raise classify(method, path, 404, {}, self.body)


def _store() -> Store:
    store = Store(index.terms)
    for obj in (CONFIG, SERVICE):
        store.put(obj)
    return store


def _writer(client: NotThere, store: Store) -> Writer:
    return Writer(client, Intake(store, Queue(), Freshness()))  # type: ignore[arg-type]


async def test_what_is_not_found_by_its_name_is_gone() -> None:
    store = _store()
    answer = {"reason": "NotFound", "message": 'configmaps "c" not found', "details": {"name": "c", "kind": "configmaps"}}
    await _writer(NotThere(json.dumps(answer)), store).delete(GONE)
    assert store.get(ref_of(CONFIG)) is None


@pytest.mark.parametrize("body", ["404 page not found\n", json.dumps({"reason": "NotFound", "message": "the server could not find it"})])
async def test_what_the_server_does_not_serve_is_not_gone(body: str) -> None:
    """Between the removal of a kind and its return the answer is 404, too."""
    store = _store()
    with pytest.raises(NotFoundError):
        await _writer(NotThere(body), store).delete(GONE)
    assert store.get(ref_of(CONFIG)) is not None


async def test_nothing_is_done_for_a_kind_that_is_not_served() -> None:
    """What is known of it may have been deleted with its CRD: children would be made for nobody."""
    store, client = _store(), NotThere("")
    freshness = Freshness()
    reconciler = Reconciler(
        store,
        Gatherer(store, HintBook(), Config(tools_image="example.test/tools:1"), reads_nodes=lambda: False),
        _writer(client, store),
        EventPoster(client, "pod"),  # type: ignore[arg-type]
        Deciders(*(lambda _: Decision(delete=(GONE,)),) * 3),
        serves=freshness.serves,
        now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
    )
    freshness.unserved("LLMService")
    assert (await reconciler.run(ref_of(SERVICE))).problem == "Unserved"
    assert client.asked == 0
    freshness.listed("LLMService")
    assert (await reconciler.run(ref_of(SERVICE))).problem == "NotFoundError"
    assert client.asked == 1
