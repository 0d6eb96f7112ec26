"""The ConfigMap with the extra LLM API options of trtllm-serve: one immutable object for each state of serve.options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import yaml

from trtllm_operator.api.llmservice import Serve
from trtllm_operator.desired import names
from trtllm_operator.desired.commands import OPTIONS_FILE
from trtllm_operator.desired.match import with_hash

# Options that have a field. The file wins over the command line (update_llm_args_with_extra_dict at v1.2.1), so a key in both
# places would silently take the value that nobody looks at.
_FIELDS: Mapping[tuple[str, ...], str] = {
    ("max_batch_size",): "serve.maxBatchSize",
    ("max_num_tokens",): "serve.maxNumTokens",
    ("max_seq_len",): "serve.maxSeqLen",
    ("kv_cache_config", "free_gpu_memory_fraction"): "serve.kvCacheFreeGpuMemoryFraction",
    ("enable_chunked_prefill",): "serve.chunkedPrefill",
    ("reasoning_parser",): "serve.reasoningParser",
    ("tool_parser",): "serve.toolParser",
    ("tensor_parallel_size",): "parallelism.tensor of the LLMEngine",
    ("pipeline_parallel_size",): "parallelism.pipeline of the LLMEngine",
    ("backend",): "runtime.backend of the LLMEngine",
}
_OWN = ("model", "tokenizer")


MOST_BYTES = 65536
"""Bytes of serve.options as JSON at most. Real ones have some hundreds; writing YAML takes about 10 s for each MB."""

DEEPEST = 32
"""Levels of serve.options at most."""


def excess(options: Mapping[str, Any]) -> str | None:
    """Why options are more than can be worked with; None where they are not. The schema can't bound what is in a free field."""
    level: list[Any] = [options]
    for _ in range(DEEPEST):
        level = [
            item for value in level for item in (value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ())
        ]
        if not level:
            break
    else:
        return f"serve.options has more than {DEEPEST} levels: trtllm-serve knows no such option; remove what is that deep"
    if (size := len(names.canonical(options))) > MOST_BYTES:
        return f"serve.options has {size} bytes, and at most {MOST_BYTES} are taken: remove what is not an option of trtllm-serve"
    return None


def conflict(options: Mapping[str, Any]) -> str | None:
    """What is wrong with options that are set by a field or by the operator; None where nothing is."""
    for path, field in _FIELDS.items():
        value: Any = options
        for key in path:
            value = value.get(key, _ABSENT) if isinstance(value, Mapping) else _ABSENT
        if value is not _ABSENT:
            return f"serve.options.{'.'.join(path)} is set by {field}: use that field and remove the option"
    for key in _OWN:
        if key in options:
            return f"serve.options.{key} is set by the operator, from the artifact of the LLMEngine: remove the option"
    return None


_ABSENT = object()
_REMEMBERED = 32
"""Texts that are kept, of bounded size each: one decision needs the same one four times, and writing it is half of the decision's time."""


def content(serve: Serve) -> str | None:
    """The file: YAML with sorted keys, so that equal options give equal text. None where there are no options.

    In ASCII: what else YAML takes for a line break (U+0085, U+2028) would come back from the file as a space.
    """
    return _text(names.canonical(serve.options)) if serve.options else None


@lru_cache(maxsize=_REMEMBERED)
def _text(options: bytes) -> str:
    return yaml.safe_dump(json.loads(options), sort_keys=True, default_flow_style=False, allow_unicode=False)


def options_hash(serve: Serve) -> str | None:
    """Of the file's text; None where there is no file."""
    text = content(serve)
    return None if text is None else names.short(text)


def options_config_map(namespace: str, service: str, serve: Serve, owner: Mapping[str, Any]) -> dict[str, Any] | None:
    """The ConfigMap, or None where there are no options. Immutable: pods of an old revision that start again must find what they had."""
    text = content(serve)
    if text is None:
        return None
    return with_hash(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": names.options_name(service, names.short(text)),
                "namespace": namespace,
                "labels": {**names.common_labels("server"), names.SERVICE: names.label_value(service)},
                "ownerReferences": [dict(owner)],
            },
            "immutable": True,
            "data": {OPTIONS_FILE: text},
        }
    )
