"""An engine and its service through all of their states on a real API server, and what tools see in each: the ground of the status contract."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support import contract
from tests.support.api import Api, Document
from tests.support.kubelet_standin import Failure
from tests.support.kubelet_standin_servers import ServersStandIn
from tests.support.operator_process import OperatorProcess
from tests.support.samples import condition
from tests.support.waiting import eventually
from trtllm_operator.kube.resources import BY_KIND

MANIFESTS = Path(__file__).parents[2] / "manifests"
STAGES = ("resolve", "fetch", "build", "publish", "verify")
_SECONDS = 90.0
_FINALIZER = "example.test/hold"
_NO_GPU = "the container sees no GPU, and 1 are needed. Check the device plugin and runtimeClassName"
_GATED = "meta-llama/Llama-3.1-8B-Instruct is gated. Accept its terms, then set source.huggingFace.tokenSecretRef"
_MEMORY = "trtllm-build was killed (signal 9), as happens when a container reaches its memory limit. Raise the memory limit of the stage under jobs"


def manifests(file: str, namespace: str) -> list[Document]:
    """LLMEngines and LLMServices of a file below manifests/, in another namespace."""
    found = [doc for doc in yaml.safe_load_all((MANIFESTS / file).read_text()) if doc["kind"] in ("LLMEngine", "LLMService")]
    return [{**doc, "metadata": {**doc["metadata"], "namespace": namespace}} for doc in found]


def changed(manifest: Document, *, name: str | None = None, **spec: Any) -> Document:
    """A manifest with other fields of the spec; None takes one away."""
    made = copy.deepcopy(manifest)
    made["metadata"]["name"] = name or made["metadata"]["name"]
    made["spec"] = {key: value for key, value in (made["spec"] | spec).items() if value is not None}
    return made


@dataclass(frozen=True)
class Recorded:
    """One state of one object."""

    obj: Document
    drift: list[str]
    """What an apply of the user's manifest would change."""
    columns: dict[str, Any]


