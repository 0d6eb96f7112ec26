"""Before what exists is changed or deleted, the sources of the decision are read; what only makes things reads nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from trtllm_operator.api.common import UNSEEN_GENERATION
from trtllm_operator.decide.decision import Apply, Decision, Delete, Entry
from trtllm_operator.decide.input import BuildInput, EngineInput, ServiceInput
from trtllm_operator.desired import names
from trtllm_operator.desired.config import Config
from trtllm_operator.desired.match import with_hash
from trtllm_operator.kube.errors import classify
from trtllm_operator.kube.events import EventPoster
from trtllm_operator.observe import index
from trtllm_operator.observe.gather import Gatherer
from trtllm_operator.observe.hints import HintBook
from trtllm_operator.observe.refs import Ref, nested, ref_of
from trtllm_operator.observe.store import Store
from trtllm_operator.runtime.confirm import sources
from trtllm_operator.runtime.freshness import Freshness
from trtllm_operator.runtime.intake import Intake
from trtllm_operator.runtime.queue import Queue
from trtllm_operator.runtime.reconcile import Deciders, Outcome, Reconciler
from trtllm_operator.runtime.writer import Writer

CONFIG = Config(tools_image="example.test/tools:1")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
OWNER = {"apiVersion": "trtllm.dev/v1alpha1", "kind": "LLMService", "name": "s", "uid": "u", "controller": True}
LABELS = {names.MANAGED_BY: names.MANAGER, names.SERVICE: "s"}


def root(version: str = "5", replicas: int = 1, kind: str = "LLMService", name: str = "s", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "trtllm.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "ns", "uid": "u", "resourceVersion": version, "generation": replicas, **metadata},
        "spec": {"engineRef": {"name": "e"}, "replicas": replicas},
        "status": {"observedGeneration": UNSEEN_GENERATION},
    }


def child(replicas: Any, kind: str = "Deployment", **metadata: Any) -> dict[str, Any]:
    api_version = {"Deployment": "apps/v1", "Job": "batch/v1"}[kind]
    made = {"name": "s", "namespace": "ns", "labels": LABELS, "ownerReferences": [OWNER], **metadata}
    return {"apiVersion": api_version, "kind": kind, "metadata": made, "spec": {"replicas": replicas}}


class Server:
    """Stands where the client does: objects by path, and what was asked for."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.objects = {f"{obj['kind'].lower()}s/{obj['metadata']['name']}": obj for obj in objects}
        self.asked: list[str] = []

    async def json(self, method: str, path: str, *, body: Any = None, content_type: str = "", **_: Any) -> Any:
        name = path.partition("/ns/")[2]
        self.asked.append(f"{method} {name}")
        there = self.objects.get(name)
        if method == "GET":
            if there is None:
                raise classify(method, path, 404, {}, json.dumps({"message": "gone", "details": {"name": name.partition("/")[2]}}))
            return there
        if method == "DELETE":
            del self.objects[name]
            return {"kind": "Status"}
        metadata = {"uid": name, **(there or {}).get("metadata", {}), **body["metadata"], "resourceVersion": str(10 + len(self.asked))}
        known = there if "merge-patch" in content_type and there is not None else body
        self.objects[name] = {**known, "metadata": metadata}
        return self.objects[name]


def _scaled(given: ServiceInput) -> Decision:
    return Decision(apply=(Apply(child(given.service["spec"]["replicas"])),))


def _nothing(_: EngineInput | BuildInput) -> Decision:
    return Decision()


async def _pass(server: Server, *known: dict[str, Any], decide: Any = _scaled, others_wait: bool = False) -> tuple[Outcome, Store]:
    store = Store(index.terms)
    for obj in known:
        store.put(obj)
    client: Any = server
    writer = Writer(client, Intake(store, Queue(), Freshness()))
    gatherer = Gatherer(store, HintBook(), CONFIG, reads_nodes=lambda: False)
    deciders = Deciders(_nothing, _nothing, decide)
    reconciler = Reconciler(store, gatherer, writer, EventPoster(client, "pod"), deciders, others_wait=lambda: others_wait, now=lambda: NOW)
    return await reconciler.run(ref_of(root())), store


