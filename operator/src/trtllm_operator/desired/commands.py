"""Every command line that runs in a runtime image: convert, build, smoke test, serve, and the query of the GPU before them.

One place, so that what `render --commands` prints is what runs.
"""

from __future__ import annotations

from typing import Any

from trtllm_operator.api import versions
from trtllm_operator.api.llmengine import Build, Plugins, Verify
from trtllm_operator.api.llmenginebuild import LLMEngineBuildSpec
from trtllm_operator.api.llmservice import Serve
from trtllm_operator.desired import names

PORT = 8000
OPTIONS_FILE = "options.yaml"

PREFLIGHT = (
    "nvidia-smi",
    "--query-gpu=index,name,uuid,compute_cap,memory.total,memory.free,driver_version,mig.mode.current",
    "--format=csv,noheader,nounits",
)


def _flags(*pairs: tuple[str, Any]) -> list[str]:
    """`--flag value` for each value that is there."""
    return [text for flag, value in pairs if value is not None for text in (flag, str(value))]


def checkpoint_files(name: str) -> str:
    """Directory of the model files of a checkpoint, in a pod."""
    return f"{names.CHECKPOINTS}/{name}/files"


def attempt_directory(build: str, attempt: int) -> str:
    """Directory of one attempt of a build, in a pod."""
    return f"{names.ENGINES}/{build}/attempts/{attempt}"


def convert(spec: LLMEngineBuildSpec, checkpoint: str, attempt_dir: str) -> list[str]:
    """Hugging Face checkpoint -> TensorRT-LLM checkpoint. Parallelism and dtype are decided here; trtllm-build reads them from the result.

    Raises:
        VersionRefused: the architecture has no converter.
    """
    return [
        "python3",
        versions.converter(spec.runtime_version, spec.model.architecture),
        *_flags(
            ("--model_dir", checkpoint_files(checkpoint)),
            ("--output_dir", f"{attempt_dir}/checkpoint"),
            ("--dtype", spec.precision.dtype),
            ("--tp_size", spec.parallelism.tensor),
            ("--pp_size", spec.parallelism.pipeline),
            ("--workers", (spec.build or Build()).workers),
        ),
    ]


def trtllm_build(build: Build, attempt_dir: str) -> list[str]:
    """TensorRT-LLM checkpoint -> engine."""
    plugins = build.plugins or Plugins()
    # In one word, or a value that begins with a dash would be taken for another flag.
    extra = [arg.flag if arg.value is None else f"{arg.flag}={arg.value}" for arg in build.extra_args or ()]
    return [
        "trtllm-build",
        *_flags(
            ("--checkpoint_dir", f"{attempt_dir}/checkpoint"),
            ("--output_dir", f"{attempt_dir}/engine"),
            ("--max_batch_size", build.max_batch_size),
            # trtllm-build's own default is 1024, whatever max_seq_len is: longer prompts would be refused without a word at build time.
            ("--max_input_len", build.max_input_len or build.max_seq_len),
            ("--max_seq_len", build.max_seq_len),
            ("--max_num_tokens", build.max_num_tokens),
            ("--max_beam_width", build.max_beam_width),
            ("--opt_num_tokens", build.opt_num_tokens),
            ("--kv_cache_type", build.kv_cache_type),
            ("--gemm_plugin", plugins.gemm),
            ("--gpt_attention_plugin", plugins.gpt_attention),
            ("--nccl_plugin", plugins.nccl),
            ("--context_fmha", plugins.context_fmha),
            ("--remove_input_padding", plugins.remove_input_padding),
            ("--use_paged_context_fmha", plugins.use_paged_context_fmha),
            ("--multiple_profiles", plugins.multiple_profiles),
            ("--reduce_fusion", plugins.reduce_fusion),
            ("--user_buffer", plugins.user_buffer),
            ("--tokens_per_block", plugins.tokens_per_block),
            # By default a file in the working directory, which need not be writable.
            ("--output_timing_cache", f"{names.SCRATCH}/model.cache"),
            ("--workers", build.workers),
            ("--log_level", "info"),
        ),
        *extra,
    ]


def smoke(spec: LLMEngineBuildSpec, verify: Verify, model: str, tokenizer: str) -> list[str]:
    """The smoke test: load through the LLM API, generate a few tokens."""
    is_engine = spec.recipe == "TensorRTEngine"
    limits = (spec.build or Build()) if not is_engine else Build()
    return [
        "python3",
        names.SMOKE_PROGRAM,
        *_flags(
            ("--model", model),
            ("--tokenizer", tokenizer),
            ("--backend", "tensorrt" if is_engine else "pytorch"),
            ("--tensor-parallel-size", spec.parallelism.tensor),
            ("--pipeline-parallel-size", spec.parallelism.pipeline),
            ("--max-batch-size", limits.max_batch_size),
            ("--max-num-tokens", limits.max_num_tokens),
            ("--max-seq-len", limits.max_seq_len),
            ("--max-tokens", verify.max_tokens),
        ),
        f"--prompt={verify.prompt}",  # a prompt may begin with a dash
    ]


def serve(
    spec: LLMEngineBuildSpec,
    serve_options: Serve,
    *,
    name: str,
    model: str,
    tokenizer: str,
    has_options_file: bool,
) -> list[str]:
    """trtllm-serve with the right flags for the version.

    Raises:
        VersionRefused: an option that the version does not have.
    """
    table = versions.row(spec.runtime_version).serve
    is_engine = spec.recipe == "TensorRTEngine"
    backend = table.tensorrt_backend if is_engine else table.pytorch_backend
    if serve_options.tool_parser is not None and table.tool_parser is None:
        raise versions.VersionRefused(
            "UnsupportedOption",
            f"serve.toolParser: trtllm-serve {spec.runtime_version} has no such option; remove it or use 1.2.0 or newer",
        )
    if table.served_model_name is None and "/" in name:
        raise versions.VersionRefused(
            "UnsupportedOption",
            f"serve.servedModelName {name!r}: trtllm-serve {spec.runtime_version} names a model by the last part of its path; use a name without '/'",
        )
    # An engine has its limits and parallelism in itself. A checkpoint has none, so the LLMEngine's apply where the service gives none.
    limits = (spec.build or Build()) if not is_engine else Build()
    return [
        "trtllm-serve",
        model,
        "--host",
        "0.0.0.0",  # noqa: S104  trtllm-serve listens on localhost only by default, where no probe and no Service reaches it
        "--port",
        str(PORT),
        *_flags(
            ("--backend", backend),
            ("--tokenizer", tokenizer if is_engine else None),
            (table.served_model_name, name) if table.served_model_name else ("", None),
            ("--tp_size", None if is_engine else spec.parallelism.tensor),
            ("--pp_size", None if is_engine else spec.parallelism.pipeline),
            ("--max_batch_size", serve_options.max_batch_size or limits.max_batch_size),
            ("--max_num_tokens", serve_options.max_num_tokens or limits.max_num_tokens),
            ("--max_seq_len", serve_options.max_seq_len or limits.max_seq_len),
            (table.kv_cache_fraction, serve_options.kv_cache_free_gpu_memory_fraction),
            (table.reasoning_parser or "", serve_options.reasoning_parser),
            (table.tool_parser or "", serve_options.tool_parser),
        ),
        *([table.chunked_prefill] if serve_options.chunked_prefill else []),
        *([table.options_file, f"{names.OPTIONS}/{OPTIONS_FILE}"] if has_options_file else []),
    ]
