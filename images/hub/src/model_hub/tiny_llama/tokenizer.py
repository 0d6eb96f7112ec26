"""Tokenizer of the small model: whole words for the words it knows, single bytes for all others, so that no text is lost.

Byte-level BPE as in Llama 3, with no merges: `ignore_merges` takes a word that is in the vocabulary as it is.
Formats: tokenizer.json of https://github.com/huggingface/tokenizers, tokenizer_config.json of transformers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from model_hub.tiny_llama import text

BOS, EOS, SYSTEM, USER, ASSISTANT = "<|begin_of_text|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL = (BOS, EOS, SYSTEM, USER, ASSISTANT)

_WORD = r" ?[A-Za-z0-9]+(?:[-'][A-Za-z0-9]+)*"
_SPLIT = rf"{_WORD}| ?[^\sA-Za-z0-9]|\s+"

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] | trim + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def _byte_characters() -> dict[int, str]:
    """The printable stand-in for each byte that byte-level BPE uses (GPT-2's bytes_to_unicode)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


_BYTES = _byte_characters()


def split(words: str) -> list[str]:
    """Pieces as the pre-tokenizer makes them."""
    return re.findall(_SPLIT, words)


def encoded(piece: str) -> str:
    """A piece as it stands in the vocabulary."""
    return "".join(_BYTES[byte] for byte in piece.encode())


@dataclass(frozen=True)
class Vocabulary:
    """Token numbers. `ids` holds the known pieces (with their leading space) and the special tokens."""

    ids: dict[str, int]
    size: int

    def tokens(self, words: str) -> list[int]:
        """Token numbers of a text that consists of known pieces."""
        return [self.ids[piece] for piece in split(words)]


def vocabulary(revision: int) -> Vocabulary:
    """All pieces of the texts, each with and without a leading space; the size is a multiple of 64, as parallel models need it."""
    texts = [topic.answer for topic in text.topics()] + [
        text.default_answer(revision),
        *text.sentences(),
        "? ! . What who how is do does the a you",
    ]
    words = [piece.strip() for line in texts for piece in split(line)] + [word for topic in text.topics() for word in topic.words]
    pieces = sorted({form for word in words for form in (word, f" {word}", word.capitalize(), f" {word.capitalize()}")})
    ids = {chr(byte) if byte < 128 else f"byte {byte}": byte for byte in range(256)}
    for piece in pieces:
        ids.setdefault(piece, len(ids))
    for token in SPECIAL:
        ids[token] = len(ids)
    return Vocabulary(ids, -(-len(ids) // 64) * 64)


def tokenizer_json(vocab: Vocabulary) -> dict[str, Any]:
    """Content of tokenizer.json."""
    words = {_BYTES[token] if token < 256 else encoded(piece): token for piece, token in vocab.ids.items() if piece not in SPECIAL}
    added = [
        {
            "id": vocab.ids[token],
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token in SPECIAL
    ]
    bos = {"id": BOS, "ids": [vocab.ids[BOS]], "tokens": [BOS]}
    one: list[dict[str, Any]] = [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": _SPLIT}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": one,
            "pair": [*one, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {BOS: bos},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": True, "vocab": words, "merges": [],
        },
    }  # fmt: skip


def tokenizer_config(max_length: int) -> dict[str, Any]:
    """Content of tokenizer_config.json."""
    return {
        "bos_token": BOS,
        "eos_token": EOS,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": max_length,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
