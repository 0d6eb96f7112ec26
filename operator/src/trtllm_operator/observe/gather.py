"""From what is known to what a decision is made from: one frozen input per root kind. Reads memory only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from trtllm_operator.decide.input import BuildInput, EngineInput, Hints, ServiceInput
from trtllm_operator.desired import names
from trtllm_operator.desired.config import Config
from trtllm_operator.observe import index
from trtllm_operator.observe.hints import HintBook
from trtllm_operator.observe.refs import BUILD, ENGINE, Obj, Ref, controller_of, labels_of, nested, uid_of
from trtllm_operator.observe.store import Store


class Gatherer:
    """Makes inputs. Where `reads_nodes` is false, the operator may not read nodes and decisions are told so."""

    def __init__(self, store: Store, hints: HintBook, config: Config, *, reads_nodes: Callable[[], bool]) -> None:
        self._store = store
        self._hints = hints
        self._config = config
        self._reads_nodes = reads_nodes

    def engine(self, engine: Obj, now: datetime) -> EngineInput:
        """Around one LLMEngine."""
        jobs = self._owned(engine, "Job")
        pods = self._pods(jobs)
        return EngineInput(
            engine=engine,
            config=self._config,
            now=now,
            jobs=jobs,
            pods=pods,
            builds=self._named(BUILD, _namespace(engine)),
            nodes=self._nodes(),
            hints=self._about(jobs, pods),
        )

    def build(self, build: Obj, now: datetime) -> BuildInput:
        """Around one LLMEngineBuild."""
        namespace = _namespace(build)
        jobs = self._owned(build, "Job")
        pods = self._pods(jobs)
        owners = {str(owner.get("uid")) for owner in build["metadata"].get("ownerReferences") or ()}
        engines = [engine for engine in self._store.find(index.in_namespace(ENGINE, namespace)) if uid_of(engine) in owners]
        return BuildInput(
            build=build,
            config=self._config,
            now=now,
            engines=tuple(sorted(engines, key=lambda e: (str(e["metadata"].get("creationTimestamp", "")), e["metadata"]["name"]))),
            jobs=jobs,
            pods=pods,
            claims=self._named("PersistentVolumeClaim", namespace),
            fetching=self._fetching(build),
            nodes=self._nodes(),
            hints=self._about(jobs, pods),
        )

    def service(self, service: Obj, now: datetime, foreign: Iterable[Obj] = ()) -> ServiceInput:
        """Around one LLMService. `foreign`: objects of somebody else under names that we need."""
        namespace, name = _namespace(service), service["metadata"]["name"]
        engine = nested(service, "spec", "engineRef", "name")
        labelled = self._store.find(index.labelled(names.SERVICE, namespace, names.label_value(name)))
        # Pods of a Deployment belong to its ReplicaSets, which are not watched. A label alone would let anybody's pod count as ours.
        pods = tuple(pod for pod in labelled if pod["kind"] == "Pod" and (controller_of(pod) or {}).get("kind") == "ReplicaSet")
        return ServiceInput(
            service=service,
            config=self._config,
            now=now,
            engine=self._store.get(Ref(ENGINE, namespace, engine)) if isinstance(engine, str) else None,
            builds=self._named(BUILD, namespace),
            children=tuple(child for child in self._store.find(index.owned_by(uid_of(service))) if child["kind"] != BUILD),
            pods=pods,
            foreign=tuple(foreign),
            nodes=self._nodes(),
            hints=self._about(pods),
        )

    def _owned(self, root: Obj, kind: str) -> tuple[Obj, ...]:
        return tuple(child for child in self._store.find(index.owned_by(uid_of(root))) if child["kind"] == kind)

    def _pods(self, jobs: Iterable[Obj]) -> tuple[Obj, ...]:
        return tuple(pod for job in jobs for pod in self._owned(job, "Pod"))

    def _named(self, kind: str, namespace: str) -> dict[str, Obj]:
        return {obj["metadata"]["name"]: obj for obj in self._store.find(index.in_namespace(kind, namespace))}

    def _fetching(self, build: Obj) -> tuple[Obj, ...]:
        checkpoint = index.checkpoint_of(build)
        if checkpoint is None:
            return ()
        namespace, uid = _namespace(build), uid_of(build)
        others = [other for other in self._store.find(index.builds_from(namespace, checkpoint)) if uid_of(other) != uid]
        return tuple(job for other in others for job in self._owned(other, "Job") if labels_of(job).get(names.STAGE) == "fetch")

    def _nodes(self) -> tuple[Obj, ...] | None:
        return tuple(sorted(self._store.of_kind("Node"), key=lambda node: str(node["metadata"]["name"]))) if self._reads_nodes() else None

    def _about(self, *objects: Iterable[Obj]) -> Hints:
        return self._hints.about(uid_of(obj) for group in objects for obj in group)


def _namespace(obj: Obj) -> str:
    return str(obj["metadata"].get("namespace") or "")
