"""GPUs without a GPU: what the device plugin and GPU feature discovery would tell the API server about a node."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

RESOURCE = "nvidia.com/gpu"


@dataclass(frozen=True)
class Gpus:
    """The GPUs of one node.

    Attributes:
        count: 0 takes resource and labels away.
        product: as GPU feature discovery writes it, e.g. `NVIDIA-H100-80GB-HBM3`.
        compute_capability: `MAJOR.MINOR`.
        memory: MiB of one GPU.
        taint: whether only pods that tolerate `nvidia.com/gpu` are scheduled there.
    """

    count: int = 8
    product: str = "NVIDIA-H100-80GB-HBM3"
    compute_capability: str = "9.0"
    memory: int = 81559
    taint: bool = False
    resource: str = field(default=RESOURCE)

    def __post_init__(self) -> None:
        """Refuse what no label could say."""
        major, dot, minor = self.compute_capability.partition(".")
        if not (dot and major.isdigit() and minor.isdigit()):
            raise ValueError(f"compute capability {self.compute_capability!r}: give MAJOR.MINOR, e.g. 9.0")
        if self.count < 0 or self.memory <= 0:
            raise ValueError("the number of GPUs can't be negative, and their memory must be positive")

    def labels(self) -> dict[str, str | None]:
        """The labels of GPU feature discovery; None removes one."""
        major, _, minor = self.compute_capability.partition(".")
        values = {
            "present": "true",
            "product": self.product,
            "count": str(self.count),
            "memory": str(self.memory),
            "compute.major": major,
            "compute.minor": minor,
        }
        return {f"nvidia.com/gpu.{name}": value if self.count else None for name, value in values.items()}

    def node_patch(self) -> str:
        """A merge patch of the node: labels and, if wanted, the taint (the node's other taints go: kind sets none)."""
        taints = [{"key": self.resource, "value": "present", "effect": "NoSchedule"}] if self.taint and self.count else []
        return json.dumps({"metadata": {"labels": self.labels()}, "spec": {"taints": taints}})

    def status_patch(self) -> str:
        """A merge patch of the node's subresource `status`: capacity and allocatable, which the scheduler accounts with."""
        amount = {self.resource: str(self.count) if self.count else None}
        return json.dumps({"status": {"capacity": amount, "allocatable": amount}})
