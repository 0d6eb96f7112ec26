"""Loads an engine or a Hugging Face checkpoint, with the checks of the real loaders, and makes the executor."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from trtllm_simulator import checkpoint, engine, faults, gpu, log, sharding, tensors, versions
from trtllm_simulator.executor import Executor, Limits
from trtllm_simulator.llama import Llama
from trtllm_simulator.llm_args import BaseLlmArgs, TorchLlmArgs, TrtLlmArgs
from trtllm_simulator.textio import TextIO


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to generate."""

    executor: Executor
    text: TextIO | None
    faults: faults.Faults
    args: BaseLlmArgs


def load(args: BaseLlmArgs, behaviour: versions.Behaviour, *, serving: bool) -> Loaded:
    """Loads what `args.model` names.

    Raises:
        OSError, ValueError, AssertionError, RuntimeError, NotImplementedError: it can't be loaded; texts of the real loaders.
    """
    path = Path(args.model)
    if not path.is_dir():
        raise OSError(f"{args.model} is not a directory, and the simulator downloads nothing: give the path of a checkpoint or an engine")
    for name in ("speculative_config", "lora_config", "orchestrator_type"):
        if getattr(args, name) is not None:
            raise NotImplementedError(f"the simulator does not implement {name}")
    if args.context_parallel_size > 1:
        raise NotImplementedError("the simulator does not implement context_parallel_size")
    started = time.monotonic()
    gpus = gpu.visible()
    if isinstance(args, TrtLlmArgs):
        config, mapping, limits = _engine_facts(path, args, behaviour)
    else:
        config, mapping, limits = _checkpoint_facts(path, args)
    if mapping.world > len(gpus):
        raise RuntimeError(f"Only {len(gpus)} GPUs are available, but {mapping.world} are required.")
    fault = faults.parse(config.simulator)
    chosen: faults.ServeFaults | faults.LlmapiFaults = fault.serve if serving else fault.llmapi
    if chosen.fail:
        faults.load_failure(chosen.fail, gpus[0].memory_mib)
    text = _tokenizer(path, args)
    trt = isinstance(args, TrtLlmArgs)
    ranks = _load_engine(path, mapping, behaviour, gpus[0]) if trt else _load_checkpoint(path, config, mapping)
    model = Llama(config, mapping, ranks)
    faults.pause(chosen.load_seconds)
    limits = _with_kv_cache(limits, config, args, model, gpus[0])
    if isinstance(args, TorchLlmArgs) and args.cuda_graph_config is not None:
        log.info("Creating CUDA graph instances for 1 batch sizes.")
    log.info(f"LLM loaded in {time.monotonic() - started:.2f} seconds")
    crash = fault.serve.crash_after_tokens if serving else None
    dead = serving and fault.serve.health_lies
    executor = Executor(model, limits, token_delay=chosen.token_delay, crash_after=crash, dead=dead)
    return Loaded(executor, text, fault, args)


def is_engine(path: Path) -> bool:
    """Is it an engine directory?"""
    config = path / "config.json"
    return config.is_file() and "build_config" in checkpoint.read_json(config)


def _engine_facts(path: Path, args: TrtLlmArgs, behaviour: versions.Behaviour) -> tuple[checkpoint.ModelConfig, checkpoint.Mapping, Limits]:
    if not is_engine(path):
        raise NotImplementedError(
            f"{path} is no engine, and the simulator builds none on the way: use trtllm-build, or the PyTorch backend"
        )
    if args.kv_cache_config.dtype != "auto":
        raise AssertionError("KvCacheConfig.dtype is not supported by the TensorRT backend.")
    content = checkpoint.read_json(path / "config.json")
    if args.build_config is not None:
        log.warning("The build_config is ignored for model format of TLLM_ENGINE.")
    config, mapping = checkpoint.from_trtllm(content["pretrained_config"])
    for name, given, built in (("tp_size", args.tensor_parallel_size, mapping.tp), ("pp_size", args.pipeline_parallel_size, mapping.pp)):
        if args.tensor_parallel_size * args.pipeline_parallel_size > 1 and given != built:
            raise ValueError(f"{name} {given} is not consistent with the engine's {name} {built}")
    log.log(
        "info",
        f"Engine version {content['version']} found in the config file, assuming engine(s) built by new builder API.",
        source="TensorRT-LLM",
    )
    if behaviour.tensorrt is None:
        raise ValueError("the TensorRT backend was removed")
    sizes = content["build_config"]
    limits = Limits(
        max_batch_size=min(sizes["max_batch_size"], args.max_batch_size or sizes["max_batch_size"]),
        max_seq_len=sizes["max_seq_len"],
        max_num_tokens=sizes["max_num_tokens"],
        chunked_prefill=args.enable_chunked_prefill,
        tokens_per_block=sizes["plugin_config"]["tokens_per_block"],
        kv_blocks=0,
    )
    return config, mapping, limits


