"""What the operator's installation decides, as plain values. Read from the environment in `runtime/settings.py` only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Settings that shape objects."""

    tools_image: str
    """Image with the stage program and huggingface_hub; runs resolve, fetch and publish, and is the init container of the other stages."""

    tools_pull_policy: str = "IfNotPresent"

    runtime_repository: str = "nvcr.io/nvidia/tensorrt-llm/release"
    """Repository of the runtime image where a resource names none; the tag is runtime.version (NVIDIA's naming since 0.20)."""
