"""The flags of `trtllm-build`: commands/build.py at 65f1d153 and plugin/plugin.py (about 1.2). What is not here is refused."""

from __future__ import annotations

import argparse
from typing import Any

from trtllm_simulator import log

_TYPES = ("auto", "float16", "float32", "bfloat16", "int32")
_GEMM = (*_TYPES, "fp8", "nvfp4")

# Plugins that take a number format; None stands for "disable".
PLUGIN_TYPES: dict[str, tuple[tuple[str, ...], str | None]] = {
    "bert_attention_plugin": (_TYPES, "auto"),
    "gpt_attention_plugin": (_TYPES, "auto"),
    "gemm_plugin": (_GEMM, None),
    "gemm_swiglu_plugin": (("fp8",), None),
    "fp8_rowwise_gemm_plugin": (_TYPES, None),
    "lora_plugin": (_TYPES, None),
    "moe_plugin": (_TYPES, "auto"),
    "mamba_conv1d_plugin": (_TYPES, "auto"),
    "nccl_plugin": (_TYPES, "auto"),
    "low_latency_gemm_plugin": (("fp8",), None),
    "low_latency_gemm_swiglu_plugin": (("fp8",), None),
    "gemm_allreduce_plugin": (("float16", "bfloat16"), None),
}

PLUGIN_SWITCHES: dict[str, bool] = {
    "dora_plugin": False,
    "context_fmha": True,
    "bert_context_fmha_fp32_acc": False,
    "remove_input_padding": True,
    "use_paged_context_fmha": True,
    "use_fp8_context_fmha": True,
    "fuse_fp4_quant": False,
    "multiple_profiles": False,
    "paged_state": True,
    "streamingllm": False,
    "norm_quant_fusion": False,
    "reduce_fusion": False,
    "user_buffer": False,
    "use_fused_mlp": True,
    "pp_reduce_scatter": False,
}

_LORA_MODULES = (
    "attn_qkv", "attn_q", "attn_k", "attn_v", "attn_dense", "mlp_h_to_4h", "mlp_4h_to_h", "mlp_gate", "cross_attn_qkv", "cross_attn_q",
    "cross_attn_k", "cross_attn_v", "cross_attn_dense", "moe_h_to_4h", "moe_4h_to_h", "moe_gate", "moe_router", "mlp_router", "mlp_gate_up",
)  # fmt: skip


def _on_off(text: str) -> bool:
    if text not in {"enable", "disable"}:
        raise argparse.ArgumentTypeError(f"invalid choice: {text!r} (choose from 'enable', 'disable')")
    return text == "enable"


def parser() -> argparse.ArgumentParser:
    """The parser. There is no --tp_size, --pp_size or --dtype: the checkpoint's config.json says these."""
    p = argparse.ArgumentParser(prog="trtllm-build", description="TensorRT-LLM SIMULATOR: writes engines that only the simulator can run")
    p.add_argument("--checkpoint_dir", type=str, default=None, help="The directory path that contains TensorRT-LLM checkpoint.")
    for flag in ("model_config", "build_config", "model_cls_file", "model_cls_name", "input_timing_cache", "visualize_network"):
        p.add_argument(f"--{flag}", type=str, default=None)
    p.add_argument("--output_dir", type=str, default="engine_outputs", help="The directory path to save the serialized engine files.")
    p.add_argument("--max_batch_size", type=int, default=2048)
    p.add_argument("--max_input_len", type=int, default=1024)
    p.add_argument("--max_seq_len", "--max_decoder_seq_len", dest="max_seq_len", type=int, default=None)
    p.add_argument("--max_beam_width", type=int, default=1)
    p.add_argument("--max_num_tokens", type=int, default=8192)
    p.add_argument("--opt_num_tokens", type=int, default=None)
    p.add_argument("--max_encoder_input_len", type=int, default=1024)
    p.add_argument("--max_prompt_embedding_table_size", "--max_multimodal_len", type=int, default=0)
    p.add_argument("--kv_cache_type", default=argparse.SUPPRESS, type=str, choices=["continuous", "paged", "disabled"])
    p.add_argument(
        "--paged_kv_cache",
        type=str,
        default=argparse.SUPPRESS,
        help="Deprecated. Enabling this option is equvilient to `--kv_cache_type paged`.",
    )
    p.add_argument("--output_timing_cache", type=str, default="model.cache", help="The file path to write the updated timing cache.")
    p.add_argument("--profiling_verbosity", type=str, default="layer_names_only", choices=["layer_names_only", "detailed", "none"])
    for flag in ("strip_plan", "weight_sparsity", "weight_streaming", "fast_build", "enable_debug_output", "dry_run", "monitor_memory"):
        p.add_argument(f"--{flag}", default=False, action="store_true")
    p.add_argument("--workers", type=int, default=1, help="The number of workers for building in parallel.")
    p.add_argument("--log_level", type=str, default="info", choices=log.LEVELS)
    p.add_argument("--logits_dtype", type=str, default=None, choices=["float16", "float32"])
    for flag in ("gather_context_logits", "gather_generation_logits", "gather_all_token_logits"):
        p.add_argument(f"--{flag}", action="store_true", default=False)
    p.add_argument("--lora_dir", type=str, default=None, nargs="+")
    p.add_argument("--lora_ckpt_source", type=str, default="hf", choices=["hf", "nemo"])
    p.add_argument("--lora_target_modules", nargs="+", default=None, choices=_LORA_MODULES)
    p.add_argument("--max_lora_rank", type=int, default=64)
    modes = ["draft_tokens_external", "lookahead_decoding", "medusa", "explicit_draft_tokens", "eagle"]
    p.add_argument("--speculative_decoding_mode", default=None, choices=modes)
    p.add_argument("--max_draft_len", type=int, default=0)
    for flag, (choices, default) in PLUGIN_TYPES.items():
        p.add_argument(f"--{flag}", type=str, default=default, choices=[*choices, "disable"])
    for flag, on in PLUGIN_SWITCHES.items():
        p.add_argument(f"--{flag}", type=_on_off, default=on, metavar="{enable,disable}")
    p.add_argument("--tokens_per_block", type=int, default=32)
    return p


def plugins(arguments: argparse.Namespace) -> dict[str, Any]:
    """plugin_config of the engine. A disabled plugin is null.

    Raises:
        AssertionError, RuntimeError: combinations that the real tool refuses.
    """
    if arguments.streamingllm:
        raise AssertionError("StreamingLLM is no longer supported because it isn't used by any model")
    if arguments.multiple_profiles and arguments.opt_num_tokens is not None:
        raise RuntimeError(
            "multiple_profiles is enabled, while opt_num_tokens is set. They are not supposed to be working in the same time for now."
        )
    result: dict[str, Any] = {}
    for name in PLUGIN_TYPES:
        value = getattr(arguments, name)
        result[name] = None if value == "disable" else value
    result |= {name: getattr(arguments, name) for name in PLUGIN_SWITCHES}
    result["tokens_per_block"] = arguments.tokens_per_block
    for name, value in result.items():
        log.info(f"Set {name} to {value}.")
    return result
