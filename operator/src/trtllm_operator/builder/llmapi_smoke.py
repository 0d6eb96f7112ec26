"""Loads a model through TensorRT-LLM's LLM API, generates a few tokens, and prints them as one line of JSON.

A plain script: it runs in the runtime image, with nothing but that image's tensorrt_llm.
"""

from __future__ import annotations

import argparse
import importlib
import json
from typing import Any

MARKER = "trtllm-smoke "


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", required=True, help="engine directory or Hugging Face checkpoint")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--backend", choices=("tensorrt", "pytorch"), required=True)
    parser.add_argument("--tensor-parallel-size", type=int, default=1)
    parser.add_argument("--pipeline-parallel-size", type=int, default=1)
    parser.add_argument("--max-batch-size", type=int)
    parser.add_argument("--max-num-tokens", type=int)
    parser.add_argument("--max-seq-len", type=int)
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--prompt", required=True)
    return parser.parse_args()


def llm_class(backend: str) -> Any:
    """The class for a backend: from 1.0 on `tensorrt_llm.LLM` is PyTorch's, and engines have a class of their own."""
    if backend == "tensorrt":
        try:
            return importlib.import_module("tensorrt_llm._tensorrt_engine").LLM
        except ModuleNotFoundError as error:
            if error.name != "tensorrt_llm._tensorrt_engine":
                raise
    return importlib.import_module("tensorrt_llm").LLM


def main() -> None:
    given = arguments()
    options = {
        "tensor_parallel_size": given.tensor_parallel_size,
        "pipeline_parallel_size": given.pipeline_parallel_size,
        "max_batch_size": given.max_batch_size,
        "max_num_tokens": given.max_num_tokens,
        "max_seq_len": given.max_seq_len,
    }
    llm = llm_class(given.backend)(
        model=given.model, tokenizer=given.tokenizer, **{name: value for name, value in options.items() if value is not None}
    )
    try:
        sampling = importlib.import_module("tensorrt_llm").SamplingParams(max_tokens=given.max_tokens)
        answer = llm.generate([given.prompt], sampling)[0].outputs[0]
        said = {"text": answer.text, "tokens": len(answer.token_ids)}
    finally:
        llm.shutdown()
    print(f"\n{MARKER}{json.dumps(said)}", flush=True)


if __name__ == "__main__":  # its workers import this file again
    main()
