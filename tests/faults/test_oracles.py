"""The oracles see what they are for: each is shown a run that is wrong in its way."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.faults.run import Run, something_met
from tests.support import oracles
from tests.support.faultproxy_plan import one
from tests.support.journal import Journal, Target
from tests.support.journal_witness import Seen
from tests.support.oracles_state import by_chance, comparable, differences

READY: dict[str, Any] = {
    "type": "Ready",
    "status": "True",
    "reason": "Ready",
    "message": "it is done",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


def _object(kind: str, name: str, uid: str = "", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ns-1", "uid": uid or f"uid-of-{name}", **more.pop("metadata", {})}
    return {"kind": kind, "metadata": metadata, **more}


def _job(name: str, **more: Any) -> dict[str, Any]:
    labels = {"trtllm.dev/build": "b", "trtllm.dev/stage": "build"}
    return _object("Job", name, metadata={"labels": labels, **more.pop("metadata", {})}, **more)


def _history(*events: tuple[str, dict[str, Any]]) -> list[Seen]:
    return [Seen(number, how, obj["kind"], obj) for number, (how, obj) in enumerate(events)]  # type: ignore[arg-type]


def test_o1_sees_a_field_and_an_object() -> None:
    engine = _object("LLMEngine", "e", uid="0123-engine")
    child = _object(
        "Job", "e-1", uid="4567-job", metadata={"ownerReferences": [{"uid": "0123-engine", "kind": "LLMEngine"}]}, spec={"a": 1}
    )
    wanted = comparable({("LLMEngine", "e"): engine, ("Job", "e-1"): child}, "ns-1")
    # The same with other uids and another namespace is the same.
    other_engine = {**engine, "metadata": {"name": "e", "namespace": "ns-2", "uid": "89ab-engine"}}
    owned = {"name": "e-1", "namespace": "ns-2", "uid": "cdef-job", "ownerReferences": [{"uid": "89ab-engine", "kind": "LLMEngine"}]}
    same = comparable({("LLMEngine", "e"): other_engine, ("Job", "e-1"): {**child, "metadata": owned}}, "ns-2")
    assert differences(wanted, same, set()) == []
    # Another owner, another value, an object less: all are seen.
    stolen = {**owned, "ownerReferences": [{"uid": "of nobody", "kind": "LLMEngine"}]}
    wrong = comparable({("LLMEngine", "e"): other_engine, ("Job", "e-1"): {**child, "metadata": stolen, "spec": {"a": 2}}}, "ns-2")
    assert [line.partition(":")[0] for line in differences(wanted, wrong, set())] == [
        "Job/e-1.metadata.ownerReferences[0].uid",
        "Job/e-1.spec.a",
    ]
    less = comparable({("LLMEngine", "e"): other_engine}, "ns-2")
    assert differences(wanted, less, set()) == ["Job/e-1: missing"]
    assert differences(less, wanted, set()) == ["Job/e-1: not there without the fault"]
    assert by_chance(wanted, wrong) == {"Job/e-1.metadata.ownerReferences[0].uid", "Job/e-1.spec.a"}


def test_o1_takes_times_and_drawn_names_for_equal() -> None:
    def pod(name: str, when: str) -> dict[tuple[str, str], Any]:
        made = _object("Pod", name, metadata={"generateName": "chat-"}, status={"startTime": when})
        return {("Pod", name): made}

    one, two = comparable(pod("chat-abcde", "2026-01-01T00:00:00Z"), "ns-1"), comparable(pod("chat-fghij", "2026-01-01T00:00:05Z"), "ns-1")
    assert differences(one, two, set()) == []


def test_o2_sees_a_second_creation() -> None:
    job = _job("b-1")
    once = oracles.creations(_history(("ADDED", job)), "ns-1")
    twice = oracles.creations(_history(("ADDED", job), ("DELETED", job), ("ADDED", _job("b-1", metadata={"uid": "2"}))), "ns-1")
    assert oracles.o2_counts(once, once, "by anyone") == []
    assert len(oracles.o2_counts(once, twice, "by anyone")) == 2
    journal = Journal()
    journal.add("response", target=Target("patch", "jobs", "n", "b-1"), status=201)
    journal.add("response", target=Target("patch", "jobs", "n", "b-1"), status=200)
    journal.add("response", target=Target("create", "events", "n"), status=201)
    assert oracles.own_counts(journal.writes()) == Counter({"create jobs b-1": 1})


def test_o8_sees_an_exception() -> None:
    assert oracles.o8_log("10:00 INFO fine\n10:01 WARNING sad\n") == []
    assert "KeyError" in oracles.o8_log("10:00 INFO fine\nTraceback (most recent call last):\n  x\nKeyError: 'a'\n")[0]


def test_o9_sees_a_status_that_breaks_a_rule() -> None:
    def written(*conditions: dict[str, Any], observed: int = 1) -> list[str]:
        journal = Journal()
        status = {"observedGeneration": observed, "conditions": list(conditions), "build": "b", "artifact": {"build": "b"}}
        answer = _object("LLMEngine", "e", metadata={"generation": 1}, status=status)
        journal.add("response", target=Target("patch", "llmengines/status", "n", "e"), status=200, answer=answer)
        return [line.split(":")[1].strip() for line in oracles.o9_conditions(journal.writes())]

    reconciling = {"type": "Reconciling", "status": "True"}
    stalled = {"type": "Stalled", "status": "True"}
    assert written(READY) == []
    assert written(READY, reconciling) == ["FAIL0001"]
    assert written() == ["FAIL0002"]
    assert written({"type": "Ready", "status": "Unknown"}, stalled) == ["FAIL0004, FAIL0011"]
    assert written({"type": "Ready", "status": "False"}, reconciling, stalled) == ["FAIL0005"]
    assert written(READY, observed=2) == ["FAIL0006"]
    assert written({"type": "Ready", "status": "Unknown"}) == ["FAIL0011"]
    assert written(READY | {"status": "False"}) == ["kstatus says InProgress, and Current is meant"]
    assert written(READY | {"reason": "Nonsense"}) == [
        "kstatus says Current, and InProgress is meant, Ready has the reason Nonsense, which is not documented"
    ]


def test_o10_sees_two_jobs_for_a_build() -> None:
    over = {"status": {"conditions": [{"type": "Failed", "status": "True"}]}}
    assert oracles.o10_safety(_history(("ADDED", _job("b-1")), ("MODIFIED", _job("b-1", **over)), ("ADDED", _job("b-2")))) == []
    wrong = oracles.o10_safety(_history(("ADDED", _job("b-1")), ("ADDED", _job("b-2"))))
    assert wrong == ["O10: 2 active Jobs for stage build of build b"]


def test_o10_sees_a_deployment_without_artifact_and_a_claim_that_goes() -> None:
    service = _object("LLMService", "s", uid="s-1")
    build = _object("LLMEngineBuild", "b", status={"artifact": {"claimName": "c"}})
    pod = {"volumes": [{"name": "model", "persistentVolumeClaim": {"claimName": "c"}}]}
    owned = {"ownerReferences": [{"uid": "s-1", "controller": True}]}
    deployment = _object("Deployment", "s", metadata=owned, spec={"template": {"spec": pod}})
    claim = _object("PersistentVolumeClaim", "c")
    well = [("ADDED", service), ("ADDED", claim), ("ADDED", build), ("ADDED", deployment)]
    assert oracles.o10_safety(_history(*well)) == []
    assert "serves from ['c']" in oracles.o10_safety(_history(("ADDED", service), ("ADDED", deployment)))[0]
    assert "claim c is deleted while" in oracles.o10_safety(_history(*well, ("DELETED", claim)))[0]
    # Once the service is gone, the garbage collector may take them in any order.
    assert oracles.o10_safety(_history(*well, ("DELETED", service), ("DELETED", claim), ("DELETED", build))) == []


def test_runs_that_met_no_fault_show_nothing() -> None:
    met, idle = one(Target("patch", "jobs"), 1, "reset-before"), one(Target("patch", "jobs"), 2, "reset-before")
    for plan in (met, idle):
        plan.decide(Target("patch", "jobs"), b"")
    runs = [Run("a", met, ""), Run("a", idle, ""), Run("b", idle, "")]
    something_met(runs[:2], ["a"])
    for names in (["a", "b"], ["a", "c"]):
        with pytest.raises(AssertionError, match=f"no fault was met in .*{names[1]}"):
            something_met(runs, names)
