"""Everything that differs between the versions of TensorRT-LLM that the simulator can be told to be, as data.

Sources: [serve] tensorrt_llm/commands/serve.py at 00209af1 (about 1.2); [cli] tests/unittest/api_stability/references/
trtllm_serve_cli.yaml at 029e223d (after the removal of the TensorRT backend); [guide] https://nvidia.github.io/TensorRT-LLM/legacy/
tensorrt-backend-removal.html; [triton] the compatibility table of triton-inference-server/server; #N is a pull request or issue of
NVIDIA/TensorRT-LLM.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Literal

DISTRIBUTION = "tensorrt_llm"
Backend = Literal["pytorch", "tensorrt", "_autodeploy"]


@dataclass(frozen=True)
class Behaviour:
    """One version."""

    version: str
    tensorrt: str | None
    """Version of the TensorRT library, to which engines are tied [triton]; None: no TensorRT backend, no builder [guide]."""
    backends: dict[str, Backend]
    """Choices of `trtllm-serve --backend`."""
    serve_options: frozenset[str]
    """Names of the options of `trtllm-serve` (see `serve_options.ALL`) that the version has besides the common ones."""
    metric_prefix: str
    """Of Prometheus metrics (#12545)."""
    metric_gauges: bool
    """Queue and KV cache gauges, with enable_iter_perf_stats (#12545)."""
    metric_labels: bool
    """model_name and engine_type are right; before #12545 they say "undefined"."""
    health_ends_dead_server: bool
    """/health raises SIGINT in its own process on a recorded fatal error (#12718)."""


_SINCE_1_2 = frozenset({
    "custom_tokenizer", "context_parallel_size", "revision", "config", "tool_parser", "chat_template", "otlp_traces_endpoint",
    "media_io_kwargs", "custom_module_dirs", "fail_fast_off",
})  # fmt: skip
_SINCE_1_3 = frozenset({
    "custom_tokenizer", "context_parallel_size", "revision", "hf_revision", "config", "tool_parser", "chat_template", "otlp_traces_endpoint",
    "media_io_kwargs", "custom_module_dirs", "fail_fast_on", "kv_cache_dtype", "num_serve_frontends", "num_input_processor_workers",
    "num_media_load_workers", "allow_request_chat_template", "generation_config", "served_model_name", "enable_attention_dp",
    "post_processor_hook", "middleware", "report_addr", "video_pruning_rate", "enable_visual_gen", "visual_gen_args", "agent_percentage",
    "agent_types", "grpc", "telemetry",
})  # fmt: skip

_TABLE: tuple[Behaviour, ...] = (
    Behaviour(
        version="1.2.1",
        tensorrt="10.14.1.48",
        backends={"pytorch": "pytorch", "tensorrt": "tensorrt", "trt": "tensorrt", "_autodeploy": "_autodeploy"},
        serve_options=_SINCE_1_2,
        metric_prefix="",
        metric_gauges=False,
        metric_labels=False,
        health_ends_dead_server=False,
    ),
    Behaviour(
        version="1.3.0rc29",
        tensorrt=None,
        backends={"pytorch": "pytorch", "_autodeploy": "_autodeploy"},
        serve_options=_SINCE_1_3,
        metric_prefix="trtllm_",
        metric_gauges=True,
        metric_labels=True,
        health_ends_dead_server=True,
    ),
)

KNOWN = tuple(row.version for row in _TABLE)


def of(version: str) -> Behaviour:
    """Behaviour of a version.

    Raises:
        ValueError: the simulator doesn't know it.
    """
    for row in _TABLE:
        if row.version == version:
            return row
    raise ValueError(
        f"the simulator can be TensorRT-LLM {' or '.join(KNOWN)}, not {version!r}: set SIMULATOR_VERSION when you build its image"
    )


def installed() -> Behaviour:
    """Behaviour of the version that this installation is told to be: that of the distribution `tensorrt_llm`, as with the real one.

    Raises:
        ValueError: the simulator doesn't know it.
        importlib.metadata.PackageNotFoundError: it is not installed (see `install`).
    """
    return of(metadata.version(DISTRIBUTION))


def notice(behaviour: Behaviour) -> str:
    """First line of every program, where the real one prints its version."""
    return (
        f"[TensorRT-LLM] TensorRT-LLM version: {behaviour.version} (SIMULATOR: computes on the CPU, no GPU and no NVIDIA software involved)"
    )