def _seen(obj: dict[str, Any], version: str) -> dict[str, Any]:
    hashed = with_hash(obj)
    return {**hashed, "metadata": {**hashed["metadata"], "uid": "child", "resourceVersion": version}}


async def test_what_is_made_needs_no_confirmation() -> None:
    server = Server(root())
    await _pass(server, root())
    assert server.asked == ["PATCH deployments/s"]


def _in_two_parts(given: ServiceInput) -> Decision:
    replicas = given.service["spec"]["replicas"]
    later = (Apply(child(replicas, name=name), can_wait=True) for name in ("later", "last"))
    return Decision(apply=(Apply(child(replicas)), *later), status={"observedGeneration": replicas})


async def test_what_can_wait_is_made_after_what_others_need() -> None:
    """A new service's pods come up without the objects that clients and drains need, and hundreds may come at once."""
    server = Server(root())
    outcome, _ = await _pass(server, root(), decide=_in_two_parts, others_wait=True)
    assert outcome == Outcome(put_off=True)
    assert server.asked == ["PATCH deployments/s"]
    made = server.objects["deployments/s"]
    server.asked.clear()
    outcome, _ = await _pass(server, root(), made, decide=_in_two_parts, others_wait=True)
    assert not outcome.put_off, "once, and not again before each of them"
    assert server.asked == ["PATCH deployments/later", "PATCH deployments/last", "PATCH llmservices/s/status"]


async def test_nothing_is_put_off_where_nobody_waits_or_the_resource_is_not_new() -> None:
    for known, others_wait in ((root(), False), ({**root(), "status": {"observedGeneration": 1}}, True)):
        server = Server(known)
        outcome, _ = await _pass(server, known, decide=_in_two_parts, others_wait=others_wait)
        assert not outcome.put_off
        assert [name for name in server.asked if "deployments" in name] == [f"PATCH deployments/{name}" for name in ("s", "later", "last")]


async def test_what_is_made_again_is_confirmed_by_its_root() -> None:
    """A child that went may have gone with its root, whose watch is behind."""
    known = {**root(), "status": {"observedGeneration": 1}}
    server = Server(known)
    await _pass(server, known)
    assert server.asked == ["GET llmservices/s", "PATCH deployments/s"]
    server = Server()
    outcome, store = await _pass(server, known)
    assert server.asked == ["GET llmservices/s"]
    assert outcome == Outcome()
    assert store.get(ref_of(root())) is None


@pytest.mark.parametrize("how", ["join", "apply"])
async def test_an_owner_comes_back_only_where_it_is_there(how: str) -> None:
    """The garbage collector has taken the entry away with its owner, whose watch is behind: entered again, it is taken away again, and so on."""
    known = {**root(), "status": {"observedGeneration": 1}}
    build = root("6", kind="LLMEngineBuild", name="b", uid="b")
    entered = {**build, "metadata": {"name": "b", "namespace": "ns", "ownerReferences": [OWNER]}}

    def decide(_: ServiceInput) -> Decision:
        return Decision(join=(Entry(build, OWNER),)) if how == "join" else Decision(apply=(Apply(entered, names.owner_manager("u")),))

    server = Server(build)
    outcome, store = await _pass(server, known, build, decide=decide)
    assert server.asked == ["GET llmservices/s"]
    assert outcome == Outcome()
    assert store.get(ref_of(root())) is None
    server = Server(known, build)
    await _pass(server, known, build, decide=decide)
    assert server.asked == ["GET llmservices/s", "PATCH llmenginebuilds/b"]
    server = Server(root(), build)
    await _pass(server, root(), build, decide=decide)
    assert server.asked == ["PATCH llmenginebuilds/b"], "a new one had nothing taken away"
    there = {**build, "metadata": {**build["metadata"], "ownerReferences": [OWNER]}}
    server = Server(known, there)
    await _pass(server, known, there, decide=decide)
    assert server.asked == []


