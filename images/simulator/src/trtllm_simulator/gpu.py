"""The GPUs that the simulator claims to have: told by the environment that is baked into its image."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass

_DRIVER = "590.44.01"


@dataclass(frozen=True)
class Gpu:
    """One GPU, as nvidia-smi knows it."""

    index: int
    name: str
    uuid: str
    compute_capability: str
    memory_mib: int
    driver: str
    mig: str

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability as a pair."""
        major, minor = self.compute_capability.split(".")
        return int(major), int(minor)


def visible() -> list[Gpu]:
    """GPUs that this process may use. `NVIDIA_VISIBLE_DEVICES`, which a device plugin sets, and `CUDA_VISIBLE_DEVICES` narrow them down."""
    env = os.environ
    total = int(env.get("SIMULATOR_GPUS", "8"))
    name = env.get("SIMULATOR_GPU", "NVIDIA H100 80GB HBM3")
    gpus = [
        Gpu(
            index=index,
            name=name,
            uuid=f"GPU-{uuid.uuid5(uuid.NAMESPACE_DNS, f'{name}.{index}.simulator')}",
            compute_capability=env.get("SIMULATOR_COMPUTE_CAPABILITY", "9.0"),
            memory_mib=int(env.get("SIMULATOR_GPU_MEMORY", "81559")),
            driver=env.get("SIMULATOR_DRIVER", _DRIVER),
            mig=env.get("SIMULATOR_MIG", "Disabled"),
        )
        for index in range(total)
    ]
    for variable in ("NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"):
        gpus = _narrow(gpus, env.get(variable))
    return gpus


def _narrow(gpus: list[Gpu], wanted: str | None) -> list[Gpu]:
    if wanted is None or wanted == "all":
        return gpus
    if wanted in {"", "void", "none", "-1"}:
        return []
    names = [name.strip() for name in wanted.split(",")]
    return [gpu for gpu in gpus if str(gpu.index) in names or gpu.uuid in names]
