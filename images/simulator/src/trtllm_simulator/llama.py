"""The forward pass of a Llama in numpy: RMSNorm, rotary embedding, grouped-query attention with a KV cache, SwiGLU.

All ranks live in one process. What GPUs do with NCCL is a sum (tensor parallel) or handing on the hidden state (pipeline parallel) here.
"""

from __future__ import annotations

from collections.abc import Mapping as ReadOnly
from collections.abc import Sequence

import numpy as np

from trtllm_simulator.checkpoint import Mapping, ModelConfig
from trtllm_simulator.tensors import Array


class Cache:
    """Keys and values of one sequence: for each rank and layer, heads x positions x head size."""

    def __init__(self) -> None:
        self.length = 0
        self._arrays: dict[tuple[int, int], tuple[Array, Array]] = {}

    def extend(self, rank: int, layer: int, keys: Array, values: Array) -> tuple[Array, Array]:
        """Adds positions and returns all. `length` is advanced by the model when the whole pass is done."""
        heads, count, size = keys.shape
        end = self.length + count
        held = self._arrays.get((rank, layer))
        if held is None or held[0].shape[1] < end:
            room = max(64, 2 * end)
            grown = (np.zeros((heads, room, size), np.float32), np.zeros((heads, room, size), np.float32))
            if held is not None:
                for old, new in zip(held, grown, strict=True):
                    new[:, : self.length] = old[:, : self.length]
            self._arrays[rank, layer] = held = grown
        held[0][:, self.length : end] = keys
        held[1][:, self.length : end] = values
        return held[0][:, :end], held[1][:, :end]


def _frequencies(config: ModelConfig) -> Array:
    """Rotation per position of each pair of dimensions, with Llama 3's scaling (transformers, modeling_rope_utils)."""
    base = config.theta ** (-np.arange(0, config.head_size, 2, dtype=np.float64) / config.head_size)
    scaling = config.rope_scaling or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "linear":
        base /= scaling["factor"]
    elif kind == "llama3":
        low, high, original = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["original_max_position_embeddings"]
        smooth = np.clip((original * base / (2 * np.pi) - low) / (high - low), 0, 1)
        base = base * (smooth + (1 - smooth) / scaling["factor"])
    return base.astype(np.float32)


class Llama:
    """A model spread over ranks. Safe to use from one thread at a time."""

    def __init__(self, config: ModelConfig, mapping: Mapping, ranks: Sequence[ReadOnly[str, Array]]) -> None:
        self.config, self.mapping = config, mapping
        self._ranks = ranks
        self._frequencies = _frequencies(config)

    @property
    def bytes(self) -> int:
        """Size of the weights in the model's number format."""
        width = 4 if self.config.dtype == "float32" else 2
        return sum(tensor.size for rank in self._ranks for tensor in rank.values()) * width

    def forward(self, tokens: Sequence[int], cache: Cache) -> Array:
        """Logits of the token that follows the last of `tokens`, which are appended to the cache."""
        hidden = self._ranks[0]["transformer.vocab_embedding.weight"][list(tokens)]
        angles = np.outer(np.arange(cache.length, cache.length + len(tokens), dtype=np.float32), self._frequencies)
        turn = np.concatenate([np.cos(angles)] * 2, axis=1), np.concatenate([np.sin(angles)] * 2, axis=1)
        tp = self.mapping.tp
        for stage in range(self.mapping.pp):
            numbers = range(stage * tp, (stage + 1) * tp)
            for layer in range(self.config.layers // self.mapping.pp):
                name = f"transformer.layers.{layer}"
                normed = self._norm(hidden, self._ranks[numbers[0]][f"{name}.input_layernorm.weight"])
                hidden = hidden + sum(self._attention(normed, turn, cache, rank, layer) for rank in numbers)
                normed = self._norm(hidden, self._ranks[numbers[0]][f"{name}.post_layernorm.weight"])
                hidden = hidden + sum(self._mlp(normed, rank, name) for rank in numbers)
        cache.length += len(tokens)
        last = [self._ranks[rank] for rank in range((self.mapping.pp - 1) * tp, self.mapping.world)]
        final = self._norm(hidden[-1:], last[0]["transformer.ln_f.weight"])[0]
        logits: Array = np.concatenate([rank["lm_head.weight"] @ final for rank in last])[: self.config.vocab_size]
        return logits

    def _norm(self, hidden: Array, weight: Array) -> Array:
        scale = 1.0 / np.sqrt(np.mean(np.square(hidden), axis=-1, keepdims=True) + np.float32(self.config.epsilon))
        normed: Array = hidden * scale * weight
        return normed

    def _attention(self, hidden: Array, turn: tuple[Array, Array], cache: Cache, rank: int, layer: int) -> Array:
        config, tp = self.config, self.mapping.tp
        weights, name = self._ranks[rank], f"transformer.layers.{layer}.attention"
        heads, kv_heads, size, count = config.heads // tp, max(1, config.kv_heads // tp), config.head_size, len(hidden)
        qkv = (hidden @ weights[f"{name}.qkv.weight"].T).reshape(count, heads + 2 * kv_heads, size).transpose(1, 0, 2)
        queries, keys = _rotate(qkv[:heads], turn), _rotate(qkv[heads : heads + kv_heads], turn)
        keys, values = cache.extend(rank, layer, keys, qkv[heads + kv_heads :])
        grouped = queries.reshape(kv_heads, heads // kv_heads, count, size)
        scores = np.einsum("ghcs,gts->ghct", grouped, keys) / np.float32(size**0.5)
        future = np.arange(keys.shape[1])[None, :] > np.arange(cache.length, cache.length + count)[:, None]
        scores = np.where(future, np.float32(-np.inf), scores)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed = np.einsum("ghct,gts->ghcs", scores, values).reshape(heads, count, size).transpose(1, 0, 2).reshape(count, heads * size)
        out: Array = mixed @ weights[f"{name}.dense.weight"].T
        return out

    def _mlp(self, hidden: Array, rank: int, name: str) -> Array:
        weights = self._ranks[rank]
        gate: Array = hidden @ weights[f"{name}.mlp.fc.weight"].T
        limited: Array = np.minimum(-gate, np.float32(80))  # exp of more overflows
        growth: Array = np.exp(limited)
        growth += 1
        activated: Array = gate / growth * (hidden @ weights[f"{name}.mlp.gate.weight"].T)
        out: Array = activated @ weights[f"{name}.mlp.proj.weight"].T
        return out


def _rotate(heads: Array, turn: tuple[Array, Array]) -> Array:
    """Rotary embedding as Hugging Face and TensorRT-LLM (rope_gpt_neox) do it: dimension i goes with i + half."""
    half = heads.shape[-1] // 2
    swapped: Array = np.concatenate([-heads[..., half:], heads[..., :half]], axis=-1)
    cosine, sine = turn
    rotated: Array = heads * cosine
    rotated += swapped * sine
    return rotated
