"""Faults in objects: a storm of updates, and poison of every kind. What is wrong with one stays with that one."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.api import Api, ApiRefusedError, Document
from tests.support.audit import Audit
from tests.support.kubelet_standin import KubeletStandIn
from tests.support.looking import observed, ready
from tests.support.operator_process import OperatorProcess
from tests.support.samples import condition, engine, is_ready, service, with_condition
from tests.support.waiting import eventually, nothing_for
from trtllm_operator.desired import names

Start = Callable[..., OperatorProcess]
_LARGE = 1_400_000
_FOREIGN = "example.com/Checked"
_PER_SECOND = 100
_STORM_SECONDS = 12.0


class _Storm:
    """Changes one object over and over, 100 times a second."""

    def __init__(self, api: Api, kind: str, name: str, namespace: str, change: Callable[[int], Document]) -> None:
        self._where, self._change = (kind, name, namespace), change
        self._api = api
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(16)]
        self.sent: Counter[int] = Counter()
        self.errors: list[BaseException] = []

    def _run(self, first: int) -> None:
        number, began = first, time.monotonic()
        try:
            while not self._stop.wait(max(0.0, began + number / _PER_SECOND - time.monotonic())):
                kind, name, namespace = self._where
                self._api.patch(kind, name, self._change(number), namespace)
                self.sent[first] += 1
                number += len(self._threads)
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            self.errors.append(error)
        finally:
            self._api.close()

    @contextmanager
    def blowing(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(10)
            assert not self.errors, self.errors


def test_a_storm_of_updates_is_coalesced_and_starves_nobody(api: Api, namespace: str, start_operator: Start, audit: Audit) -> None:
    """Fault 21. 100 updates a second of one service, each with another spec: two writes a second at most in the long run; others are served."""
    with KubeletStandIn(api, namespace):
        operator = start_operator()
        api.create(engine("tiny", namespace))
        api.create(service("hot", namespace))
        ready(api, namespace, "LLMService", "hot")
        storm = _Storm(api, "LLMService", "hot", namespace, lambda number: {"spec": {"replicas": number % 3 + 1}})
        mark, began = audit.mark(), time.monotonic()
        with storm.blowing():
            others = [f"calm{number}" for number in range(5)]
            for name in others:
                api.create(service(name, namespace))
            for name in others:
                ready(api, namespace, "LLMService", name, seconds=30)
            nothing_for(max(1.0, began + _STORM_SECONDS - time.monotonic()), lambda: storm.errors, what="the storm goes on")
        lasted = time.monotonic() - began
        writes = [write for write in audit.by_operator(mark) if write.name == "hot"]
        print(f"\n{sum(storm.sent.values())} updates; {len(writes)} writes about the service in {lasted:.0f} s")
        assert sum(storm.sent.values()) > 100, "as many as the machine takes"
        # Two for each pass: 50 passes at once, then one a second.
        assert len(writes) <= 2 * (50 + lasted) + 5
        api.patch("LLMService", "hot", {"spec": {"replicas": 2}}, namespace)
        eventually(lambda: observed(api.get("LLMService", "hot", namespace)), what="the last word is heard")
        assert api.get("Deployment", "hot", namespace)["spec"]["replicas"] == 2
        assert operator.probe("healthz") == 200


def _noise(namespace: str) -> list[Document]:
    """Objects with our label that nothing of ours has made: as large as the API server takes them, and with nonsense in our annotations."""
    labels = {names.MANAGED_BY: names.MANAGER, names.SERVICE: "nobody", names.STAGE: "no-such-stage", names.BUILD: "x"}
    annotations = {names.ATTEMPT: "not a number", names.INPUT: "{", names.DESIRED_HASH: "\u2603", names.REPLICAS: "-1"}
    metadata = {"namespace": namespace, "labels": labels, "annotations": annotations}
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i", "args": ["x" * (_LARGE // 20)] * 20}]}
    owner = {"apiVersion": "trtllm.dev/v1alpha1", "kind": "LLMService", "name": "nobody", "uid": "00000000-0000-0000-0000-000000000000"}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**metadata, "name": "large"}, "data": {"x": "y" * 1_000_000}},
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {**metadata, "name": "large"},
            "spec": {"suspend": True, "template": {"spec": pod}},
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**metadata, "name": "stray", "ownerReferences": [owner]}, "data": {}},
    ]


def _statuses(generation: int) -> list[dict[str, Any]]:
    """What a user may write into a status by hand, as far as the schema lets it through."""

    def claim(kind: str, status: str) -> dict[str, Any]:
        told = {"reason": "ByHand", "message": "trust me", "observedGeneration": generation, "lastTransitionTime": "2020-01-01T00:00:00Z"}
        return {"type": kind, "status": status, **told}

    return [
        {"conditions": [claim("Ready", "False"), claim("Stalled", "True"), claim(_FOREIGN, "True")]},
        {"conditions": [claim("Ready", "Unknown"), claim("Reconciling", "True")], "observedGeneration": generation},
        {"conditions": [], "observedGeneration": 0},
        {"conditions": None},
    ]


def test_poisoned_objects_stop_no_others(api: Api, namespace: str, start_operator: Start, audit: Audit) -> None:
    """Fault 22. Malformed annotations, names at their limits, a status that somebody edits, objects of 1.4 MB with our label: isolated."""
    with KubeletStandIn(api, namespace) as kubelet:
        for obj in _noise(namespace):
            api.create(obj)
        api.create(engine("tiny", namespace))
        nonsense = {"kopf.zalando.org/last-handled-configuration": "{{{", "x" * 63: "\U0001f4a3" * 1000, names.DESIRED_HASH: "{"}
        api.create(service("annotated", namespace, annotations={**nonsense, "large": "z" * 200_000}))
        longest, dotted = "x" * 63, "dots.in.its.name"
        api.create(service("y" * 52, namespace))
        for number, name in enumerate((longest, dotted)):
            api.create(engine(name, namespace, build={"maxBatchSize": number + 2}))
        api.create(service("huge", namespace, serve={"options": {"x": "y" * _LARGE}}))
        good = [f"good{number}" for number in range(5)]
        for name in good:
            api.create(service(name, namespace))
        operator = start_operator()
        for name in (*good, "annotated", "y" * 52):
            ready(api, namespace, "LLMService", name)
        for name in (longest, dotted):
            ready(api, namespace, "LLMEngine", name)

        shown = eventually(lambda: with_condition(api.find("LLMService", "huge", namespace), "Stalled"), what="the huge one is shown")
        assert condition(shown, "Ready")["reason"] in ("InvalidSpec", "ApplyRefused")
        assert len(condition(shown, "Ready")["message"]) < 4096

        # A status that somebody edits is made again, and costs nothing else.
        eventually(operator.idle, what="idle")
        built = kubelet.ended["build"]
        mark = audit.mark()
        edited = (
            ("LLMService", "good0"),
            ("LLMEngine", "tiny"),
            ("LLMEngineBuild", api.get("LLMEngine", "tiny", namespace)["status"]["build"]),
        )
        for kind, name in edited:
            before = api.get(kind, name, namespace)
            for status in _statuses(before["metadata"]["generation"]):
                _edited_and_made_again(api, before, kind, status)
        eventually(operator.idle, what="idle")
        assert kubelet.ended["build"] == built
        assert not [write for write in audit.by_operator(mark) if write.subresource != "status" and write.resource != "events"]
        mark = audit.mark()
        nothing_for(2, lambda: audit.by_operator(mark), what="quiet")
        assert is_ready(api.get("LLMService", "good1", namespace))
    assert "Traceback" not in operator.log()


def _edited_and_made_again(api: Api, before: Document, kind: str, status: Document) -> None:
    namespace, name = before["metadata"]["namespace"], before["metadata"]["name"]
    api.patch(kind, name, {"status": status}, namespace, "status")
    eventually(
        lambda: _told(api.get(kind, name, namespace)) == _told(before),
        what=f"status of {kind} {name} made again after {status}",
    )


def _told(obj: Document) -> dict[str, Any]:
    """The status, but for when conditions came about, and for the condition that is somebody else's business."""
    status = obj.get("status") or {}
    shown = {c["type"]: (c["status"], c["reason"], c["message"]) for c in status.get("conditions") or () if c["type"] != _FOREIGN}
    return {**status, "conditions": shown}


def test_what_is_over_the_limits_is_refused_by_the_api_server(api: Api, namespace: str) -> None:
    """Fault 22. Labels and specs that are too long come no further than the API server."""
    too_long = service("a", namespace)
    too_long["metadata"]["labels"] = {"x": "y" * 64}
    for obj in (
        too_long,
        service("a", namespace, annotations={"x": "y" * 300_000}),
        service("x" * 53, namespace),
        engine("x" * 64, namespace),
        engine("a", namespace, build={"extraArgs": [{"flag": "--x", "value": "y" * _LARGE}]}),
    ):
        with pytest.raises(ApiRefusedError) as refused:
            api.create(obj)
        assert refused.value.status in (413, 422)
