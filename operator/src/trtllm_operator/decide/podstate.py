"""What keeps a pod from running, or why it ended: from the pod's own status, the nodes, and hints. One place for jobs and services."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trtllm_operator.api.reasons import FAILURES, remedy_of
from trtllm_operator.decide.input import Hints, Obj
from trtllm_operator.desired.pods import GPU_PRODUCT_LABEL


@dataclass(frozen=True)
class Problem:
    """`stalled`: a person must act, though it goes on by itself when the cause is gone."""

    reason: str
    message: str
    stalled: bool = False


def problem(reason: str, what: str, *, stalled: bool = False) -> Problem:
    """A problem with the remedy of its reason in the message."""
    return Problem(reason, f"{what.rstrip('. ')}. {remedy_of(reason)}", stalled)


def _name(pod: Obj) -> str:
    return str(pod["metadata"]["name"])


def _condition(pod: Obj, kind: str) -> Mapping[str, Any]:
    return next((c for c in pod.get("status", {}).get("conditions", ()) if c.get("type") == kind), {})


def _containers(pod: Obj) -> list[Mapping[str, Any]]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def gpus_of(pod: Obj, resource: str) -> int:
    """GPUs that a pod asks for."""
    return sum(int(c.get("resources", {}).get("limits", {}).get(resource, 0)) for c in pod.get("spec", {}).get("containers", ()))


def gpu_problem(selector: Mapping[str, str], gpus: int, resource: str, nodes: Iterable[Obj], what: str) -> Problem | None:
    """Can any node that there is ever hold such a pod? None: yes, if it were free."""
    every = list(nodes)
    product = selector.get(GPU_PRODUCT_LABEL)
    products = sorted({p for node in every if (p := node["metadata"].get("labels", {}).get(GPU_PRODUCT_LABEL))})
    if product is not None and product not in products:
        have = f"the nodes have {', '.join(products)}" if products else "no node has the label nvidia.com/gpu.product"
        return problem("GPUProductNotFound", f"{what} needs a node with GPU product {product}, and {have}", stalled=True)
    fitting = [node for node in every if all(node["metadata"].get("labels", {}).get(k) == v for k, v in selector.items())]
    if every and not fitting:
        return None  # other labels are wanted, and the scheduler's own words say more about that
    most = max((int(node.get("status", {}).get("allocatable", {}).get(resource, 0)) for node in fitting), default=0)
    if gpus > most:
        return problem(
            "InsufficientGPUs", f"{what} needs {gpus} of {resource} on one node, and the largest matching node has {most}", stalled=True
        )
    return None


def _scheduling(pod: Obj, nodes: Sequence[Obj] | None, resource: str) -> Problem | None:
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") != "False":
        return None
    message = str(scheduled.get("message", ""))
    what = f"pod {_name(pod)}"
    gpus = gpus_of(pod, resource)
    selector = pod.get("spec", {}).get("nodeSelector", {}) or {}
    if nodes is not None and (gpus or GPU_PRODUCT_LABEL in selector):
        found = gpu_problem(selector, gpus, resource, nodes, what)
        if found is not None:
            return found
    if match := re.search(r'persistentvolumeclaim "([^"]+)" not found', message):
        return problem("SourceClaimNotFound", f"{what} waits for claim {match[1]}, which does not exist")
    if "unbound" in message and "PersistentVolumeClaim" in message:
        return problem("WaitingForVolume", f"{what} waits for its volume: {message}")
    if f"Insufficient {resource}" in message:
        return problem("WaitingForGPU", f"{what} waits for {gpus} of {resource}: {message}")
    return problem("WaitingForPod", f"{what} can't be scheduled: {message}")


_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}


def _waiting(pod: Obj) -> Problem | None:
    for container in _containers(pod):
        waiting = container.get("state", {}).get("waiting") or {}
        reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
        what = f"container {container.get('name')} of pod {_name(pod)}"
        if reason in _PULL:
            return problem("ImagePullFailed", f"{what} can't get image {container.get('image')}: {message or reason}", stalled=True)
        if reason == "CreateContainerConfigError":
            if "secret" in message.lower() or "key" in message.lower():
                return problem("SecretNotFound", f"{what} waits: {message}")
            return problem("WaitingForPod", f"{what} can't be made: {message}")
        if reason in ("CreateContainerError", "RunContainerError"):
            return problem("WaitingForPod", f"{what} can't be started: {message}", stalled=True)
    return None


def pod_problem(pod: Obj, nodes: Sequence[Obj] | None, hints: Hints, resource: str = "nvidia.com/gpu") -> Problem | None:
    """What a pod that is not done waits for; None where it runs or simply starts."""
    if pod.get("status", {}).get("phase", "Pending") != "Pending":
        return None
    found = _scheduling(pod, nodes, resource) or _waiting(pod)
    if found is None and (warning := hints.warnings.get(pod["metadata"].get("uid", ""))):
        return problem("WaitingForPod", f"pod {_name(pod)}: {warning}")
    return found


@dataclass(frozen=True)
class Report:
    """The stage program's last word, see operator/docs/stage-program.md."""

    ok: bool
    facts: Mapping[str, Any]
    reason: str = ""
    message: str = ""