async def test_a_settled_resource_reads_and_writes_nothing() -> None:
    server = Server(root(), _seen(child(1), "6"))
    await _pass(server, root(), _seen(child(1), "6"))
    assert server.asked == []


async def test_a_change_is_confirmed_once() -> None:
    server = Server(root("7", 3), _seen(child(1), "6"))
    await _pass(server, root("7", 3), _seen(child(1), "6"))
    assert server.asked == ["GET llmservices/s", "PATCH deployments/s"]
    assert server.objects["deployments/s"]["spec"]["replicas"] == 3


async def test_an_older_root_does_not_undo_what_a_newer_one_has_made() -> None:
    """Fault 14. The watch of the child is ahead of its root's."""
    server = Server(root("7", 3), _seen(child(3), "8"))
    outcome, store = await _pass(server, root("5", 1), _seen(child(3), "8"))
    assert server.asked == ["GET llmservices/s"]
    assert (outcome.failed, outcome.again_after) == (False, None)
    assert nested(store.get(ref_of(root())), "metadata", "resourceVersion") == "7"


async def test_a_change_of_a_label_alone_does_not_make_a_decision_outdated() -> None:
    server = Server(root("7", 3, labels={"a": "b"}), _seen(child(1), "6"))
    await _pass(server, root("5", 3), _seen(child(1), "6"))
    assert server.asked == ["GET llmservices/s", "PATCH deployments/s"]


async def test_a_root_that_is_gone_changes_and_deletes_nothing() -> None:
    server = Server(_seen(child(1), "6"))
    outcome, store = await _pass(server, root("5", 3), _seen(child(1), "6"))
    assert server.asked == ["GET llmservices/s"]
    assert outcome == Outcome()
    assert store.get(ref_of(root())) is None


async def test_a_deletion_is_confirmed() -> None:
    server = Server(root("7", 2), _seen(child(1), "6"))

    def decide(given: ServiceInput) -> Decision:
        old = given.service["spec"]["replicas"] == 1
        return Decision(delete=(Delete("apps/v1", "Deployment", "ns", "s", "child"),) if old else ())

    await _pass(server, root("5", 1), _seen(child(1), "6"), decide=decide)
    assert server.asked == ["GET llmservices/s"]


async def test_a_job_gets_back_what_it_is_known_by() -> None:
    """Nobody would see how it ends; its spec can't be applied again. Owners of others stay."""
    job = child(1, "Job")
    other = {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "other"}
    lost = _seen({**job, "metadata": {**job["metadata"], "labels": {names.MANAGED_BY: names.MANAGER}, "ownerReferences": [other]}}, "6")
    server = Server(root(), lost)
    _, store = await _pass(server, root(), lost, decide=lambda _: Decision(apply=(Apply(job, create_only=True),)))
    assert server.asked == ["GET llmservices/s", "PATCH jobs/s"]
    found = store.get(Ref("Job", "ns", "s"))
    assert found is not None
    assert found["metadata"]["labels"] == LABELS
    assert found["metadata"]["ownerReferences"] == [other, OWNER]
    assert found["metadata"]["uid"] == "child"


def test_a_service_goes_by_its_engine_and_what_that_has_built() -> None:
    engine = {**root(kind="LLMEngine", name="e"), "status": {"artifact": {"build": "b"}}}
    build = root(kind="LLMEngineBuild", name="b")
    given = ServiceInput(root(), CONFIG, NOW, engine, {"b": build, "c": root(name="c")})
    assert sources(given) == (root(), engine, build)
    assert sources(ServiceInput(root(), CONFIG, NOW)) == (root(),)
    assert sources(BuildInput(build, CONFIG, NOW, (engine,))) == (build, engine)
    assert sources(EngineInput(engine, CONFIG, NOW)) == (engine,)
