"""The simulator's engine file: a header that says what the engine is tied to, and the tensors of one rank. No GPU can run it."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from trtllm_simulator import log
from trtllm_simulator.tensors import Array, loads

_MAGIC = b"TRTLLM-SIMULATOR-ENGINE\n"


@dataclass(frozen=True)
class Header:
    """What a rank file is tied to."""

    version: str
    tensorrt: str
    compute_capability: str
    tp_size: int
    pp_size: int
    rank: int


def dump(header: Header, tensors: bytes) -> bytes:
    """An engine file around a safetensors file."""
    text = json.dumps(asdict(header)).encode()
    return _MAGIC + struct.pack("<I", len(text)) + text + struct.pack("<Q", len(tensors)) + tensors


def load(path: Path, *, tensorrt: str, compute_capability: str) -> tuple[Header, dict[str, Array]]:
    """Header and tensors of a rank.

    Raises:
        RuntimeError: it is no engine, is incomplete, or is tied to another library version or GPU (texts of TensorRT).
    """
    content = path.read_bytes()
    if not content.startswith(_MAGIC):
        _refuse(
            "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion magicTagRead == kMAGIC_TAG failed. "
            "Magic tag does not match)"
        )
    at = len(_MAGIC)
    (size,) = struct.unpack_from("<I", content, at)
    header = Header(**json.loads(content[at + 4 : at + 4 + size]))
    at += 4 + size
    if header.tensorrt != tensorrt:
        _refuse(
            "IRuntime::deserializeCudaEngine: Error Code 6: API Usage Error (The engine plan file is not compatible with this version of TensorRT, "
            f"expecting library version {tensorrt} got {header.tensorrt}, please rebuild.)"
        )
    if header.compute_capability != compute_capability:
        _refuse(
            "IRuntime::deserializeCudaEngine: Error Code 6: API Usage Error (The engine plan file is generated on an incompatible device, "
            f"expecting compute {compute_capability} got compute {header.compute_capability}, please rebuild.)"
        )
    (length,) = struct.unpack_from("<Q", content, at) if len(content) >= at + 8 else (-1,)
    if len(content) != at + 8 + length:
        _refuse(
            "IRuntime::deserializeCudaEngine: Error Code 2: Internal Error (Assertion engine->deserialize(start, size, allocator, runtime) failed. )"
        )
    return header, loads(content[at + 8 :])


def _refuse(text: str) -> NoReturn:
    log.log("error", text, source="TRT")
    raise RuntimeError("[TensorRT-LLM][ERROR] Assertion failed: Failed to deserialize cuda engine.")
