"""A pure stand-in for the cluster around one LLMService, and the tests that hold it to what a real API server does.

It applies decisions in memory with the one rule of server-side apply that matters here: who owns `replicas` and `ownerReferences`, and
what becomes of them when an owner leaves them out. The Deployment "controller" does what a test tells it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from trtllm_operator.decide import service as service_decision
from trtllm_operator.decide.decision import Apply, Decision, Entry
from trtllm_operator.decide.input import Hints, ServiceInput
from trtllm_operator.desired import names
from trtllm_operator.desired.config import Config
from trtllm_operator.desired.deployment import template_hash
from trtllm_operator.desired.match import difference

Json = dict[str, Any]
CONFIG = Config(tools_image="example.test/tools:1")
UID = "5e1f0000-0000-4000-8000-000000000001"
RESOURCE = "nvidia.com/gpu"

FACTS = {"architecture": "LlamaForCausalLM", "dtype": "bfloat16", "bytes": 4 * 2**30, "files": 6}


def service_object(name: str = "chat", *, generation: int = 1, **spec: Any) -> Json:
    """An LLMService as the API server gives it."""
    return {
        "apiVersion": "trtllm.dev/v1alpha1",
        "kind": "LLMService",
        "metadata": {"name": name, "namespace": "default", "uid": UID, "generation": generation, "resourceVersion": "1"},
        "spec": {"engineRef": {"name": "llama"}, **spec},
    }


def build_object(
    name: str = "llama-0a1b2c3d4e", *, recipe: str = "TensorRTEngine", version: str = "1.2.1", tensor: int = 1, owners: Any = ("e1",)
) -> Json:
    """A finished LLMEngineBuild."""
    engine = recipe == "TensorRTEngine"
    spec: Json = {
        "source": {"kind": "huggingFace", "repo": "acme/llama", "revision": "c" * 40},
        "model": FACTS,
        "recipe": recipe,
        "runtimeVersion": version,
        "runtimeImage": f"nvcr.io/nvidia/tensorrt-llm/release:{version}",
        "precision": {"dtype": "auto"},
        "parallelism": {"tensor": tensor, "pipeline": 1},
        "build": {"workers": 1},
        "computeCapability": "9.0",
    }
    artifact: Json = {
        "kind": recipe,
        "key": name * 2,
        "build": name,
        "claimName": name if engine else "llama-src-1",
        "path": f"{name}/artifact/engine" if engine else "llama-src-1/files",
        "bytes": 4 * 2**30,
        "files": 3,
        "digest": f"sha256:{name}",
        "runtimeVersion": version,
        "runtimeImage": spec["runtimeImage"],
        "tensorParallel": tensor,
    }
    if engine:
        artifact["tokenizerPath"] = f"{name}/artifact/tokenizer"
    references = [
        {"apiVersion": "trtllm.dev/v1alpha1", "kind": "LLMEngine", "name": uid, "uid": uid, "controller": False} for uid in owners
    ]
    return {
        "apiVersion": "trtllm.dev/v1alpha1",
        "kind": "LLMEngineBuild",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": "7", "ownerReferences": references},
        "spec": spec,
        "status": {"artifact": artifact},
    }


def engine_object(
    build: Json | None = None, *, name: str = "llama", generation: int = 1, ready: tuple[str, str] = ("True", "Ready"), **spec: Any
) -> Json:
    """An LLMEngine, with the verified artifact of a build."""
    status: Json = {
        "observedGeneration": generation,
        "conditions": [{"type": "Ready", "status": ready[0], "reason": ready[1], "message": "m", "observedGeneration": generation}],
    }
    if build is not None:
        status |= {"artifact": build["status"]["artifact"], "build": build["metadata"]["name"]}
    return {
        "apiVersion": "trtllm.dev/v1alpha1",
        "kind": "LLMEngine",
        "metadata": {"name": name, "namespace": "default", "uid": "e1", "generation": generation},
        "spec": {
            "source": {"huggingFace": {"repo": "acme/llama"}},
            "runtime": {"version": "1.2.1"},
            "accelerator": {"product": "H100"},
            **spec,
        },
        "status": status,
    }


class World:
    """One namespace."""

    def __init__(self, service: Json | None = None, *, engine: bool = True, nodes: tuple[Json, ...] | None = None, **spec: Any) -> None:
        self.service = service or service_object(**spec)
        self.builds: dict[str, Json] = {}
        self.engine: Json | None = None
        self.objects: dict[tuple[str, str], Json] = {}
        self.replicas_owners: set[str] = set()
        self.pods: list[Json] = []
        self.nodes = nodes
        self.hints = Hints()
        self.foreign: tuple[Json, ...] = ()
        self.now = datetime(2026, 1, 1, 12, tzinfo=UTC)
        self.serial = 100
        self.log: list[str] = []
        self.replicas_seen: list[int] = []
        self.events: list[tuple[str, str, str]] = []
        if engine:
            self.verified(build_object())

    def verified(self, build: Json) -> None:
        """The engine has a new artifact."""
        self.builds[build["metadata"]["name"]] = build
        generation = self.engine["metadata"]["generation"] if self.engine else 1
        self.engine = engine_object(build, generation=generation)

    # Reading.

    def get(self, kind: str, name: str = "chat") -> Json | None:
        return self.objects.get((kind, name))

    def deployment(self) -> Json:
        return self.objects["Deployment", "chat"]

    def kinds(self) -> list[str]:
        return sorted(kind for kind, _ in self.objects)

    def owners(self, build: str) -> set[str]:
        return {ref["uid"] for ref in self.builds[build]["metadata"]["ownerReferences"]}

    def condition(self, kind: str) -> tuple[str, str, str]:
        found = next((c for c in self.service["status"]["conditions"] if c["type"] == kind), None)
        return (found["status"], found["reason"], found["message"]) if found else ("", "", "")

    def types(self) -> set[str]:
        return {c["type"] for c in self.service["status"]["conditions"]}

    # Passes.

    def given(self) -> ServiceInput:
        return ServiceInput(
            copy.deepcopy(self.service), CONFIG, self.now, self.engine, dict(self.builds), tuple(self.objects.values()),
            tuple(self.pods), self.foreign, self.nodes, self.hints,
        )  # fmt: skip

    def decide(self) -> Decision:
        return service_decision.decide(self.given())

    def step(self) -> bool:
        """One pass; True where anything was written."""
        before = len(self.log)
        decision = self.decide()
        for entry in decision.join:
            self._own(entry, [entry.owner])
        for apply in decision.apply:
            self._apply(apply)
        for entry in decision.leave:
            self._own(entry, [])
        for gone in decision.delete:
            self.log.append(f"delete {gone.kind}/{gone.name}")
            self.objects.pop((gone.kind, gone.name), None)
            self.builds.pop(gone.name, None) if gone.kind == "LLMEngineBuild" else None
        if decision.status is not None and decision.status != self.service.get("status"):
            self.log.append("status")
            self.service["status"] = json.loads(json.dumps(decision.status))
        self.events += [(e.type, e.reason, e.message) for e in decision.events]
        return len(self.log) > before

    def settle(self) -> None:
        """Pass until nothing is written."""
        for _ in range(12):
            if not self.step():
                return
            self.now += timedelta(seconds=1)
        raise AssertionError(f"does not settle: {self.log[-8:]}")

    def change(self, **spec: Any) -> None:
        """The user changes the spec; None removes a field."""
        merged = {**self.service["spec"], **spec}
        self.service["spec"] = {key: value for key, value in merged.items() if value is not None}
        self.service["metadata"]["generation"] += 1

    def roll_out(self) -> None:
        """Settle, let the Deployment controller finish, and settle again."""
        self.settle()
        self.controller()
        self.settle()

    # The rest of Kubernetes.

    def _apply(self, apply: Apply) -> None:
        desired = json.loads(json.dumps(apply.obj))
        kind, name = desired["kind"], desired["metadata"]["name"]
        observed = self.objects.get((kind, name))
        if observed is None:
            assert "uid" not in desired["metadata"], "an apply with the uid of a missing object is refused"
            self.serial += 1
            desired["metadata"] |= {"uid": f"u{self.serial}", "resourceVersion": str(self.serial), "generation": 1}
            if kind == "Deployment":
                self.replicas_owners = {apply.manager} if "replicas" in desired["spec"] else set()
                desired["spec"].setdefault("replicas", 1)
                self.replicas_seen.append(desired["spec"]["replicas"])
            self.objects[kind, name] = desired
            self.log.append(f"create {kind}/{name}")
            return
        assert desired["metadata"].get("uid", observed["metadata"]["uid"]) == observed["metadata"]["uid"]
        if _as_desired(apply, desired, observed):
            return
        metadata = {**observed["metadata"], **desired["metadata"]}
        metadata["annotations"] = {**observed["metadata"].get("annotations", {}), **desired["metadata"].get("annotations", {})}
        changed: Json = {**observed, **{k: v for k, v in desired.items() if k not in ("metadata", "spec")}, "metadata": metadata}
        changed["spec"] = {**observed.get("spec", {}), **desired.get("spec", {})}
        if kind == "Deployment":
            changed["spec"]["replicas"] = self._replicas(apply.manager, desired["spec"], observed["spec"]["replicas"])
            self.replicas_seen.append(changed["spec"]["replicas"])
        if changed == observed:
            return  # as the API server: an apply that changes nothing writes nothing
        if changed.get("spec") != observed.get("spec"):
            metadata["generation"] += 1
        self.objects[kind, name] = changed
        self.log.append(f"apply {kind}/{name} by {apply.manager}")

    def _replicas(self, manager: str, spec: Json, observed: int) -> int:
        """Ownership of one field. The last owner that leaves it out takes its value away, and the default comes back."""
        if "replicas" in spec:
            self.replicas_owners = self.replicas_owners | {manager} if spec["replicas"] == observed else {manager}
            return int(spec["replicas"])
        if self.replicas_owners == {manager}:
            self.replicas_owners = set()
            return 1
        self.replicas_owners -= {manager}
        return observed

    def _own(self, entry: Entry, mine: list[Mapping[str, Any]]) -> None:
        name = entry.obj["metadata"]["name"]
        observed = self.builds[name]
        assert entry.obj["metadata"]["uid"] == observed["metadata"]["uid"]
        assert entry.owner["uid"] == UID
        references = [*(ref for ref in observed["metadata"]["ownerReferences"] if ref["uid"] != UID), *map(dict, mine)]
        if references != observed["metadata"]["ownerReferences"]:
            observed["metadata"]["ownerReferences"] = references
            self.log.append(f"owners of LLMEngineBuild/{name}")

    def scale(self, replicas: int) -> None:
        """The autoscaler, or somebody with kubectl, sets the number by the scale subresource."""
        self.deployment()["spec"]["replicas"] = replicas
        self.deployment()["metadata"]["generation"] += 1
        self.replicas_owners = {"kube-controller-manager"}

    def controller(self, *, updated: int | None = None, available: int | None = None, total: int | None = None, **conditions: Json) -> None:
        """What the Deployment controller reports; by default that all is done."""
        deployment = self.deployment()
        wanted = deployment["spec"]["replicas"]
        count = wanted if available is None else available
        deployment["status"] = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": wanted if total is None else total,
            "updatedReplicas": wanted if updated is None else updated,
            "readyReplicas": count,
            "availableReplicas": count,
            "conditions": [{"type": kind, **said} for kind, said in conditions.items()],
        }

    def pod(self, name: str, template: Json | None = None, *, node: str | None = "node-a", phase: str = "Running", **status: Any) -> Json:
        """A pod of the Deployment, as its template says now."""
        made = copy.deepcopy(template or self.deployment()["spec"]["template"])
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**made["metadata"], "name": name, "namespace": "default", "uid": f"uid-{name}"},
            "spec": {**made["spec"], **({"nodeName": node} if node else {})},
            "status": {"phase": phase, **status},
        }
        self.pods = [*[p for p in self.pods if p["metadata"]["name"] != name], pod]
        return pod


def _as_desired(apply: Apply, desired: Json, observed: Json) -> bool:
    """As `runtime.writer` decides."""
    marks = [obj["metadata"].get("annotations", {}).get(names.DESIRED_HASH) for obj in (desired, observed)]
    return (apply.manager != names.MANAGER or marks[0] == marks[1]) and difference(desired, observed) is None


def unschedulable(message: str) -> Json:
    """Status of a pod that fits nowhere."""
    return {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}


def test_an_apply_without_replicas_by_its_only_owner_falls_to_one() -> None:
    """As seen on a real API server; without it the tests of the hand-over would prove nothing."""
    world = World(replicas=3)
    world.roll_out()
    bare = {k: v for k, v in world.deployment()["spec"].items() if k != "replicas"}
    world._apply(
        Apply(
            {**world.deployment(), "spec": bare, "metadata": {**world.deployment()["metadata"], "annotations": {names.DESIRED_HASH: "x"}}}
        )
    )
    assert world.deployment()["spec"]["replicas"] == 1


def test_pods_carry_the_hash_of_their_template() -> None:
    world = World()
    world.roll_out()
    assert template_hash(world.pod("a")) == template_hash(world.deployment()["spec"]["template"]) != ""
