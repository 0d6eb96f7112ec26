"""A pure stand-in for the cluster around one LLMEngine: carries decisions out in memory, and ends Jobs as a test says. No API server, no clock."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

from trtllm_operator.decide import build as build_decision
from trtllm_operator.decide import engine as engine_decision
from trtllm_operator.decide.decision import Decision, Entry
from trtllm_operator.decide.input import BuildInput, EngineInput, Hints
from trtllm_operator.desired.config import Config

UTC = timezone.utc  # noqa: UP017
CONFIG = Config(tools_image="example.test/tools:1")

FACTS: dict[str, dict[str, Any]] = {
    "resolve": {
        "revision": "c" * 40, "architecture": "LlamaForCausalLM", "dtype": "bfloat16", "bytes": 4 * 2**30, "files": 6, "layers": 16,
        "hiddenSize": 2048, "attentionHeads": 32, "kvHeads": 8, "headDim": 64, "vocabSize": 128256, "maxPositionEmbeddings": 131072,
    },
    "fetch": {"bytes": 4 * 2**30, "files": 6, "seconds": 9.5},
    "build": {"gpus": [], "runtimeVersion": "1.2.1", "seconds": {"convert": 10, "build": 60}},
    "publish": {"kind": "TensorRTEngine", "path": "x/artifact/engine", "tokenizerPath": "x/artifact/tokenizer", "bytes": 10, "files": 2,
                "digest": "sha256:" + "d" * 64, "maxSeqLen": 4096, "maxBatchSize": 64},
    "verify": {"output": "Paris.", "tokens": 3, "seconds": 2.0},
}  # fmt: skip


def engine_object(name: str = "llama", *, uid: str = "e1", generation: int = 1, **spec: Any) -> dict[str, Any]:
    """An LLMEngine as the API server gives it."""
    base = {
        "source": {"huggingFace": {"repo": "meta-llama/Llama-3.2-1B"}},
        "runtime": {"version": "1.2.1"},
        "accelerator": {"product": "NVIDIA-H100-80GB-HBM3"},
    }
    return {
        "apiVersion": "trtllm.dev/v1alpha1",
        "kind": "LLMEngine",
        "metadata": {
            "name": name, "namespace": "default", "uid": uid, "generation": generation, "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {**base, **spec},
    }  # fmt: skip


class World:
    """Objects by (kind, name), of one namespace."""

    def __init__(self, *engines: dict[str, Any], nodes: tuple[dict[str, Any], ...] | None = None) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {("LLMEngine", e["metadata"]["name"]): e for e in engines}
        self.pods: dict[str, dict[str, Any]] = {}
        self.nodes = nodes
        self.now = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
        self.serial = 100
        self.writes: list[str] = []
        self.events: list[tuple[str, str, str]] = []
        self.hints = Hints()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """All objects of a kind, oldest first."""
        return [obj for (k, _), obj in self.objects.items() if k == kind]

    def _owned(self, kind: str, uid: str) -> tuple[dict[str, Any], ...]:
        return tuple(o for o in self.of(kind) if any(r["uid"] == uid for r in o["metadata"].get("ownerReferences", ())))

    def decide(self, obj: dict[str, Any]) -> Decision:
        """One decision, without carrying it out."""
        uid, pods = obj["metadata"]["uid"], tuple(self.pods.values())
        if obj["kind"] == "LLMEngine":
            builds = {b["metadata"]["name"]: b for b in self.of("LLMEngineBuild")}
            return engine_decision.decide(EngineInput(obj, CONFIG, self.now, self._owned("Job", uid), pods, builds, self.nodes, self.hints))
        owners = {r["uid"] for r in obj["metadata"].get("ownerReferences", ())}
        engines = tuple(e for e in self.of("LLMEngine") if e["metadata"]["uid"] in owners)
        claims = {c["metadata"]["name"]: c for c in self.of("PersistentVolumeClaim")}
        fetching = tuple(
            j for j in self.of("Job") if j["metadata"]["labels"]["trtllm.dev/stage"] == "fetch" and j not in self._owned("Job", uid)
        )
        return build_decision.decide(
            BuildInput(obj, CONFIG, self.now, engines, self._owned("Job", uid), pods, claims, fetching, self.nodes, self.hints)
        )

    def step(self) -> bool:
        """One pass over every root object; True where anything was written."""
        before = len(self.writes)
        for obj in [*self.of("LLMEngine"), *self.of("LLMEngineBuild")]:
            decision = self.decide(obj)
            for apply in decision.apply:
                self._apply(apply.obj, create_only=apply.create_only, manager=apply.manager)
            for entry in decision.leave:
                self._leave(entry)
            for gone in decision.delete:
                self.writes.append(f"delete {gone.kind}/{gone.name}")
                self.objects.pop((gone.kind, gone.name), None)
            if decision.status is not None and decision.status != obj.get("status"):
                self.writes.append(f"status {obj['kind']}/{obj['metadata']['name']}")
                obj["status"] = json.loads(json.dumps(decision.status))
            self.events += [(e.type, e.reason, e.message) for e in decision.events]
        return len(self.writes) > before

    def _apply(self, desired: Any, *, create_only: bool, manager: str) -> None:
        key = (desired["kind"], desired["metadata"]["name"])
        there = self.objects.get(key)
        if there is None:
            self.serial += 1
            metadata = {**desired["metadata"], "uid": f"u{self.serial}", "generation": 1, "resourceVersion": str(self.serial)}
            metadata["creationTimestamp"] = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
            self.objects[key] = {**desired, "metadata": metadata}
            self.writes.append(f"create {key[0]}/{key[1]}")
            return
        if create_only:
            return
        mine = {r["uid"] for r in desired["metadata"].get("ownerReferences", ())}
        other = [
            r
            for r in there["metadata"].get("ownerReferences", ())
            if r["uid"] not in mine and manager != f"trtllm-operator-owner-{r['uid']}"
        ]
        owners = sorted([*other, *desired["metadata"].get("ownerReferences", ())], key=lambda ref: str(ref["uid"]))
        changed = {**there, "spec": desired.get("spec"), "metadata": {**there["metadata"], "ownerReferences": owners}}
        if changed != there:
            self.objects[key] = changed
            self.writes.append(f"apply {key[0]}/{key[1]}")

    def _leave(self, entry: Entry) -> None:
        there = self.objects[entry.obj["kind"], entry.obj["metadata"]["name"]]
        assert there["metadata"]["uid"] == entry.obj["metadata"]["uid"]
        kept = [ref for ref in there["metadata"]["ownerReferences"] if ref["uid"] != entry.owner["uid"]]
        if kept != there["metadata"]["ownerReferences"]:
            there["metadata"]["ownerReferences"] = kept
            self.writes.append(f"leave {entry.obj['kind']}/{entry.obj['metadata']['name']}")

    def settle(self, limit: int = 30) -> None:
        """Pass until nothing is written any more."""
        for _ in range(limit):
            if not self.step():
                return
        raise AssertionError(f"does not settle: {self.writes[-10:]}")

    def job(self, stage: str) -> dict[str, Any]:
        """The newest unfinished Job of a stage."""
        return next(j for j in reversed(self.of("Job")) if j["metadata"]["labels"]["trtllm.dev/stage"] == stage and "status" not in j)

    def pod(self, job: dict[str, Any], **status: Any) -> dict[str, Any]:
        """Give a Job a pod with this status."""
        name = f"{job['metadata']['name']}-x"
        pod = {
            "metadata": {"name": name, "namespace": "default", "uid": f"pod-{name}", "ownerReferences": [{"uid": job["metadata"]["uid"]}]},
            "spec": job["spec"]["template"]["spec"],
            "status": status,
        }
        self.pods[name] = pod
        return pod

    def finish(self, stage: str, facts: dict[str, Any] | None = None, *, seconds: int = 30) -> None:
        """End the stage's Job well, with the facts that the stage program would report."""
        self._end(stage, {"ok": True, "stage": stage, "facts": FACTS[stage] | (facts or {})}, "Complete", seconds)

    def fail(self, stage: str, reason: str, message: str = "it broke", *, seconds: int = 30) -> None:
        """End the stage's Job badly, with the stage program's reason."""
        self._end(stage, {"ok": False, "stage": stage, "reason": reason, "message": message}, "Failed", seconds)

    def _end(self, stage: str, said: dict[str, Any], condition: str, seconds: int) -> None:
        job = self.job(stage)
        start = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        self.now += timedelta(seconds=seconds)
        end = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        terminated = {"exitCode": 0 if said["ok"] else 1, "message": json.dumps(said), "startedAt": start, "finishedAt": end}
        self.pod(
            job, phase="Succeeded" if said["ok"] else "Failed", containerStatuses=[{"name": "stage", "state": {"terminated": terminated}}]
        )
        job["status"] = {"conditions": [{"type": condition, "status": "True", "lastTransitionTime": end}]}
        if said["ok"]:
            job["status"]["completionTime"] = end

    def ready(self, kind: str = "LLMEngine", name: str = "llama") -> tuple[str, str, str]:
        """Status, reason and message of Ready."""
        conditions = self.objects[kind, name]["status"]["conditions"]
        found = next(c for c in conditions if c["type"] == "Ready")
        return found["status"], found["reason"], found["message"]

    def finish_all(self) -> None:
        """Run the whole of a TensorRT engine to Ready."""
        self.settle()
        for stage in ("resolve", "fetch", "build", "publish", "verify"):
            self.finish(stage)
            self.settle()
