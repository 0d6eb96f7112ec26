"""safetensors files, read into float32 and written in any of TensorRT-LLM's number formats. numpy has no bfloat16, hence the bits by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import TensorSpec, deserialize, serialize

Array = npt.NDArray[np.float32]

DTYPES = ("float16", "bfloat16", "float32")


def _bfloat16(values: Array) -> npt.NDArray[np.uint16]:
    """Rounded to the nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _to_float32(data: bytes | bytearray, dtype: str, shape: list[int]) -> Array:
    if dtype == "BF16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    kinds: dict[str, npt.DTypeLike] = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
    if dtype not in kinds:
        raise NotImplementedError(
            f"the simulator does not compute with tensors of type {dtype}: use a checkpoint in float16, bfloat16 or float32"
        )
    return np.frombuffer(data, kinds[dtype]).reshape(shape).astype(np.float32)


def loads(content: bytes) -> dict[str, Array]:
    """Tensors of a safetensors file.

    Raises:
        safetensors.SafetensorError: it is none, or damaged.
        NotImplementedError: a number format that the simulator doesn't compute with.
    """
    return {name: _to_float32(entry["data"], entry["dtype"], entry["shape"]) for name, entry in deserialize(content)}  # type: ignore[no-untyped-call]


def dumps(tensors: Mapping[str, Array], dtype: str, metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file with all tensors in `dtype`, one of DTYPES."""
    values: dict[str, npt.NDArray[Any]] = {}
    for name, tensor in tensors.items():
        values[name] = _bfloat16(tensor) if dtype == "bfloat16" else np.ascontiguousarray(tensor, dtype)
    specs = {
        name: TensorSpec(dtype=dtype, shape=list(value.shape), data_ptr=value.ctypes.data, data_len=value.nbytes)
        for name, value in values.items()
    }
    return bytes(serialize(specs, dict(metadata or {})))  # `values` keeps the memory alive until here


def huggingface_files(directory: Path) -> list[Path]:
    """Weight files of a Hugging Face checkpoint.

    Raises:
        OSError: there are none.
    """
    index = directory / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        return [directory / name for name in names]
    if (directory / "model.safetensors").exists():
        return [directory / "model.safetensors"]
    raise OSError(f"Error no file named model.safetensors, or model.safetensors.index.json, found in directory {directory}.")


def load_huggingface(directory: Path) -> dict[str, Array]:
    """All tensors of a Hugging Face checkpoint."""
    return {name: tensor for path in huggingface_files(directory) for name, tensor in loads(path.read_bytes()).items()}


def sizes(paths: list[Path]) -> Iterator[int]:
    """Bytes of files."""
    for path in paths:
        yield path.stat().st_size
