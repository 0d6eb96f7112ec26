"""Command lines for TensorRT-LLM, per version."""

from __future__ import annotations

from typing import Any

import pytest

from trtllm_operator.api.llmengine import Verify
from trtllm_operator.api.llmenginebuild import LLMEngineBuildSpec
from trtllm_operator.api.llmservice import Serve
from trtllm_operator.api.versions import VersionRefused
from trtllm_operator.desired import commands


def spec(version: str = "1.2.1", recipe: str = "TensorRTEngine", **more: Any) -> LLMEngineBuildSpec:
    return LLMEngineBuildSpec.model_validate(
        {
            "source": {"kind": "huggingFace", "repo": "a/b", "revision": "c" * 40},
            "model": {"architecture": "LlamaForCausalLM", "bytes": 1, "files": 1},
            "recipe": recipe,
            "runtimeVersion": version,
            "runtimeImage": "x:y",
            "precision": {"dtype": "bfloat16"},
            "parallelism": {"tensor": 2, "pipeline": 2},
            "build": {
                "maxBatchSize": 8,
                "maxSeqLen": 2048,
                "workers": 2,
                "plugins": {"gemm": "auto"},
                "extraArgs": [{"flag": "--strip_plan"}],
            },
            **more,
        }
    )


def test_convert_decides_parallelism_and_dtype() -> None:
    assert commands.convert(spec(), "ckpt", "/engines/b/attempts/1") == [
        "python3", "/app/tensorrt_llm/examples/models/core/llama/convert_checkpoint.py",
        "--model_dir", "/checkpoints/ckpt/files", "--output_dir", "/engines/b/attempts/1/checkpoint",
        "--dtype", "bfloat16", "--tp_size", "2", "--pp_size", "2", "--workers", "2",
    ]  # fmt: skip


def test_trtllm_build_has_no_parallelism() -> None:
    build = spec().build
    assert build is not None
    argv = commands.trtllm_build(build, "/engines/b/attempts/1")
    assert argv == [
        "trtllm-build", "--checkpoint_dir", "/engines/b/attempts/1/checkpoint", "--output_dir", "/engines/b/attempts/1/engine",
        "--max_batch_size", "8", "--max_input_len", "2048", "--max_seq_len", "2048", "--gemm_plugin", "auto", "--output_timing_cache", "/scratch/model.cache",
        "--workers", "2", "--log_level", "info", "--strip_plan",
    ]  # fmt: skip


def serve(version: str, recipe: str, options: Serve | None = None, name: str = "llama") -> list[str]:
    return commands.serve(
        spec(version, recipe), options or Serve(), name=name, model=f"/models/{name}", tokenizer="/tokenizer", has_options_file=True
    )


def test_serve_an_engine() -> None:
    assert serve("1.2.1", "TensorRTEngine") == [
        "trtllm-serve", "/models/llama", "--host", "0.0.0.0", "--port", "8000", "--backend", "tensorrt", "--tokenizer", "/tokenizer",
        "--extra_llm_api_options", "/etc/trtllm-operator/options/options.yaml",
    ]  # fmt: skip


def test_serve_a_checkpoint_after_the_removal() -> None:
    assert serve("1.3.0rc29", "HFCheckpoint") == [
        "trtllm-serve", "/models/llama", "--host", "0.0.0.0", "--port", "8000", "--served_model_name", "llama", "--tp_size", "2", "--pp_size", "2",
        "--max_batch_size", "8", "--max_seq_len", "2048", "--extra_llm_api_options", "/etc/trtllm-operator/options/options.yaml",
    ]  # fmt: skip


def test_serve_a_checkpoint_with_an_older_version_names_the_backend() -> None:
    argv = serve("1.2.1", "HFCheckpoint")
    assert argv[argv.index("--backend") + 1] == "pytorch"
    assert "--served_model_name" not in argv


def test_options_that_a_version_lacks_are_refused() -> None:
    with pytest.raises(VersionRefused, match="toolParser"):
        serve("1.1.0", "HFCheckpoint", Serve(tool_parser="qwen3"))
    with pytest.raises(VersionRefused, match="servedModelName"):
        serve("1.2.1", "TensorRTEngine", name="meta/llama")


def test_prompt_that_looks_like_an_option() -> None:
    argv = commands.smoke(spec(), Verify(prompt="--version"), "/m", "/t")
    assert argv[-1] == "--prompt=--version"
