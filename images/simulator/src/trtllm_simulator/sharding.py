"""Splits a Llama over ranks, with the tensor names of a TensorRT-LLM checkpoint (models/llama/convert.py)."""

from __future__ import annotations

from collections.abc import Mapping as ReadOnly

import numpy as np

from trtllm_simulator.checkpoint import Mapping, ModelConfig
from trtllm_simulator.tensors import Array


def check(config: ModelConfig, mapping: Mapping) -> None:
    """Can the model be split this way?

    Raises:
        AssertionError: no (texts of tensorrt_llm's Attention layer and of its model configuration).
    """
    if config.heads % mapping.tp:
        raise AssertionError(f"num_attention_heads ({config.heads}) must be divisible by tp_size ({mapping.tp})")
    if (mapping.tp % config.kv_heads) if mapping.tp > config.kv_heads else (config.kv_heads % mapping.tp):
        raise AssertionError(f"num_key_value_heads ({config.kv_heads}) and tp_size ({mapping.tp}) must be divisible by one another")
    if config.intermediate_size % mapping.tp:
        raise AssertionError(f"intermediate_size ({config.intermediate_size}) must be divisible by tp_size ({mapping.tp})")
    if config.layers % mapping.pp:
        raise AssertionError(f"num_hidden_layers {config.layers} must be a multiple of pipeline parallelism size {mapping.pp}")


def shard(tensors: ReadOnly[str, Array], config: ModelConfig, mapping: Mapping, rank: int) -> dict[str, Array]:
    """Tensors of one rank. Layers are counted from 0 in each stage of the pipeline.

    Raises:
        KeyError: a tensor of the Llama layout is missing.
    """
    stage, part = divmod(rank, mapping.tp)
    per_stage = config.layers // mapping.pp
    result: dict[str, Array] = {}
    if stage == 0:
        result["transformer.vocab_embedding.weight"] = tensors["model.embed_tokens.weight"]
    for local in range(per_stage):
        theirs, ours = f"model.layers.{stage * per_stage + local}", f"transformer.layers.{local}"
        attention = [tensors[f"{theirs}.self_attn.{name}_proj.weight"] for name in ("q", "k", "v")]
        kv = [_key_value(tensor, config, mapping.tp, part) for tensor in attention[1:]]
        result |= {
            f"{ours}.attention.qkv.weight": np.concatenate([_rows(attention[0], mapping.tp, part), *kv]),
            f"{ours}.attention.dense.weight": _columns(tensors[f"{theirs}.self_attn.o_proj.weight"], mapping.tp, part),
            f"{ours}.mlp.fc.weight": _rows(tensors[f"{theirs}.mlp.gate_proj.weight"], mapping.tp, part),
            f"{ours}.mlp.gate.weight": _rows(tensors[f"{theirs}.mlp.up_proj.weight"], mapping.tp, part),
            f"{ours}.mlp.proj.weight": _columns(tensors[f"{theirs}.mlp.down_proj.weight"], mapping.tp, part),
            f"{ours}.input_layernorm.weight": tensors[f"{theirs}.input_layernorm.weight"],
            f"{ours}.post_layernorm.weight": tensors[f"{theirs}.post_attention_layernorm.weight"],
        }
    if stage == mapping.pp - 1:
        head = tensors["model.embed_tokens.weight" if config.tied and "lm_head.weight" not in tensors else "lm_head.weight"]
        padding = -len(head) % mapping.tp
        result["transformer.ln_f.weight"] = tensors["model.norm.weight"]
        result["lm_head.weight"] = _rows(np.pad(head, ((0, padding), (0, 0))), mapping.tp, part)
    return result


def _rows(tensor: Array, tp: int, part: int) -> Array:
    return np.split(tensor, tp, axis=0)[part]


def _columns(tensor: Array, tp: int, part: int) -> Array:
    return np.split(tensor, tp, axis=1)[part]


def _key_value(tensor: Array, config: ModelConfig, tp: int, part: int) -> Array:
    """With more ranks than key/value heads several ranks share one."""
    heads = tensor.reshape(config.kv_heads, config.head_size, -1)
    if tp > config.kv_heads:
        heads = np.repeat(heads, tp // config.kv_heads, axis=0)
    return np.split(heads, tp)[part].reshape(-1, tensor.shape[1])
