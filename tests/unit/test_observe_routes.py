"""Every change reaches the roots that it concerns, and no heartbeat reaches anybody."""

from __future__ import annotations

from typing import Any

import pytest

from trtllm_operator.desired import names
from trtllm_operator.observe import index
from trtllm_operator.observe.refs import Ref
from trtllm_operator.observe.routes import roots_of, slim_node
from trtllm_operator.observe.store import Store

SOURCE = {"kind": "huggingFace", "repo": "a/llama", "revision": "abc"}
ENGINE, BUILD, OTHER, SERVICE = (
    Ref("LLMEngine", "ns", "llama"),
    Ref("LLMEngineBuild", "ns", "llama-1"),
    Ref("LLMEngineBuild", "ns", "llama-2"),
    Ref("LLMService", "ns", "chat"),
)
LONG = Ref("LLMService", "ns", "n" * 80)


def make(ref: Ref, owners: tuple[Ref, ...] = (), labels: dict[str, str] | None = None, version: int = 1, **more: Any) -> dict[str, Any]:
    references = [{"kind": owner.kind, "name": owner.name, "uid": f"uid-{owner.name}"} for owner in owners]
    metadata: dict[str, Any] = {"name": ref.name, "namespace": ref.namespace, "uid": f"uid-{ref.name}", "resourceVersion": str(version)}
    metadata |= {"labels": labels or {}, "ownerReferences": references}
    return {"kind": ref.kind, "metadata": metadata, **more}


@pytest.fixture
def store() -> Store:
    filled = Store(index.terms)
    filled.put(make(ENGINE))
    filled.put(make(BUILD, (ENGINE, SERVICE), spec={"source": SOURCE}))
    filled.put(make(OTHER, (), spec={"source": SOURCE}))
    filled.put(make(SERVICE, spec={"engineRef": {"name": "llama"}}))
    filled.put(make(LONG, spec={"engineRef": {"name": "another"}}))
    return filled


def test_an_engine_concerns_itself_its_services_and_its_builds(store: Store) -> None:
    assert roots_of(store, make(ENGINE)) == {ENGINE, SERVICE, BUILD}


def test_a_build_concerns_itself_its_owners_and_who_needs_the_same_checkpoint(store: Store) -> None:
    assert roots_of(store, make(BUILD, (ENGINE, SERVICE), spec={"source": SOURCE})) == {BUILD, ENGINE, SERVICE, OTHER}


def test_an_owner_that_was_taken_away_is_told(store: Store) -> None:
    before = make(BUILD, (ENGINE,))
    assert roots_of(store, make(BUILD), before) == {BUILD, ENGINE}


def test_a_new_owner_of_a_build_concerns_no_other_owner(store: Store) -> None:
    """A thousand services of one engine become owners one after the other: not each of them is news to all of them."""
    before = make(BUILD, (ENGINE, SERVICE), spec={"source": SOURCE}, status={"stage": "published"})
    assert roots_of(
        store, {**make(BUILD, (ENGINE, SERVICE, LONG), version=2), "spec": before["spec"], "status": before["status"]}, before
    ) == {
        BUILD,
        LONG,
    }


@pytest.mark.parametrize("change", [{"spec": {}}, {"status": {"stage": "failed"}}])
def test_what_a_build_says_concerns_every_owner(store: Store, change: dict[str, Any]) -> None:
    before = make(BUILD, (ENGINE, SERVICE), spec={"source": SOURCE}, status={"stage": "published"})
    assert {ENGINE, SERVICE} <= roots_of(store, {**before, **change}, before)


@pytest.mark.parametrize("change", [{"deletionTimestamp": "x"}, {"labels": {"a": "b"}}, {"uid": "another"}, {"annotations": {"a": "b"}}])
def test_what_becomes_of_a_build_concerns_every_owner(store: Store, change: dict[str, Any]) -> None:
    before = make(BUILD, (ENGINE, SERVICE), spec={"source": SOURCE})
    assert {ENGINE, SERVICE} <= roots_of(store, {**before, "metadata": {**before["metadata"], **change}}, before)


def test_a_service_concerns_itself(store: Store) -> None:
    assert roots_of(store, make(SERVICE)) == {SERVICE}


def test_a_child_concerns_its_owner_and_whom_its_labels_name(store: Store) -> None:
    child = make(Ref("Deployment", "ns", "chat"), (SERVICE,))
    assert roots_of(store, child) == {SERVICE}
    pod = make(Ref("Pod", "ns", "chat-x-y"), (Ref("ReplicaSet", "ns", "chat-x"),), {names.SERVICE: "chat"})
    assert roots_of(store, pod) == {SERVICE}


def test_a_label_of_a_long_name_is_understood(store: Store) -> None:
    pod = make(Ref("Pod", "ns", "p"), (), {names.SERVICE: names.label_value(LONG.name)})
    assert roots_of(store, pod) == {LONG}


def test_a_pod_of_a_job_concerns_the_owner_of_the_job(store: Store) -> None:
    job = Ref("Job", "ns", "llama-1-build-1")
    store.put(make(job, (BUILD,)))
    assert roots_of(store, make(Ref("Pod", "ns", "p"), (job,))) == {BUILD}


def test_a_shared_claim_concerns_all_who_need_it(store: Store) -> None:
    claim = make(Ref("PersistentVolumeClaim", "ns", "c"), (BUILD,), {names.CHECKPOINT: names.checkpoint_name(SOURCE)})
    assert roots_of(store, claim) == {BUILD, OTHER}


def test_labels_that_name_nobody_concern_nobody(store: Store) -> None:
    assert roots_of(store, make(Ref("Pod", "ns", "p"), (), {names.SERVICE: "nobody"})) == set()
    assert roots_of(store, make(Ref("Pod", "other", "p"), (), {names.SERVICE: "chat"})) == set()


def node(**more: Any) -> dict[str, Any]:
    full = {
        "kind": "Node",
        "metadata": {"name": "n1", "uid": "n1", "resourceVersion": "1", "labels": {"gpu": "a"}, "annotations": {"noise": "x"}},
        "spec": {"podCIDR": "10.0.0.0/24"},
        "status": {"allocatable": {"nvidia.com/gpu": "8"}, "images": ["many"], "conditions": [{"type": "Ready"}]},
    }
    return {**full, **more}


def test_a_node_concerns_those_that_are_not_ready_and_only_when_placement_changes(store: Store) -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    store.put(make(SERVICE, version=2, status=ready))
    first = slim_node(node())
    store.put(first)
    assert roots_of(store, first) == {ENGINE, BUILD, OTHER, LONG}
    assert roots_of(store, slim_node(node(status={"allocatable": {"nvidia.com/gpu": "8"}, "conditions": ["heartbeat"]})), first) == set()
    assert ENGINE in roots_of(store, slim_node(node(status={"allocatable": {"nvidia.com/gpu": "7"}})), first)
    assert ENGINE in roots_of(store, slim_node(node(spec={"unschedulable": True})), first)
    assert ENGINE in roots_of(store, slim_node(node(spec={"taints": [{"key": "k"}]})), first)


def test_a_node_is_kept_without_what_nobody_asks_for() -> None:
    assert slim_node(node()) == {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n1", "uid": "n1", "resourceVersion": "1", "labels": {"gpu": "a"}},
        "spec": {},
        "status": {"allocatable": {"nvidia.com/gpu": "8"}},
    }
