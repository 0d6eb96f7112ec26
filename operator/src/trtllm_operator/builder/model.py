"""What a checkpoint says about itself, and whether its files are what their names say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trtllm_operator.builder.report import Failure

CONFIG_LIMIT = 2**20
"""Bytes of a config.json at most; real ones have a few thousand."""

INDEX = "model.safetensors.index.json"
_HEADER_LIMIT = 100_000_000  # of the safetensors format
_INDEX_LIMIT = 64 * 2**20
# Field of our facts -> names in config.json, the usual one first (GPT-2's in the second place).
_FIELDS: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer"),
    "hiddenSize": ("hidden_size", "n_embd"),
    "attentionHeads": ("num_attention_heads", "n_head"),
    "kvHeads": ("num_key_value_heads",),
    "headDim": ("head_dim",),
    "vocabSize": ("vocab_size",),
    "maxPositionEmbeddings": ("max_position_embeddings", "n_positions"),
}


def read_config(path: Path, where: str) -> dict[str, Any]:
    """A config.json.

    Raises:
        Failure: InvalidModel.
    """
    try:
        if path.stat().st_size > CONFIG_LIMIT:
            raise Failure("InvalidModel", f"config.json of {where} is larger than 1 MiB, so it is no model configuration")
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Failure("InvalidModel", f"config.json of {where} is not valid JSON: {error}. Mend it") from error
    if not isinstance(config, dict):
        raise Failure("InvalidModel", f"config.json of {where} is not a JSON object. Use a model in Hugging Face layout")
    return config


def facts(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The facts about a model that the operator plans with.

    Raises:
        Failure: InvalidModel.
    """
    architectures = config.get("architectures")
    architecture = architectures[0] if isinstance(architectures, list) and architectures else None
    if not isinstance(architecture, str) or not re.fullmatch(r"[A-Za-z0-9_]{1,128}", architecture):
        raise Failure(
            "InvalidModel", f"config.json of {where} has no architectures[0], so it can't be told what model it is. Use another repository"
        )
    # Models with several parts have the language model's configuration below text_config.
    text = config.get("text_config")
    nested: Mapping[str, Any] = text if isinstance(text, Mapping) else {}
    result: dict[str, Any] = {"architecture": architecture}
    for source in (config, nested):
        dtype = source.get("torch_dtype") or source.get("dtype")
        if isinstance(dtype, str) and re.fullmatch(r"[A-Za-z0-9_.]{1,64}", dtype):
            result["dtype"] = dtype.removeprefix("torch.")
            break
    for name, keys in _FIELDS.items():
        value = next((source[key] for source in (config, nested) for key in keys if _is_count(source.get(key))), None)
        if value is not None:
            result[name] = value
    heads = result.get("attentionHeads")
    if heads:
        result.setdefault("kvHeads", heads)
        if result.get("hiddenSize"):
            result.setdefault("headDim", result["hiddenSize"] // heads)
    return result


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53


def check_files(root: Path, names: Sequence[str], where: str) -> None:
    """Check content: safetensors are safetensors, no file is a pickle or an archive in disguise, no shard is missing.

    Raises:
        Failure: InvalidModel.
    """
    for name in names:
        with (root / name).open("rb") as file:
            head = file.read(9)
        if name.endswith(".safetensors"):
            length = int.from_bytes(head[:8], "little")
            if len(head) < 9 or not 2 <= length <= min(_HEADER_LIMIT, (root / name).stat().st_size - 8) or head[8:] != b"{":
                raise Failure(
                    "InvalidModel", f"{name} of {where} is not a safetensors file, though its name says so. Use another repository"
                )
        elif head[:4] == b"PK\x03\x04" or (head[:1] == b"\x80" and head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}):
            raise Failure(
                "InvalidModel",
                f"{name} of {where} is a pickle or an archive, which can run code when it is loaded. "
                "Use a repository with safetensors, or leave it out by ignorePatterns",
            )
    if INDEX in names:
        missing = sorted(_shards(root / INDEX, where) - set(names))
        if missing:
            raise Failure(
                "InvalidModel", f"{INDEX} of {where} names {missing[0]}, which is not there ({len(missing)} of its files are missing)"
            )


def _shards(path: Path, where: str) -> set[str]:
    if path.stat().st_size > _INDEX_LIMIT:
        raise Failure("InvalidModel", f"{INDEX} of {where} is larger than 64 MiB, so it is no index")
    try:
        return {str(name) for name in json.loads(path.read_bytes())["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Failure("InvalidModel", f"{INDEX} of {where} can't be read: {error}") from error
