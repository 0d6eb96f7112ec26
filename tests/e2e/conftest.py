"""One cluster for the whole tier, with the operator and the demo's model hub; a namespace for each test. All of it is removed at the end.

For a person who wants to look: `TRTLLM_E2E_KEEP=1` leaves the cluster up, `TRTLLM_E2E_KEEP=all` the namespaces as well; `TRTLLM_E2E_CLUSTER` names another
cluster. With `TRTLLM_E2E_DISTURB=1` somebody kills the operator that leads, again and again while the tests run (tests.e2e.disturb).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.cluster import commands, doctor
from tests.cluster.gpus import Gpus
from tests.cluster.kind import Cluster
from tests.demo import install
from tests.e2e.disturb import Disturber
from tests.support import images
from tests.support.kubectl import Kubectl, condition, program

HUB = "http://hub.demo.svc"
PRODUCT = "NVIDIA-H100-80GB-HBM3"
GPUS = 16  # enough for a test while pods of the one before it still stop
DISTURBED = bool(os.environ.get("TRTLLM_E2E_DISTURB"))
PATIENCE = 2 if DISTURBED else 1  # while nobody leads, everything waits
SMALL = {"requests": {"cpu": "20m", "memory": "128Mi"}}  # many pods at once on a small machine


@pytest.fixture(scope="session")
def cluster() -> Iterator[Kubectl]:
    """A cluster with the operator, and the hub in namespace `demo`."""
    doctor.require(doctor.cluster)
    target = Cluster(os.environ.get("TRTLLM_E2E_CLUSTER", "trtllm-e2e"))
    target.up(Gpus(count=GPUS, product=PRODUCT, compute_capability="9.0"))
    kubectl = Kubectl(program(built=True), target.kubeconfig)
    try:
        everything = install.Target(kubectl, loaded=target.load(images.build_all()))
        install.operator(everything)
        install.hub(everything)
        if DISTURBED:
            with Disturber(kubectl.within(install.SYSTEM)) as disturber:
                yield kubectl
            print(f"\n{disturber}")  # shown with -s, and where something failed
            assert disturber.killed, "the tests were to be disturbed, and nobody was killed"
        else:
            yield kubectl
    finally:
        if not os.environ.get("TRTLLM_E2E_KEEP"):
            commands.remove([target.name])


def engine(name: str, repo: str = "demo/tiny-llama", version: str = "1.2.1", **spec: Any) -> dict[str, Any]:
    """An LLMEngine of a model of the demo's hub, built and run by the simulator."""
    hub = {"repo": repo, "endpoint": HUB, **spec.pop("hub", {})}
    runtime = {"version": version, "image": f"trtllm-operator/simulator:{version}", **spec.pop("runtime", {})}
    jobs = {stage: {"resources": SMALL} for stage in ("fetch", "build", "verify")}
    base = {"source": {"huggingFace": hub}, "runtime": runtime, "accelerator": {"product": PRODUCT}, "jobs": jobs}
    return {"apiVersion": "trtllm.dev/v1alpha1", "kind": "LLMEngine", "metadata": {"name": name}, "spec": {**base, **spec}}


def service(name: str, engine_name: str | None = None, **spec: Any) -> dict[str, Any]:
    """An LLMService of an engine."""
    return {
        "apiVersion": "trtllm.dev/v1alpha1",
        "kind": "LLMService",
        "metadata": {"name": name},
        "spec": {"engineRef": {"name": engine_name or name}, "placement": {"resources": SMALL}, **spec},
    }


@dataclass(frozen=True)
class Space:
    """A namespace of one test."""

    kubectl: Kubectl

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply as a user does."""
        self.kubectl.apply(yaml.safe_dump_all(list(objects)))

    def ready(self, kind: str, name: str, seconds: float = 240) -> dict[str, Any]:
        """Wait for Ready=True of this generation."""

        def look() -> dict[str, Any] | None:
            obj = self.kubectl.get(kind, name)
            found = condition(obj, "Ready")
            current = found.get("observedGeneration") == obj.get("metadata", {}).get("generation")
            return obj if found.get("status") == "True" and current else None

        try:
            return self.kubectl.wait(f"{kind} {name} Ready", look, seconds * PATIENCE)
        except AssertionError as error:
            raise AssertionError(
                f"{error}; it says {condition(self.kubectl.get(kind, name), 'Ready')}\n{self.kubectl('get', 'pods,jobs')}"
            ) from None

    def reason(self, kind: str, name: str, reason: str, seconds: float = 120) -> dict[str, Any]:
        """Wait for a reason of Ready. Gives the condition."""
        try:
            return self.kubectl.wait(
                f"{kind} {name} {reason}",
                lambda: found if (found := dict(condition(self.kubectl.get(kind, name), "Ready"))).get("reason") == reason else None,
                seconds * PATIENCE,
            )
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {condition(self.kubectl.get(kind, name), 'Ready')}") from None

    def jobs(self, stage: str) -> list[dict[str, Any]]:
        """Jobs of a stage."""
        items: list[dict[str, Any]] = self.kubectl.get("jobs", None, f"--selector=trtllm.dev/stage={stage}")["items"]
        return items


@contextmanager
def namespace(cluster: Kubectl) -> Iterator[Space]:
    """A namespace that enforces Pod Security `restricted`, removed at the end."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    cluster("create", "namespace", name)
    cluster("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    try:
        yield Space(cluster.within(name))
    finally:
        if os.environ.get("TRTLLM_E2E_KEEP") != "all":
            cluster("delete", "namespace", name, "--wait=false")


@pytest.fixture
def space(cluster: Kubectl) -> Iterator[Space]:
    """A namespace of the test's own."""
    with namespace(cluster) as made:
        yield made
