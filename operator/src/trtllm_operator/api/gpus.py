"""Compute capabilities by GPU product, as GPU feature discovery names products in the node label nvidia.com/gpu.product.

Source of capabilities: https://developer.nvidia.com/cuda-gpus. A product is matched by its model word, because labels carry memory and
form (`NVIDIA-H100-80GB-HBM3`, `NVIDIA-H100-PCIe`) and MIG and time-slicing suffixes.
"""

from __future__ import annotations

import re

_CAPABILITIES: dict[str, str] = {
    "A10": "8.6",
    "A16": "8.6",
    "A2": "8.6",
    "A30": "8.0",
    "A40": "8.6",
    "A100": "8.0",
    "B200": "10.0",
    "B300": "10.3",
    "GB10": "12.1",
    "GB200": "10.0",
    "GB300": "10.3",
    "GH200": "9.0",
    "H100": "9.0",
    "H200": "9.0",
    "H20": "9.0",
    "H800": "9.0",
    "L4": "8.9",
    "L20": "8.9",
    "L40": "8.9",
    "L40S": "8.9",
    "A800": "8.0",
}


def compute_capability(product: str) -> str | None:
    """`9.0` for `NVIDIA-H100-80GB-HBM3`; None where the product is not in the table."""
    for word in re.split(r"[-_ ]", product.upper()):
        if word in _CAPABILITIES:
            return _CAPABILITIES[word]
    return None
