"""The options of `trtllm-serve`, as data. Which version has which is said in `versions`. Source: [serve] and [cli] there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from trtllm_simulator import log
from trtllm_simulator.versions import Behaviour


@dataclass(frozen=True)
class Option:
    """One option, or one more spelling of an option. `key` is the argument of the LLM that it sets, if it sets one."""

    flags: tuple[str, ...]
    name: str
    type: Any = str
    default: Any = None
    switch: bool = False
    multiple: bool = False
    key: str | None = None


_PARSERS = (
    "auto", "deepseek-r1", "deepseek_v4", "gemma4", "kimi_k2", "kimi_k25", "kimi_k3", "laguna", "minimax_m2", "minimax_m2_append_think",
    "minimax_m3", "nano-v3", "nemotron-v3", "poolside_v1", "qwen3", "qwen3_5",
)  # fmt: skip

COMMON: tuple[Option, ...] = (
    Option(("--tokenizer",), "tokenizer", key="tokenizer"),
    Option(("--host",), "host", default="localhost"),
    Option(("--port",), "port", int, 8000),
    Option(("--log_level",), "log_level", click.Choice(log.LEVELS), "info"),
    Option(("--max_beam_width",), "max_beam_width", int, 1, key="max_beam_width"),
    Option(("--max_batch_size",), "max_batch_size", int, 2048, key="max_batch_size"),
    Option(("--max_num_tokens",), "max_num_tokens", int, 8192, key="max_num_tokens"),
    Option(("--max_seq_len",), "max_seq_len", int, key="max_seq_len"),
    Option(("--tensor_parallel_size", "--tp_size"), "tp_size", int, 1, key="tensor_parallel_size"),
    Option(("--pipeline_parallel_size", "--pp_size"), "pp_size", int, 1, key="pipeline_parallel_size"),
    Option(("--moe_expert_parallel_size", "--ep_size"), "ep_size", int, key="moe_expert_parallel_size"),
    Option(("--moe_cluster_parallel_size", "--cluster_size"), "cluster_size", int, key="moe_cluster_parallel_size"),
    Option(("--gpus_per_node",), "gpus_per_node", int, key="gpus_per_node"),
    Option(("--free_gpu_memory_fraction", "--kv_cache_free_gpu_memory_fraction"), "free_gpu_memory_fraction", float, 0.9),
    Option(("--num_postprocess_workers",), "num_postprocess_workers", int, 0, key="num_postprocess_workers"),
    Option(("--trust_remote_code",), "trust_remote_code", switch=True, default=False, key="trust_remote_code"),
    Option(("--reasoning_parser",), "reasoning_parser", click.Choice(_PARSERS), key="reasoning_parser"),
    Option(("--metadata_server_config_file",), "metadata_server_config_file"),
    Option(("--server_role",), "server_role", click.Choice(["CONTEXT", "GENERATION"], case_sensitive=False)),
    Option(("--disagg_cluster_uri",), "disagg_cluster_uri"),
    Option(("--enable_chunked_prefill",), "enable_chunked_prefill", switch=True, default=False, key="enable_chunked_prefill"),
)

BY_VERSION: dict[str, Option] = {
    option[0]: option[1]
    for option in (
        ("custom_tokenizer", Option(("--custom_tokenizer",), "custom_tokenizer", key="custom_tokenizer")),
        ("context_parallel_size", Option(("--context_parallel_size", "--cp_size"), "cp_size", int, 1, key="context_parallel_size")),
        ("revision", Option(("--revision",), "revision", key="revision")),
        ("hf_revision", Option(("--hf_revision",), "hf_revision", key="revision")),
        ("tool_parser", Option(("--tool_parser",), "tool_parser")),
        ("chat_template", Option(("--chat_template",), "chat_template")),
        ("otlp_traces_endpoint", Option(("--otlp_traces_endpoint",), "otlp_traces_endpoint", key="otlp_traces_endpoint")),
        ("media_io_kwargs", Option(("--media_io_kwargs",), "media_io_kwargs")),
        ("custom_module_dirs", Option(("--custom_module_dirs",), "custom_module_dirs", multiple=True)),
        ("fail_fast_off", Option(("--fail_fast_on_attention_window_too_large",), "fail_fast", switch=True, default=False)),
        ("fail_fast_on", Option(("--fail_fast_on_attention_window_too_large",), "fail_fast", switch=True, default=True)),
        ("kv_cache_dtype", Option(("--kv_cache_dtype",), "kv_cache_dtype", click.Choice(["auto", "fp8", "nvfp4"]), "auto")),
        ("num_serve_frontends", Option(("--num_serve_frontends",), "num_serve_frontends", int, 1)),
        ("num_input_processor_workers", Option(("--num_input_processor_workers",), "num_input_processor_workers", int, 8)),
        ("num_media_load_workers", Option(("--num_media_load_workers",), "num_media_load_workers", int, 8)),
        (
            "allow_request_chat_template",
            Option(("--allow_request_chat_template",), "allow_request_chat_template", switch=True, default=False),
        ),
        ("generation_config", Option(("--generation-config",), "generation_config", click.Choice(["auto", "trtllm"]), "trtllm")),
        ("served_model_name", Option(("--served_model_name",), "served_model_name")),
        (
            "enable_attention_dp",
            Option(("--enable_attention_dp",), "enable_attention_dp", switch=True, default=False, key="enable_attention_dp"),
        ),
        ("post_processor_hook", Option(("--post_processor_hook",), "post_processor_hook")),
        ("middleware", Option(("--middleware",), "middleware", multiple=True)),
        ("report_addr", Option(("--report_addr",), "report_addr")),
        ("video_pruning_rate", Option(("--video_pruning_rate",), "video_pruning_rate", float)),
        ("enable_visual_gen", Option(("--enable_visual_gen",), "enable_visual_gen", switch=True, default=False)),
        ("visual_gen_args", Option(("--visual_gen_args",), "visual_gen_args")),
        ("agent_percentage", Option(("--agent_percentage",), "agent_percentage", float)),
        ("agent_types", Option(("--agent_types",), "agent_types")),
        ("grpc", Option(("--grpc",), "grpc", switch=True, default=False)),
        ("telemetry", Option(("--telemetry/--no-telemetry",), "telemetry", switch=True, default=True)),
    )
}

# What the simulator can't do. Asked for, it says so instead of pretending.
NOT_SIMULATED = (
    "custom_tokenizer", "metadata_server_config_file", "server_role", "disagg_cluster_uri", "tool_parser", "middleware", "post_processor_hook",
    "enable_visual_gen", "visual_gen_args", "grpc", "report_addr", "reasoning_parser",
)  # fmt: skip


def backend_option(behaviour: Behaviour) -> Option:
    """--backend with the version's choices."""
    return Option(("--backend",), "backend", click.Choice(list(behaviour.backends)), "pytorch")


def file_option(behaviour: Behaviour) -> Option:
    """The options file, with the spellings that the version knows."""
    flags = ("--config", "--extra_llm_api_options") if "config" in behaviour.serve_options else ("--extra_llm_api_options",)
    return Option(flags, "extra_llm_api_options")


def options(behaviour: Behaviour) -> list[Option]:
    """All options of a version."""
    own = [option for name, option in BY_VERSION.items() if name in behaviour.serve_options]
    return [*COMMON, backend_option(behaviour), file_option(behaviour), *own]


def parameters(behaviour: Behaviour) -> list[click.Parameter]:
    """Options and the argument MODEL, for click."""
    result: list[click.Parameter] = [click.Argument(["model"], type=str)]
    for option in options(behaviour):
        kind = {} if option.switch else {"type": option.type, "multiple": option.multiple}
        result.append(
            click.Option([*option.flags, option.name], default=option.default, is_flag=option.switch or None, show_default=True, **kind)
        )
    return result
