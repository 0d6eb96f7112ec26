"""Weights of a Llama that applies the rules of `memory`, written down instead of trained.

The hidden state has one part for the current word, one each for the three words before it, the topic, and the next word. In layer 0
three attention heads look one, two and three positions back (rotary embedding makes such a head from constant queries and keys), in
layer 1 a head looks for the word of the question that matters most. Each rule is one neuron of an MLP: its gate opens where the words
are the right ones. Only addition and multiplication of few numbers are used, so that the bytes are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model_hub.tiny_llama import text
from model_hub.tiny_llama.memory import Rule, plain
from model_hub.tiny_llama.tokenizer import ASSISTANT, BOS, EOS, Vocabulary

Array = npt.NDArray[np.float32]

HEADS, KV_HEADS, HEAD = 8, 4, 48
HIDDEN = HEADS * HEAD
LAYERS = 2
THETA = 10000.0
MAX_POSITIONS = 2048
EPSILON = 1e-5

# Parts of the hidden state. Part 0 to 3: the current word and those before it.
_ONE, _WEIGHT = 0, 1
_SQUARE = 5.25  # sum of the squares of a hidden state before a rule has spoken: constant parts, and four words
_REST = HIDDEN - 1
_PART = {name: slice(2 + i * HEAD, 2 + (i + 1) * HEAD) for i, name in enumerate(("0", "1", "2", "3", "topic", "next"))}
_SHARPNESS = 160.0  # of attention to a position, before the division by the square root of the head's size
_GATE = 9.0  # steepness of a neuron
_MARGIN = 0.3  # by how much a full match exceeds the threshold; words that differ match by at most 1 - 2 * _MARGIN
_UP = 0.125  # keeps the other factors away from the smallest float16 numbers
_STRENGTH = (0.1, 0.25, 0.55, 1.1)  # how loudly a rule of one to four words speaks: longer ones drown shorter ones
_TOPIC_STRENGTH = 1.1
_LOUDNESS = 15.0  # of the logits


def _codes(count: int, generator: np.random.Generator) -> Array:
    """Unit vectors, no two of which are alike."""
    found = np.zeros((count, HEAD), np.float32)
    have = 0
    while have < count:
        signs = generator.integers(0, 2, HEAD).astype(np.float32) * 2 - 1
        if np.all(np.abs(found[:have] @ signs) < HEAD * (1 - 2 * _MARGIN)):  # sums of ones: exact in any order
            found[have] = signs
            have += 1
    return found / np.float32(HEAD**0.5)


@dataclass(frozen=True)
class _Codes:
    read: dict[str, Array]
    """Code of a word as context."""
    write: Array
    """Code of each token as next word; zero where it never is one."""


def config(vocab: Vocabulary, intermediate: int) -> dict[str, Any]:
    """Content of config.json."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": vocab.ids[BOS],
        "eos_token_id": vocab.ids[EOS],
        "head_dim": HEAD,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": intermediate,
        "max_position_embeddings": MAX_POSITIONS,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "pretraining_tp": 1,
        "rms_norm_eps": EPSILON,
        "rope_scaling": None,
        "rope_theta": THETA,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": vocab.size,
    }


def tensors(vocab: Vocabulary, rules: list[Rule]) -> dict[str, Array]:
    """All tensors by their Hugging Face names."""
    generator = np.random.default_rng(20)
    codes = _make_codes(vocab, rules, generator)
    half = intermediate_size(rules)
    # The topic is known in layer 1 only.
    ordered = sorted(rules, key=lambda rule: (rule.topic is not None, rule.last))
    parts = (ordered[:half], ordered[half:])
    width = intermediate_size(rules)
    result = {
        "model.embed_tokens.weight": _embedding(vocab, codes),
        "model.norm.weight": np.ones(HIDDEN, np.float32),
        "lm_head.weight": _head(vocab, codes),
    }
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            result[f"{prefix}.{norm}.weight"] = np.ones(HIDDEN, np.float32)
        attention = _look_back() if layer == 0 else _look_for_topic()
        result |= {f"{prefix}.self_attn.{name}_proj.weight": value for name, value in attention.items()}
        result |= {f"{prefix}.mlp.{name}_proj.weight": value for name, value in _mlp(parts[layer], width, codes).items()}
    return result


