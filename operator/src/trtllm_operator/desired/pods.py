"""What all our pods have in common: the restricted security profile, writable places, environment, GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtllm_operator.api.common import ImageSettings, Placement, PodSecurity
from trtllm_operator.api.llmengine import Accelerator
from trtllm_operator.desired import names
from trtllm_operator.desired.config import Config

GPU_PRODUCT_LABEL = "nvidia.com/gpu.product"


def literal(text: str) -> str:
    """Text as a value that Kubernetes hands on unchanged: it would expand `$(NAME)` in command, args and env."""
    return text.replace("$", "$$")


def environment(extra: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Environment of every container that runs TensorRT-LLM: offline, silent, with all caches in a writable place.

    Telemetry is on by default from 1.3 on; older versions ignore the variables (usage_lib).
    """
    home = f"{names.SCRATCH}/home"
    cache = f"{names.SCRATCH}/cache"
    values = {
        "HOME": home,
        "XDG_CACHE_HOME": cache,
        "HF_HOME": f"{cache}/huggingface",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TELEMETRY_DISABLED": "1",
        "TRTLLM_NO_USAGE_STATS": "1",
        "CUDA_CACHE_PATH": f"{cache}/cuda",
        "TORCHINDUCTOR_CACHE_DIR": f"{cache}/torchinductor",
        "TRITON_CACHE_DIR": f"{cache}/triton",
        "PYTHONUNBUFFERED": "1",
        **(extra or {}),
    }
    return [{"name": name, "value": literal(value)} for name, value in values.items()]


def pod_security_context(security: PodSecurity) -> dict[str, Any]:
    """Pod-level part of the `restricted` profile, less what was opted out of."""
    user = 0 if security.run_as_root else security.run_as_user
    return {
        "runAsNonRoot": not security.run_as_root,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",  # a full chown of a large volume takes minutes
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security_context(security: PodSecurity) -> dict[str, Any]:
    """Container-level part of the `restricted` profile."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": not security.writable_root_filesystem,
        "capabilities": {"drop": ["ALL"]},
    }


TOOLS_SECURITY = PodSecurity()


def scratch_volumes() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes and mounts for what programs write beside their results: caches, HOME, /tmp (Open MPI needs it)."""
    volumes = [{"name": "scratch", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    mounts = [{"name": "scratch", "mountPath": names.SCRATCH}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108  a path in the container
    return volumes, mounts


def shared_memory(gpus: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A larger /dev/shm: Kubernetes gives 64 MiB, on which NCCL and MPI fail with several GPUs (docs: --shm-size=1g; Triton: 2g)."""
    size = f"{max(1, min(16, 2 * gpus))}Gi"
    return [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}}], [{"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108


def tools_init_container(config: Config) -> dict[str, Any]:
    """Copies the stage program into the pod, so that NVIDIA's image runs unchanged."""
    return {
        "name": "tools",
        "image": config.tools_image,
        "imagePullPolicy": config.tools_pull_policy,
        "command": ["python3", names.TOOLS_PROGRAM, "install", names.TOOLS],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": container_security_context(TOOLS_SECURITY),
        "volumeMounts": [{"name": "tools", "mountPath": names.TOOLS}],
    }


def resources(
    placement: Placement, defaults: Mapping[str, Mapping[str, str]], gpu_resource: str | None = None, gpus: int = 0
) -> dict[str, Any]:
    """Resources of a container. GPUs are limits; the request follows by itself."""
    given = placement.resources
    requests = {**defaults.get("requests", {}), **((given.requests if given else None) or {})}
    limits = {**defaults.get("limits", {}), **((given.limits if given else None) or {})}
    if gpu_resource and gpus:
        limits[gpu_resource] = str(gpus)
        requests[gpu_resource] = str(gpus)
    return {key: dict(sorted(value.items())) for key, value in (("requests", requests), ("limits", limits)) if value}


def node_selector(placement: Placement, accelerator: Accelerator) -> dict[str, str]:
    """Nodes for pods of this accelerator. Pods without GPUs carry it as well where their volume must be made beside the GPUs."""
    product = {GPU_PRODUCT_LABEL: accelerator.product} if accelerator.product else {}
    return {**product, **(placement.node_selector or {})}


def tolerations(placement: Placement, gpu_resource: str | None) -> list[dict[str, Any]]:
    """Given tolerations, and the one that GPU nodes usually need."""
    given = [toleration.dump() for toleration in placement.tolerations or ()]
    gpu = {"key": gpu_resource, "operator": "Exists", "effect": "NoSchedule"}
    return [*given, *([gpu] if gpu_resource and gpu not in given else [])]


def pod_spec(
    *,
    containers: list[dict[str, Any]],
    volumes: list[dict[str, Any]],
    security: PodSecurity,
    placement: Placement,
    accelerator: Accelerator,
    images: ImageSettings | None = None,
    init_containers: list[dict[str, Any]] | None = None,
    restart_policy: str | None = None,
    grace_period: int | None = None,
) -> dict[str, Any]:
    """A pod of ours. It gets no service account token: nothing in it talks to the API server."""
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security_context(security),
        "containers": containers,
        "volumes": volumes,
        "tolerations": tolerations(placement, accelerator.resource_name),
    }
    if init_containers:
        spec["initContainers"] = init_containers
    if restart_policy:
        spec["restartPolicy"] = restart_policy
    if grace_period is not None:
        spec["terminationGracePeriodSeconds"] = grace_period
    if selector := node_selector(placement, accelerator):
        spec["nodeSelector"] = selector
    if images and images.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": ref.name} for ref in images.image_pull_secrets]
    if placement.priority_class_name:
        spec["priorityClassName"] = placement.priority_class_name
    if placement.runtime_class_name:
        spec["runtimeClassName"] = placement.runtime_class_name
    return spec