def _checkpoint_facts(path: Path, args: BaseLlmArgs) -> tuple[checkpoint.ModelConfig, checkpoint.Mapping, Limits]:
    config = checkpoint.from_huggingface(path, args.dtype)
    if config.architecture not in checkpoint.ARCHITECTURES:
        raise ValueError(f"Unknown architecture for AutoModelForCausalLM: {config.architecture}")
    mapping = checkpoint.Mapping(args.tensor_parallel_size, args.pipeline_parallel_size)
    sharding.check(config, mapping)
    limits = Limits(
        max_batch_size=args.max_batch_size or 2048,
        max_seq_len=args.max_seq_len or config.max_positions,
        max_num_tokens=args.max_num_tokens or 8192,
        chunked_prefill=args.enable_chunked_prefill,
        tokens_per_block=args.kv_cache_config.tokens_per_block,
        kv_blocks=0,
    )
    return config, mapping, limits


def _tokenizer(path: Path, args: BaseLlmArgs) -> TextIO | None:
    if args.skip_tokenizer_init:
        return None
    if args.tokenizer is not None:
        return TextIO(Path(args.tokenizer))
    if isinstance(args, TrtLlmArgs):
        log.warning(f"There is no tokenizer in the engine directory {path}: give the Hugging Face directory as tokenizer")
        return None
    return TextIO(path)


def _load_engine(path: Path, mapping: checkpoint.Mapping, behaviour: versions.Behaviour, device: gpu.Gpu) -> list[dict[str, tensors.Array]]:
    ranks = []
    for rank in range(mapping.world):
        file = path / f"rank{rank}.engine"
        if not file.is_file():
            raise RuntimeError(f"[TensorRT-LLM][ERROR] Assertion failed: Error opening engine file: {file}")
        header, weights = engine.load(file, tensorrt=behaviour.tensorrt or "", compute_capability=device.compute_capability)
        if (header.tp_size, header.pp_size, header.rank) != (mapping.tp, mapping.pp, rank):
            raise RuntimeError(f"Assertion failed: mpiSize == tp * pp ({mapping.world} != {header.tp_size} * {header.pp_size})")
        ranks.append(weights)
    return ranks


def _load_checkpoint(path: Path, config: checkpoint.ModelConfig, mapping: checkpoint.Mapping) -> list[dict[str, tensors.Array]]:
    files = tensors.huggingface_files(path)
    log.info(f"Prefetching {sum(tensors.sizes(files)) / 2**30:.2f}GB checkpoint files.")
    log.info("Loading safetensors weights in parallel")
    with ThreadPoolExecutor(max_workers=4) as pool:
        parts = pool.map(lambda file: tensors.loads(file.read_bytes()), files)
    weights = {name: tensor for part in parts for name, tensor in part.items()}
    return [sharding.shard(weights, config, mapping, rank) for rank in range(mapping.world)]


def _with_kv_cache(limits: Limits, config: checkpoint.ModelConfig, args: BaseLlmArgs, model: Llama, device: gpu.Gpu) -> Limits:
    """KV cache from the memory that weights leave free, as the real executor computes it.

    Raises:
        RuntimeError: the weights don't fit into the GPUs' memory.
    """
    kv = args.kv_cache_config
    fraction = 0.9 if kv.free_gpu_memory_fraction is None else kv.free_gpu_memory_fraction
    free = device.memory_mib * 2**20 - model.bytes // model.mapping.world
    if free <= 0:
        faults.load_failure("gpu-oom", device.memory_mib)
    width = 4 if config.dtype == "float32" else 2
    per_token = 2 * (config.layers // model.mapping.pp) * max(1, config.kv_heads // model.mapping.tp) * config.head_size * width
    tokens = int(free * fraction) // per_token
    if kv.max_tokens is not None:
        tokens = min(tokens, kv.max_tokens)
    blocks = max(1, tokens // limits.tokens_per_block)
    longest = min(limits.max_seq_len, blocks * limits.tokens_per_block)
    gib = blocks * limits.tokens_per_block * per_token / 2**30
    for line in (
        f"[MemUsageChange] Allocated {gib:.2f} GiB for max tokens in paged KV cache ({blocks * limits.tokens_per_block}).",
        f"Max KV cache blocks per sequence: {limits.blocks(longest)} [window size={limits.max_seq_len}], max sequence length={longest}",
    ):
        log.log("info", line, source="TensorRT-LLM")
    return Limits(limits.max_batch_size, limits.max_seq_len, limits.max_num_tokens, limits.chunked_prefill, limits.tokens_per_block, blocks)