@dataclass
class Tour:
    """`run` fills `recorded`: (kind, scene) -> what was seen. Scenes are named after the health that Argo CD should show."""

    api: Api
    namespace: str
    operator: OperatorProcess
    kubelet: ServersStandIn
    recorded: dict[tuple[str, str], Recorded] = field(default_factory=dict)
    _manifests: dict[tuple[str, str], Document] = field(default_factory=dict)

    def run(self) -> None:
        engine, service = manifests("samples/llama-tensorrt.yaml", self.namespace)
        self.kubelet.hold |= set(STAGES)
        self.kubelet.servers = "starting"
        self._build(engine, service)
        self._serve(service)
        self._troubles(engine)
        self._change_and_delete(engine, service)

    # Parts.

    def _build(self, engine: Document, service: Document) -> None:
        self._apply(service)
        self._record(service, "progressing_new")
        self.operator.start()
        self._reach(service, "progressing_no_engine", "Unknown", "EngineNotFound", also=("Exposed", "True"))
        self.operator.stop()
        self._apply(engine)
        self._record(engine, "progressing_new")
        self.operator.start()
        self._reach(engine, "progressing_resolving", "Unknown", "Resolving", stage=("resolve", "Running"))
        self.kubelet.hold.discard("resolve")
        self._wait(engine, "Unknown", "Fetching")
        build = self._build_of(engine)
        self._reach(build, "progressing_fetching", "Unknown", "Fetching", stage=("fetch", "Running"))
        suspended = changed(engine, suspend=True)
        self._apply(suspended)
        self.kubelet.hold.discard("fetch")
        self._reach(build, "suspended", "False", "Suspended", stage=("fetch", "Succeeded"))
        self._reach(suspended, "suspended", "False", "Suspended", stage=("fetch", "Succeeded"))
        self._apply(engine)
        self._reach(engine, "progressing_building", "Unknown", "Building", stage=("build", "Running"))
        self.kubelet.failures["build"] = Failure("GPUNotFound", _NO_GPU)
        self.kubelet.hold.clear()
        self._reach(engine, "progressing_retrying", "Unknown", "Retrying", stage=("build", "Failed"))
        self._reach(engine, "healthy", "True", "Ready")
        self._reach(build, "healthy", "True", "Ready")

    def _serve(self, service: Document) -> None:
        self._reach(service, "progressing_starting", "Unknown", "RollingOut", says="2 of 2 pods run", pods=2)
        self.kubelet.servers = "ready"
        self._reach(service, "healthy", "True", "Ready")
        self._apply(changed(service, replicas=0))
        self._reach(changed(service, replicas=0), "healthy_scaled_to_zero", "True", "Ready", pods=0)
        self._apply(service)
        self._wait(service, "True", "Ready", pods=2)
        self.kubelet.servers = "starting"
        rolled = changed(service, serve={**service["spec"]["serve"], "maxBatchSize": 8})
        self._apply(rolled)
        self._reach(rolled, "progressing_rollout", "Unknown", "RollingOut", says="1 of 2 pods run", pods=3)
        self.kubelet.servers = "no image"
        typo = changed(service, runtime={"image": "registry.example.com/trtllm:typo"})
        self._apply(typo)
        self._reach(typo, "degraded_image", "False", "ImagePullFailed", says="trtllm:typo", pods=3)
        self.kubelet.servers = "ready"
        refused = changed(service, serve={**service["spec"]["serve"], "options": {"backend": "pytorch"}})
        self._apply(service)
        self._wait(service, "True", "Ready", pods=2)
        self.operator.stop()  # Events of one object have a limit, which an operator keeps for as long as it lives
        self.operator.start()
        self._apply(refused)
        self._reach(refused, "degraded_refused_but_serving", "False", "InvalidSpec", pods=2)
        self._apply(service)
        self._wait(service, "True", "Ready", pods=2)

    def _troubles(self, engine: Document) -> None:
        """Engines that need a person."""
        gated = changed(engine, name="gated")
        self.kubelet.failures["resolve"] = Failure("ModelAccessDenied", _GATED, times=99)
        self._apply(gated)
        self._reach(gated, "degraded_gated", "False", "ModelAccessDenied", stage=("resolve", "Failed"))
        del self.kubelet.failures["resolve"]
        memory = changed(engine, name="large", build={**engine["spec"]["build"], "maxBatchSize": 512})
        self.kubelet.failures["build"] = Failure("HostOutOfMemory", _MEMORY)
        self._apply(memory)
        self._reach(memory, "degraded_build", "False", "HostOutOfMemory", stage=("build", "Failed"))
        self._reach(self._build_of(memory), "degraded", "False", "HostOutOfMemory", stage=("build", "Failed"))
        refused = changed(engine, name="newer", runtime={"version": "1.3.0rc29", "backend": "tensorrt"})
        self._apply(refused)
        self._reach(refused, "degraded_refused", "False", "BackendNotAvailable")

    def _change_and_delete(self, engine: Document, service: Document) -> None:
        build = self._build_of(engine)
        self.operator.stop()
        newer = changed(service, serve={**service["spec"]["serve"], "maxBatchSize": 4})
        another = changed(engine, build={**engine["spec"]["build"], "maxBatchSize": 32})
        for manifest in (newer, another):
            self._apply(manifest)
            self._record(manifest, "progressing_new_spec_unseen")
        for obj in (build, newer, another):  # once an owner goes, the garbage collector takes its entry away from the build
            self._record(obj, "progressing_deleting", self._go(obj))
        self.operator.start()
        eventually(self.operator.idle, what="looked at what is being deleted")
        for obj in (newer, another, build):
            self._patch(obj, {"metadata": {"finalizers": None}})
        for obj in (newer, another, build):
            eventually(lambda obj=obj: not self._find(obj), what=f"{obj['kind']} gone", seconds=_SECONDS)  # type: ignore[misc]

    # Small parts.

    def _find(self, obj: Document) -> Document | None:
        return self.api.find(obj["kind"], obj["metadata"]["name"], self.namespace)

    def _patch(self, obj: Document, change: Document) -> None:
        self.api.patch(obj["kind"], obj["metadata"]["name"], change, self.namespace)

    def _apply(self, manifest: Document) -> None:
        self.api.apply(manifest, "kubectl")
        self._manifests[manifest["kind"], manifest["metadata"]["name"]] = manifest

    def _build_of(self, engine: Document) -> Document:
        return self.api.get("LLMEngineBuild", (self._find(engine) or {})["status"]["build"], self.namespace)

    def _go(self, obj: Document) -> Document:
        """Delete it in the foreground. A finalizer of somebody else's keeps it there for as long as the test looks.

        Gives it as the API server answered: who asks again may find that the garbage collector is done, and its own finalizer gone.
        """
        self._patch(obj, {"metadata": {"finalizers": [_FINALIZER]}})
        path = BY_KIND[obj["kind"]].path(self.namespace, obj["metadata"]["name"])
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
        left: Document = self.api.request("DELETE", path, options)
        return left

    def _wait(
        self,
        of: Document,
        status: str,
        reason: str,
        *,
        stage: tuple[str, str] | None = None,
        also: tuple[str, str] | None = None,
        says: str = "",
        pods: int | None = None,
    ) -> None:
        """Until it shows this, for its newest spec."""

        def look() -> bool:
            found = self._find(of) or {}
            ready, seen = condition(found, "Ready"), found.get("status") or {}
            return (
                (ready.get("status"), ready.get("reason")) == (status, reason)
                and ready["observedGeneration"] == found["metadata"]["generation"]
                and says in ready["message"]
                and (pods is None or seen.get("replicas") == pods)
                and (also is None or condition(found, also[0]).get("status") == also[1])
                and (stage is None or stage in [(s["name"], s["state"]) for s in seen.get("stages", ())])
            )

        what = f"{of['kind']} {of['metadata']['name']}: Ready={status} {reason} {stage or ''} {says}"
        try:
            eventually(look, what=what, seconds=_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}; its status: {(self._find(of) or {}).get('status')}") from error

    def _reach(self, of: Document, scene: str, status: str, reason: str, **more: Any) -> None:
        self._wait(of, status, reason, **more)
        self._record(of, scene)

    def _record(self, of: Document, scene: str, live: Document | None = None) -> None:
        kind, name = of["kind"], of["metadata"]["name"]
        manifest = self._manifests.get((kind, name))
        live = live or self._find(of)
        assert live is not None, f"{kind} {name} is gone"
        drift = contract.drift(self.api, manifest) if manifest is not None else []
        self.recorded[kind, scene] = Recorded(live, drift, contract.columns(self.api, kind, name, self.namespace))
