"""Arguments of the LLM, which are also the keys of trtllm-serve's options file: llm_args.py (about November 2025, and documentation).

Values that the simulator doesn't act on are accepted as they are; keys that don't exist are refused as the real classes do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class KvCacheConfig(_Strict):
    free_gpu_memory_fraction: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    tokens_per_block: int = Field(32, ge=1)
    dtype: str = "auto"
    enable_block_reuse: bool = True
    enable_partial_reuse: bool = True
    copy_on_partial_reuse: bool = True
    host_cache_size: int | None = None
    onboard_blocks: bool = True
    secondary_offload_min_priority: int | None = None
    event_buffer_max_size: int = 0
    attention_dp_events_gather_period_ms: int = 5
    max_attention_window: list[int] | None = None
    sink_token_length: int | None = None
    cross_kv_cache_fraction: float | None = None
    use_uvm: bool = False
    max_gpu_total_bytes: int = 0
    mamba_ssm_cache_dtype: str = "auto"


class BaseLlmArgs(_Strict):
    model: str | Path
    tokenizer: str | Path | None = None
    tokenizer_mode: Literal["auto", "slow"] = "auto"
    custom_tokenizer: str | None = None
    skip_tokenizer_init: bool = False
    trust_remote_code: bool = False
    tensor_parallel_size: int = Field(1, ge=1)
    pipeline_parallel_size: int = Field(1, ge=1)
    context_parallel_size: int = Field(1, ge=1)
    gpus_per_node: int | None = None
    moe_cluster_parallel_size: int | None = None
    moe_tensor_parallel_size: int | None = None
    moe_expert_parallel_size: int | None = None
    enable_attention_dp: bool = False
    dtype: str = "auto"
    revision: str | None = None
    tokenizer_revision: str | None = None
    cp_config: dict[str, Any] | None = None
    load_format: str | int = "auto"
    fail_fast_on_attention_window_too_large: bool = False
    enable_lora: bool = False
    lora_config: Any = None
    kv_cache_config: KvCacheConfig = Field(default_factory=KvCacheConfig)
    enable_chunked_prefill: bool = False
    guided_decoding_backend: Literal["xgrammar", "llguidance"] | None = None
    batched_logits_processor: Any = None
    iter_stats_max_iterations: int | None = None
    request_stats_max_iterations: int | None = None
    peft_cache_config: Any = None
    scheduler_config: Any = None
    cache_transceiver_config: Any = None
    sparse_attention_config: Any = None
    speculative_config: Any = None
    max_batch_size: int | None = Field(None, ge=1)
    max_input_len: int | None = Field(None, ge=1)
    max_seq_len: int | None = Field(None, ge=1)
    max_beam_width: int | None = Field(None, ge=1)
    max_num_tokens: int | None = Field(8192, ge=1)
    gather_generation_logits: bool = False
    num_postprocess_workers: int = 0
    postprocess_tokenizer_dir: str | None = None
    reasoning_parser: str | None = None
    decoding_config: Any = None
    otlp_traces_endpoint: str | None = None
    backend: str | None = None
    return_perf_metrics: bool = False
    orchestrator_type: Literal["rpc", "ray"] | None = None
    env_overrides: dict[str, str] | None = None


class TorchLlmArgs(BaseLlmArgs):
    build_config: Any = None
    cuda_graph_config: Any = Field(default_factory=dict)
    attention_dp_config: Any = None
    disable_overlap_scheduler: bool = False
    moe_config: Any = None
    attn_backend: str = "TRTLLM"
    sampler_type: str = "auto"
    enable_iter_perf_stats: bool = False
    enable_iter_req_stats: bool = False
    print_iter_log: bool = False
    perf_metrics_max_requests: int = 0
    batch_wait_timeout_ms: float = 0
    batch_wait_timeout_iters: int = 0
    batch_wait_max_tokens_ratio: float = 0
    torch_compile_config: Any = None
    enable_autotuner: bool = True
    enable_layerwise_nvtx_marker: bool = False
    enable_min_latency: bool = False
    stream_interval: int = Field(1, ge=1)
    force_dynamic_quantization: bool = False
    allreduce_strategy: str = "AUTO"
    checkpoint_loader: Any = None
    checkpoint_format: str | None = None
    kv_connector_config: Any = None
    mm_encoder_only: bool = False
    quant_config: Any = None
    garbage_collection_gen0_threshold: int = 20000


class TrtLlmArgs(BaseLlmArgs):
    build_config: Any = None
    quant_config: Any = None
    calib_config: Any = None
    enable_tqdm: bool = False
    workspace: str | None = None
    enable_build_cache: Any = False
    extended_runtime_perf_knob_config: Any = None
    embedding_parallel_mode: str = "SHARDING_ALONG_VOCAB"
    fast_build: bool = False
    batching_type: Any = None
    normalize_log_probs: bool = False


TRT_ONLY = frozenset(TrtLlmArgs.model_fields) - frozenset(TorchLlmArgs.model_fields)
