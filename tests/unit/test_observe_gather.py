"""What a decision gets to see: all of its own, nothing of others."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from trtllm_operator.desired import names
from trtllm_operator.desired.config import Config
from trtllm_operator.observe import index
from trtllm_operator.observe.gather import Gatherer
from trtllm_operator.observe.hints import HintBook, parse_progress
from trtllm_operator.observe.store import Store

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SOURCE = {"kind": "huggingFace", "repo": "a/llama", "revision": "abc"}


def make(
    kind: str, name: str, owner: dict[str, Any] | None = None, *, controller: bool = True, namespace: str = "ns", **more: Any
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "uid": f"{kind}-{name}-{namespace}", "resourceVersion": "1"}
    if owner is not None:
        reference = {"kind": owner["kind"], "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "controller": controller}
        metadata["ownerReferences"] = [reference]
    metadata |= more.pop("metadata", {})
    return {"kind": kind, "metadata": metadata, **more}


class World:
    def __init__(self, *, nodes: bool = True) -> None:
        self.store = Store(index.terms)
        self.hints = HintBook()
        self.gatherer = Gatherer(self.store, self.hints, Config("tools"), reads_nodes=lambda: nodes)

    def put(self, obj: dict[str, Any]) -> dict[str, Any]:
        assert self.store.put(obj).changed
        return obj


def names_of(objects: Any) -> list[str]:
    return sorted(obj["metadata"]["name"] for obj in objects)


def test_an_engine_sees_its_jobs_their_pods_and_all_builds() -> None:
    world = World()
    engine, other = world.put(make("LLMEngine", "e")), world.put(make("LLMEngine", "x"))
    job, foreign = world.put(make("Job", "e-resolve-1", engine)), world.put(make("Job", "x-resolve-1", other))
    pod = world.put(make("Pod", "p", job))
    world.put(make("Pod", "q", foreign))
    world.put(make("LLMEngineBuild", "b"))
    world.put(make("LLMEngineBuild", "elsewhere", namespace="other"))
    world.put(make("Node", "n", namespace=""))
    world.hints.set_progress(pod["metadata"]["uid"], {"percent": 5})
    world.hints.set_progress("somebody", {"percent": 6})
    seen = world.gatherer.engine(engine, NOW)
    assert names_of(seen.jobs) == ["e-resolve-1"]
    assert names_of(seen.pods) == ["p"]
    assert list(seen.builds) == ["b"]
    assert names_of(seen.nodes) == ["n"]
    assert seen.hints.progress == {pod["metadata"]["uid"]: {"percent": 5}}


def test_without_the_right_to_read_nodes_they_are_none_rather_than_empty() -> None:
    world = World(nodes=False)
    assert world.gatherer.engine(world.put(make("LLMEngine", "e")), NOW).nodes is None


def test_a_build_sees_its_engines_oldest_first_and_who_fetches_the_same() -> None:
    world = World()
    young = world.put(make("LLMEngine", "young", metadata={"creationTimestamp": "2026-01-02T00:00:00Z"}))
    old = world.put(make("LLMEngine", "old", metadata={"creationTimestamp": "2026-01-01T00:00:00Z"}))
    world.put(make("LLMEngine", "stranger"))
    owners = [{"kind": "LLMEngine", "name": e["metadata"]["name"], "uid": e["metadata"]["uid"]} for e in (young, old)]
    build = world.put(make("LLMEngineBuild", "b", metadata={"ownerReferences": owners}, spec={"source": SOURCE}))
    other = world.put(make("LLMEngineBuild", "b2", spec={"source": SOURCE}))
    third = world.put(make("LLMEngineBuild", "b3", spec={"source": {**SOURCE, "revision": "def"}}))
    for root in (build, other, third):
        world.put(make("Job", f"{root['metadata']['name']}-fetch-1", root, metadata={"labels": {names.STAGE: "fetch"}}))
    world.put(make("Job", "b2-build-1", other, metadata={"labels": {names.STAGE: "build"}}))
    world.put(make("PersistentVolumeClaim", "c"))
    seen = world.gatherer.build(build, NOW)
    assert [engine["metadata"]["name"] for engine in seen.engines] == ["old", "young"]
    assert names_of(seen.jobs) == ["b-fetch-1"]
    assert names_of(seen.fetching) == ["b2-fetch-1"]
    assert list(seen.claims) == ["c"]


def test_a_service_sees_its_children_the_pods_of_its_deployment_and_its_engine() -> None:
    world = World()
    engine = world.put(make("LLMEngine", "e"))
    service = world.put(make("LLMService", "s", spec={"engineRef": {"name": "e"}}))
    world.put(make("Deployment", "s", service))
    world.put(make("LLMEngineBuild", "b", service, controller=False))
    label = {"labels": {names.SERVICE: "s"}}
    world.put(make("Pod", "ours", {"kind": "ReplicaSet", "metadata": {"name": "s-1", "uid": "rs"}}, metadata=label))
    world.put(make("Pod", "smuggled", metadata=label))
    foreign = make("ConfigMap", "taken")
    seen = world.gatherer.service(service, NOW, [foreign])
    assert names_of(seen.children) == ["s"]
    assert names_of(seen.pods) == ["ours"]
    assert seen.engine == engine
    assert seen.foreign == (foreign,)
    assert list(seen.builds) == ["b"]


def test_a_service_without_its_engine_sees_none() -> None:
    world = World()
    assert world.gatherer.service(world.put(make("LLMService", "s", spec={"engineRef": {"name": "e"}})), NOW).engine is None
    assert world.gatherer.service(world.put(make("LLMService", "t", spec={})), NOW).engine is None


def test_progress_is_the_newest_whole_line_and_only_what_is_known() -> None:
    log = """\
noise
trtllm-progress {"stage": "build", "percent": 10, "message": "old"}
trtllm-progress {"stage": "build", "percent": 42.9, "message": "layer 3", "eta": 240, "extra": {"x": 1}}
more noise
trtllm-progress {"stage": "build", "perc"""
    assert parse_progress(log) == {"stage": "build", "percent": 42, "message": "layer 3", "eta": 240}
    assert parse_progress("nothing here") is None


def test_progress_of_a_liar_is_bounded() -> None:
    lie = 'trtllm-progress {"stage": "%s", "percent": 1e999, "message": ["no"], "eta": true}' % ("s" * 9999)
    assert parse_progress(lie) == {"stage": "s" * 1024, "percent": 0}
    assert parse_progress('trtllm-progress {"stage": "x", "percent": -5, "eta": -1}') == {"stage": "x", "percent": 0}
    assert parse_progress("trtllm-progress [1, 2]") is None


def test_hints_of_what_is_gone_are_forgotten() -> None:
    book = HintBook()
    assert book.set_warning("a", "text")
    assert not book.set_warning("a", "text")
    assert book.set_warning("a", None)
    book.set_progress("b", {"percent": 1})
    book.keep([])
    assert book.about(["a", "b"]).progress == {}
