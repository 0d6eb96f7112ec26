"""Which GPUs a container sees, and whether they are what the build is for."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trtllm_operator.builder.report import Failure

QUERY = (
    "nvidia-smi",
    "--query-gpu=index,name,uuid,compute_cap,memory.total,memory.free,driver_version,mig.mode.current",
    "--format=csv,noheader,nounits",
)
_FIELDS = 8


@dataclass(frozen=True)
class GPU:
    """A GPU as the driver describes it. Memory in MiB. `mig`: Enabled, Disabled, or empty where the GPU has no such mode."""

    index: int
    name: str
    uuid: str
    compute_capability: str
    memory_mib: int
    free_mib: int
    driver: str
    mig: str

    def fact(self) -> dict[str, Any]:
        """As in a report."""
        return {
            "name": self.name,
            "computeCapability": self.compute_capability,
            "memoryMiB": self.memory_mib,
            "driver": self.driver,
            "mig": self.mig,
        }


def parse(lines: Sequence[str]) -> list[GPU]:
    """GPUs from the output of `QUERY`; other lines, such as warnings, are skipped."""
    found = []
    for row in csv.reader(lines, skipinitialspace=True):
        cells = [cell.strip() for cell in row]
        if len(cells) != _FIELDS or not cells[0].isdigit() or not re.fullmatch(r"\d+\.\d+", cells[3]):
            continue
        mig = cells[7] if cells[7] in {"Enabled", "Disabled"} else ""
        found.append(GPU(int(cells[0]), cells[1], cells[2], cells[3], _number(cells[4]), _number(cells[5]), cells[6], mig))
    return found


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0  # "[N/A]", for example for memory that a GPU shares with the host


def check(gpus: Sequence[GPU], expect: Mapping[str, Any]) -> None:
    """Compare with `expect` of a request.

    Raises:
        Failure: GPUNotFound, GPUMismatch.
    """
    wanted = int(expect.get("gpus", 1))
    if not gpus:
        raise Failure("GPUNotFound", f"the container sees no GPU, and {wanted} are needed. Check the device plugin and runtimeClassName")
    sliced = any(gpu.mig == "Enabled" for gpu in gpus)  # then the driver lists GPUs, and the container has slices of them
    if len(gpus) < wanted and not sliced:
        raise Failure("GPUNotFound", f"the container sees {len(gpus)} of {wanted} GPUs. Check the device plugin and runtimeClassName")
    capability = expect.get("computeCapability") or gpus[0].compute_capability
    for gpu in gpus:
        if gpu.compute_capability != capability:
            raise Failure(
                "GPUMismatch",
                f"GPU {gpu.index} of the node is {gpu.name} with compute capability {gpu.compute_capability}, and the build is for {capability}. "
                "Correct accelerator.product or accelerator.computeCapability, or the node's labels",
            )
