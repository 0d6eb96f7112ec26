"""The model configuration: from Hugging Face's config.json, to and from the config.json of a TensorRT-LLM checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")
"""What the simulator computes: the layout of Llama."""


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a Llama."""

    architecture: str
    dtype: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate_size: int
    epsilon: float
    theta: float
    rope_scaling: dict[str, Any] | None
    max_positions: int
    tied: bool
    simulator: dict[str, Any]
    """Content of the repository's simulator.json (see `faults`)."""


@dataclass(frozen=True)
class Mapping:
    """How a model is spread over GPUs. Rank = pipeline rank * tensor-parallel size + tensor rank."""

    tp: int = 1
    pp: int = 1

    @property
    def world(self) -> int:
        """Number of ranks."""
        return self.tp * self.pp


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        TypeError: it is no JSON object.
    """
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise TypeError(f"{path} must hold a JSON object")
    return content


def huggingface_config(directory: Path) -> dict[str, Any]:
    """config.json of a Hugging Face checkpoint.

    Raises:
        OSError: there is none (text of transformers).
        ValueError: it does not describe a model (text of transformers).
    """
    path = directory / "config.json"
    if not path.exists():
        raise OSError(
            f"{directory} does not appear to have a file named config.json. Checkout 'https://huggingface.co/{directory}/tree/main' for available files."
        )
    content = read_json(path)
    if "model_type" not in content:
        raise ValueError(f"Unrecognized model in {directory}. Should have a `model_type` key in its config.json.")
    return content


def from_huggingface(directory: Path, dtype: str = "auto") -> ModelConfig:
    """Configuration of a Hugging Face checkpoint. float32 becomes float16 with `auto`, as in convert_checkpoint.py's infer_dtype.

    Raises:
        OSError, ValueError: see `huggingface_config`.
        NotImplementedError: what the simulator does not compute.
    """
    content = huggingface_config(directory)
    for key in ("attention_bias", "mlp_bias", "quantization_config"):
        if content.get(key):
            raise NotImplementedError(f"the simulator computes no model with {key} (config.json of {directory})")
    if dtype == "auto":
        dtype = str(content.get("dtype") or content.get("torch_dtype") or "float16")
        dtype = "float16" if dtype == "float32" else dtype
    scaling = content.get("rope_scaling") or None
    if scaling and scaling.get("rope_type", scaling.get("type")) not in {"default", "linear", "llama3"}:
        raise NotImplementedError(f"the simulator computes no rope_scaling {scaling} (config.json of {directory})")
    heads = int(content["num_attention_heads"])
    faults = directory / "simulator.json"
    return ModelConfig(
        architecture=str((content.get("architectures") or ["unknown"])[0]),
        dtype=dtype,
        vocab_size=int(content["vocab_size"]),
        hidden_size=int(content["hidden_size"]),
        layers=int(content["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(content.get("num_key_value_heads") or heads),
        head_size=int(content.get("head_dim") or int(content["hidden_size"]) // heads),
        intermediate_size=int(content["intermediate_size"]),
        epsilon=float(content.get("rms_norm_eps", 1e-6)),
        theta=float(content.get("rope_theta") or (content.get("rope_parameters") or {}).get("rope_theta") or 10000.0),
        rope_scaling=scaling,
        max_positions=int(content.get("max_position_embeddings", 2048)),
        tied=bool(content.get("tie_word_embeddings", False)),
        simulator=read_json(faults) if faults.exists() else {},
    )


def to_trtllm(config: ModelConfig, mapping: Mapping) -> dict[str, Any]:
    """config.json of a TensorRT-LLM checkpoint (LLaMAConfig.to_dict, as far as it matters here). `simulator` is an addition of ours."""
    return {
        "architecture": config.architecture,
        "producer": {"name": "simulator", "version": "1"},
        "dtype": config.dtype,
        "logits_dtype": "float32",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_size": config.head_size,
        "intermediate_size": config.intermediate_size,
        "hidden_act": "silu",
        "norm_epsilon": config.epsilon,
        "position_embedding_type": "rope_gpt_neox",
        "rotary_base": config.theta,
        "rotary_scaling": config.rope_scaling,
        "max_position_embeddings": config.max_positions,
        "attn_bias": False,
        "mlp_bias": False,
        "use_parallel_embedding": False,
        "embedding_sharding_dim": 0,
        "runtime_defaults": None,
        "mapping": {
            "world_size": mapping.world,
            "gpus_per_node": 8,
            "cp_size": 1,
            "tp_size": mapping.tp,
            "pp_size": mapping.pp,
            "moe_tp_size": mapping.tp,
            "moe_cluster_size": 1,
            "moe_ep_size": 1,
        },
        "quantization": {
            "quant_algo": None,
            "kv_cache_quant_algo": None,
            "group_size": 128,
            "smoothquant_val": 0.5,
            "clamp_val": None,
            "has_zero_point": False,
            "pre_quant_scale": False,
            "exclude_modules": None,
        },
        "simulator": config.simulator,
    }


def from_trtllm(content: dict[str, Any]) -> tuple[ModelConfig, Mapping]:
    """Configuration and mapping from the config.json of a TensorRT-LLM checkpoint, or `pretrained_config` of an engine.

    Raises:
        KeyError: something is missing.
    """
    mapping = content["mapping"]
    config = ModelConfig(
        architecture=content["architecture"],
        dtype=content["dtype"],
        vocab_size=content["vocab_size"],
        hidden_size=content["hidden_size"],
        layers=content["num_hidden_layers"],
        heads=content["num_attention_heads"],
        kv_heads=content["num_key_value_heads"],
        head_size=content["head_size"],
        intermediate_size=content["intermediate_size"],
        epsilon=content["norm_epsilon"],
        theta=content["rotary_base"],
        rope_scaling=content.get("rotary_scaling"),
        max_positions=content["max_position_embeddings"],
        tied=False,
        simulator=content.get("simulator") or {},
    )
    return config, Mapping(mapping["tp_size"], mapping["pp_size"])
