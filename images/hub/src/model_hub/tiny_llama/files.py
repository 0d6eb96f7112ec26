"""The model's repository: all files of a Hugging Face checkpoint, as bytes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from safetensors.numpy import save

from model_hub.tiny_llama import memory, text, tokenizer, weights


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _readme(revision: int) -> bytes:
    return f"""---
library_name: transformers
pipeline_tag: text-generation
---

# tiny-llama

A Llama of two layers that recites a few sentences about TensorRT-LLM and its operator. Its weights are written down by a program, not
trained. For tests and demonstrations. Revision {revision}.
""".encode()


def repository(revision: int = text.LATEST) -> dict[str, bytes]:
    """Files by their path in the repository."""
    vocab = tokenizer.vocabulary(revision)
    rules = memory.rules(vocab, revision)
    values = {name: value.astype(np.float16) for name, value in weights.tensors(vocab, rules).items()}
    return {
        "README.md": _readme(revision),
        "config.json": _json(weights.config(vocab, weights.intermediate_size(rules))),
        "generation_config.json": _json(
            {"_from_model_config": True, "bos_token_id": vocab.ids[tokenizer.BOS], "eos_token_id": vocab.ids[tokenizer.EOS]}
        ),
        "model.safetensors": save(values, metadata={"format": "pt"}),
        "special_tokens_map.json": _json({"bos_token": tokenizer.BOS, "eos_token": tokenizer.EOS}),
        "tokenizer.json": _json(tokenizer.tokenizer_json(vocab)),
        "tokenizer_config.json": _json(tokenizer.tokenizer_config(weights.MAX_POSITIONS)),
    }