def report(pod: Obj) -> Report | None:
    """The report in a pod's termination message, where it ended with one."""
    for container in pod.get("status", {}).get("containerStatuses", ()):
        text = str((container.get("state", {}).get("terminated") or {}).get("message", "")).strip()
        if not text.startswith("{"):
            continue
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(said, dict) and isinstance(said.get("ok"), bool):
            facts = said.get("facts")
            return Report(said["ok"], facts if isinstance(facts, dict) else {}, str(said.get("reason", "")), str(said.get("message", "")))
    return None


def memory_limit(pod: Obj, name: object) -> str | None:
    """The memory limit of a pod's container of this name, if it has one."""
    spec = pod.get("spec") or {}
    for container in (*spec.get("initContainers", ()), *spec.get("containers", ())):
        if container.get("name") == name and (limit := ((container.get("resources") or {}).get("limits") or {}).get("memory")):
            return str(limit)
    return None


def failure(pod: Obj) -> Problem:
    """Why a pod failed: what it says itself, else what Kubernetes says."""
    if pod.get("status", {}).get("reason") == "DeadlineExceeded":
        # Before its report: the stage program takes the end that comes from outside for an eviction.
        return problem("DeadlineExceeded", f"pod {_name(pod)} ran longer than its activeDeadline")
    said = report(pod)
    for container in _containers(pod):
        ended = container.get("state", {}).get("terminated") or {}
        if ended.get("reason") == "OOMKilled":
            limit = memory_limit(pod, container.get("name"))
            return problem(
                "HostOutOfMemory", f"container {container.get('name')} of pod {_name(pod)} was killed at its memory limit of {limit}"
            )
    if said is not None and not said.ok:
        # Not all images are ours. A reason that is none would make the API server refuse the status; one of success would be a lie.
        if said.reason not in FAILURES:
            return problem("InternalError", f"pod {_name(pod)} failed: {said.reason[:64]}: {said.message}")
        if not said.message:
            return problem(said.reason, f"pod {_name(pod)} failed")
        return Problem(said.reason, f"pod {_name(pod)}: {said.message}")
    if _condition(pod, "DisruptionTarget").get("status") == "True" or pod.get("status", {}).get("reason") in (
        "Evicted",
        "NodeShutdown",
        "Preempting",
    ):
        return problem(
            "Evicted",
            f"pod {_name(pod)} was taken away: {pod.get('status', {}).get('message') or _condition(pod, 'DisruptionTarget').get('message', '')}",
        )
    for container in _containers(pod):
        ended = container.get("state", {}).get("terminated") or {}
        if (ended.get("exitCode"), ended.get("reason")) == (137, "Error") and (limit := memory_limit(pod, container.get("name"))):
            # The runtime hears of a container's end and of the kernel's reason for it on two ways, and the latter can be late: of 40
            # containers that ran out of memory on a busy node, containerd 1.6 told 39 as OOMKilled. Nobody else kills a stage and leaves
            # its pod without a disruption.
            return problem(
                "HostOutOfMemory",
                f"container {container.get('name')} of pod {_name(pod)} was killed (exit code 137), as happens at its memory limit of {limit}",
            )
        if ended.get("exitCode"):
            tail = str(ended.get("message", "")).strip().splitlines()[-3:]
            said_last = f": {' | '.join(tail)}" if tail else ""
            return problem(
                "InternalError",
                f"container {container.get('name')} of pod {_name(pod)} ended with exit code {ended['exitCode']}{said_last}",
            )
    return problem("InternalError", f"pod {_name(pod)} failed without saying why")
