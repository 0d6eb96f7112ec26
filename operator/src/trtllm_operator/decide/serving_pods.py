"""What keeps the pods of an LLMService from answering: before they run as for any pod, and afterwards from how trtllm-serve ended.

A server has no stage program beside it, so what is known is what Kubernetes keeps: exit code, reason, and the last lines of the log
(terminationMessagePolicy FallbackToLogsOnError). Texts: operators' reports and sources of TensorRT-LLM 0.9 to 1.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from trtllm_operator.api.reasons import retry_of
from trtllm_operator.decide.input import Hints, Obj
from trtllm_operator.decide.podstate import Problem, memory_limit, pod_problem, problem
from trtllm_operator.decide.rollout import alive
from trtllm_operator.desired.deployment import template_hash

_OPTIONS = "Correct serve or serve.options of the LLMService, or what the version accepts."
_MEMORY = (
    "Lower serve.maxBatchSize, serve.maxNumTokens or serve.kvCacheFreeGpuMemoryFraction, or raise parallelism.tensor of the LLMEngine."
)

# Decisive texts first: a failure often draws others behind it. (pattern, reason, remedy where the reason's own is about builds)
_TEXTS: tuple[tuple[re.Pattern[str], str, str | None], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), reason, remedy)
    for pattern, reason, remedy in (
        (r"Unknown architecture for AutoModelForCausalLM|Unsupported model architecture", "UnsupportedArchitecture", None),
        (r"generated on an incompatible device|expecting compute \d", "GPUMismatch", None),
        (r"not compatible with this version of TensorRT|expecting library version", "EngineVersionMismatch", None),
        (r"Failed to deserialize cuda engine|engine->deserialize", "EngineVersionMismatch", None),
        (r"MPI size \d+ != TP size|mpiSize == tp|Engine world size .* != Runtime world size", "ParallelismMismatch", None),
        (r"uncorrectable ECC error|GPU is lost|GPU has fallen off the bus", "GPUFailed", None),
        (r"Only \d+ GPUs are available, but|Number of GPUs per node \d+ must be at least|invalid device ordinal", "InsufficientGPUs", None),
        (r"No GPU devices found on the node|no CUDA-capable device", "GPUNotFound", None),
        (r"not enough slots available|MPI_ERR_UNKNOWN|ORTE was unable to reliably start", "MPISpawnFailed", None),
        (r"NCCL error|/dev/shm/nccl|mm_iface failed to allocate", "NCCLInitFailed", None),
        (
            r"Check kv_cache_config\.max_tokens|GPU cache quota is too small",
            "BadOptions",
            "Set kv_cache_config.max_tokens in serve.options.",
        ),
        (r"OutOfMemoryError|CUDA(?: runtime)? error.*out of memory|CUDA out of memory|insufficient GPU memory", "GPUOutOfMemory", _MEMORY),
        (r"No such option|Invalid value for|ValidationError|validation error for", "BadOptions", _OPTIONS),
        (r"No space left on device", "DiskFull", "The node's disk or /dev/shm is full; free space on the node."),
    )
)

_PATIENCE = 2
"""Restarts after which a failure that might have passed needs a person. A dying pod can hold GPU memory for a moment."""


def pods_problem(pods: Sequence[Obj], revision: str, nodes: Sequence[Obj] | None, hints: Hints, resource: str) -> Problem | None:
    """The first pod with a problem; those of the wanted revision come first, and what needs a person before what may pass."""
    living = sorted(alive(pods), key=lambda pod: template_hash(pod) != revision)
    found = [p for pod in living if (p := server_problem(pod, nodes, hints, resource)) is not None]
    return next((p for p in found if p.stalled), found[0] if found else None)


def server_problem(pod: Obj, nodes: Sequence[Obj] | None, hints: Hints, resource: str) -> Problem | None:
    """Why one pod does not answer; None where it does, or is simply starting."""
    found = pod_problem(pod, nodes, hints, resource)
    if found is not None:
        return found
    for container in (pod.get("status") or {}).get("containerStatuses", ()):
        if not container.get("ready") and (ended := _last_end(container)) is not None:
            return _why_ended(pod, container, ended)
    return None


def _last_end(container: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How it ended last, if it did."""
    for state in (container.get("state") or {}, container.get("lastState") or {}):
        if ended := state.get("terminated"):
            return dict(ended)
    return None


def _why_ended(pod: Obj, container: Mapping[str, Any], ended: Mapping[str, Any]) -> Problem:
    code, text = int(ended.get("exitCode", 0)), str(ended.get("message", ""))
    tired = int(container.get("restartCount", 0)) >= _PATIENCE
    what = f"container {container.get('name')} of pod {pod['metadata']['name']}"
    if ended.get("reason") == "OOMKilled":
        limit = memory_limit(pod, container.get("name"))
        said = f"{what} was killed at its memory limit{f' of {limit}' if limit else ''}"
        return Problem("HostOutOfMemory", f"{said}. Raise placement.resources.limits.memory of the LLMService.", tired)
    for pattern, reason, remedy in _TEXTS:
        if match := pattern.search(text):
            said = f"{what} ended with exit code {code}: {_line(text, match.start())}"
            stalled = tired or (retry_of(reason) == "never" and reason != "GPUOutOfMemory")
            return problem(reason, said, stalled=stalled) if remedy is None else Problem(reason, f"{said}. {remedy}", stalled)
    tail = " | ".join(line.strip() for line in text.strip().splitlines()[-3:])[:512]
    return problem("InternalError", f"{what} ended with exit code {code}{f': {tail}' if tail else ''}", stalled=tired)


def _line(text: str, position: int) -> str:
    """The line of the log around a position."""
    start, end = text.rfind("\n", 0, position) + 1, text.find("\n", position)
    return text[start : end if end >= 0 else len(text)].strip().rstrip(".")[:512]