def intermediate_size(rules: list[Rule]) -> int:
    """Neurons of each MLP: half the rules, rounded up so that the width can be split."""
    return -(-len(rules) // 128) * 64


def _make_codes(vocab: Vocabulary, rules: list[Rule], generator: np.random.Generator) -> _Codes:
    words = sorted({plain(piece) for piece in vocab.ids})
    targets = sorted({rule.then for rule in rules})
    read = _codes(len(words), generator)
    write = np.zeros((vocab.size, HEAD), np.float32)
    write[targets] = _codes(len(targets), generator)
    return _Codes(dict(zip(words, read, strict=True)), write)


def _importance() -> dict[str, float]:
    """How much each word draws the attention that looks for the topic."""
    ranks = text.topics()
    return {plain(word): 1.0 + 0.03 * (len(ranks) - rank) for rank, topic in enumerate(ranks) for word in topic.words}


def _embedding(vocab: Vocabulary, codes: _Codes) -> Array:
    table = np.zeros((vocab.size, HIDDEN), np.float32)
    importance = _importance()
    for piece, token in vocab.ids.items():
        table[token, _ONE] = 1.0
        weight = 0.3 * importance.get(plain(piece), 0.0)
        table[token, _WEIGHT] = weight
        table[token, _REST] = (0.25 - weight**2) ** 0.5  # all tokens have the same length, so that RMSNorm treats them alike
        table[token, _PART["0"]] = codes.read[plain(piece)]
    return table


def _head(vocab: Vocabulary, codes: _Codes) -> Array:
    table = np.zeros((vocab.size, HIDDEN), np.float32)
    table[:, _PART["next"]] = _LOUDNESS * codes.write
    # Where no rule speaks, begin a sentence.
    table[vocab.ids[" TensorRT-LLM"], _ONE] = 1.0
    table[[vocab.ids[token] for token in (BOS, ASSISTANT)], _ONE] = -4.0
    return table


def _angles() -> Array:
    """Rotation per position of each pair of a head's dimensions (as in Llama: dimension i goes with i + HEAD / 2)."""
    return (THETA ** (-np.arange(HEAD // 2, dtype=np.float64) * 2 / HEAD)).astype(np.float32)


def _empty_attention() -> dict[str, Array]:
    return {
        "q": np.zeros((HIDDEN, HIDDEN), np.float32),
        "k": np.zeros((KV_HEADS * HEAD, HIDDEN), np.float32),
        "v": np.zeros((KV_HEADS * HEAD, HIDDEN), np.float32),
        "o": np.zeros((HIDDEN, HIDDEN), np.float32),
    }


def _copy_head(weights: dict[str, Array], head: int, into: str) -> None:
    """Makes a head hand on the current word of where it looks."""
    group = head // (HEADS // KV_HEADS)
    eye = np.eye(HEAD, dtype=np.float32)
    weights["v"][group * HEAD : (group + 1) * HEAD, _PART["0"]] = eye
    # RMSNorm divides by the root of the mean square: undo it.
    weights["o"][_PART[into], head * HEAD : (head + 1) * HEAD] = eye * np.float32(
        ((_SQUARE if into == "topic" else _SQUARE - 3) / HIDDEN) ** 0.5
    )


def _look_back() -> dict[str, Array]:
    """Heads 0, 1 and 2 look one, two and three positions back: queries turned by as many steps meet the constant key there."""
    weights = _empty_attention()
    scale = np.float32((_SHARPNESS * (_SQUARE - 3) / HIDDEN) ** 0.5)
    for group in (0, 1):
        weights["k"][group * HEAD : group * HEAD + HEAD // 2, _ONE] = scale
    for head, back in enumerate((1, 2, 3)):
        turn = _angles() * np.float32(-back)
        weights["q"][head * HEAD : head * HEAD + HEAD // 2, _ONE] = scale * np.cos(turn)
        weights["q"][head * HEAD + HEAD // 2 : (head + 1) * HEAD, _ONE] = scale * np.sin(turn)
        _copy_head(weights, head, str(back))
    return weights


def _look_for_topic() -> dict[str, Array]:
    """Head 0 looks at the word that matters most. What is far away matters less: rotations of a medium speed fade within 40 words."""
    weights = _empty_attention()
    slow = slice(5, 11)
    weights["q"][slow, _ONE] = 4.0
    weights["k"][slow, _WEIGHT] = 12.0
    _copy_head(weights, 0, "topic")
    return weights


def _mlp(rules: Iterable[Rule], width: int, codes: _Codes) -> dict[str, Array]:
    """One neuron for each rule: gate = steepness * (matching words - threshold), up = a constant, down = the next word."""
    gate, up = np.zeros((width, HIDDEN), np.float32), np.zeros((width, HIDDEN), np.float32)
    down = np.zeros((HIDDEN, width), np.float32)
    for neuron, rule in enumerate(rules):
        conditions = {str(back): word for back, word in enumerate(rule.last)} | ({"topic": rule.topic} if rule.topic else {})
        for part, word in conditions.items():
            gate[neuron, _PART[part]] = _GATE * codes.read[word]
        gate[neuron, _ONE] = -_GATE * (len(conditions) - _MARGIN)
        up[neuron, _ONE] = _UP
        loud = _TOPIC_STRENGTH if rule.topic else _STRENGTH[len(rule.last) - 1]
        # Gate and up are both about 1 / rms of the hidden state, whose square is HIDDEN / 7.
        down[_PART["next"], neuron] = np.float32(loud * 7.0 / HIDDEN / (_GATE * _MARGIN * _UP)) * codes.write[rule.then]
    return {"gate": gate, "up": up, "down": down}
