"""Cluster, images, operator and sample resources. Every step finds out what is there already, so a second run changes nothing."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.cluster import dockerd, doctor, nodeimage
from tests.cluster.kind import Cluster
from tests.cluster.progress import step
from tests.support import images
from tests.support.kubectl import Kubectl, program

MANIFESTS = images.ROOT / "manifests"
NAMESPACE = "demo"
SYSTEM = "trtllm-system"


@dataclass(frozen=True)
class Target:
    """A cluster, the names that our images have there, and which of them are newer than what runs."""

    kubectl: Kubectl
    renamed: Mapping[str, str] = field(default_factory=dict)
    loaded: Collection[str] = ()


def cluster(name: str, registry: str | None) -> Target:
    """A running cluster with our images."""
    if name == "current":
        kubectl = Kubectl(program(built=False))
        kubectl("version", timeout=20)  # says what is wrong before anything is built
        images.build_all()
        if registry is None:
            return Target(kubectl)
        return Target(kubectl, images.push_all(registry))
    doctor.require(doctor.cluster)
    made = Cluster(name)
    if made.running() or not nodeimage.is_built():
        made.up()
        return Target(Kubectl(program(built=True), made.kubeconfig), loaded=made.load(images.build_all()))
    # A starting cluster mostly waits, so images are made meanwhile. (Not while Kubernetes is compiled: that needs the machine.)
    dockerd.ensure()
    with ThreadPoolExecutor(1) as aside:
        building = aside.submit(images.build_all)
        made.up()
        return Target(Kubectl(program(built=True), made.kubeconfig), loaded=made.load(building.result()))


def operator(target: Target) -> None:
    """Resource definitions, access rights, the operator."""
    kubectl = target.kubectl
    with step("installing the operator"):
        _apply(kubectl, MANIFESTS / "overlays" / "demo", target.renamed)
        if images.OPERATOR in target.loaded:
            kubectl.within(SYSTEM)("rollout", "restart", "deployment/trtllm-operator")  # the image's name is the same, its content is not
        kubectl(
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "crd/llmengines.trtllm.dev",
            "crd/llmservices.trtllm.dev",
            "crd/llmenginebuilds.trtllm.dev",
        )
        kubectl.within(SYSTEM)("rollout", "status", "deployment/trtllm-operator", "--timeout=180s", timeout=200)


def samples(target: Target) -> None:
    """The model hub of the demo, then an LLMEngine and an LLMService."""
    hub(target)
    with step("applying the sample LLMEngine and LLMService"):
        _apply(target.kubectl, MANIFESTS / "demo", target.renamed)


def hub(target: Target) -> None:
    """The hub alone. A resource that finds none would wait and go on by itself, but a demo need not show that."""
    with step("starting the demo's model hub"):
        _apply(target.kubectl, MANIFESTS / "demo", target.renamed, kinds=("Namespace", "Deployment", "Service"))
        target.kubectl.within(NAMESPACE)("rollout", "status", "deployment/hub", "--timeout=120s", timeout=150)


def _apply(kubectl: Kubectl, folder: Path, renamed: Mapping[str, str], kinds: Collection[str] | None = None) -> None:
    text = kubectl("kustomize", str(folder))
    if kinds is not None:
        text = yaml.safe_dump_all([item for item in yaml.safe_load_all(text) if item["kind"] in kinds])
    for name, new in renamed.items():
        text = text.replace(name, new)
    kubectl("apply", "--server-side", "--field-manager=demo", "--filename=-", stdin=text)


def state(kubectl: Kubectl) -> tuple[dict[str, object], dict[str, object]]:
    """The sample LLMEngine and LLMService as they are now."""
    items = json.loads(kubectl.within(NAMESPACE)("get", "llmengine,llmservice", "--output=json"))["items"]
    by_kind = {item["kind"]: item for item in items}
    return by_kind.get("LLMEngine", {}), by_kind.get("LLMService", {})
