"""`trtllm-build`: a TensorRT-LLM checkpoint becomes an engine directory, `config.json` and one `rank{N}.engine` for each rank."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from trtllm_simulator import build_flags, checkpoint, engine, faults, gpu, log, tensors, versions


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status; errors are raised, as in the real tool."""
    behaviour = versions.installed()
    if behaviour.tensorrt is None:
        sys.stderr.write(f"trtllm-build was removed with the TensorRT backend; TensorRT-LLM {behaviour.version} (simulator) has none\n")
        return 127
    arguments = build_flags.parser().parse_args(argv)
    log.set_level(arguments.log_level)
    log.banner(versions.notice(behaviour))
    started = time.monotonic()
    build(arguments, behaviour, behaviour.tensorrt)
    log.info(f"Total time of building all engines: {log.elapsed(time.monotonic() - started)}")
    return 0


def build(arguments: argparse.Namespace, behaviour: versions.Behaviour, tensorrt: str) -> None:
    """Builds all ranks.

    Raises:
        OSError, ValueError, KeyError: there is no checkpoint.
        AssertionError, RuntimeError: the checkpoint can't be built like this.
    """
    source, target = _source(arguments), Path(arguments.output_dir)
    plugins = build_flags.plugins(arguments)
    content = checkpoint.read_json(Path(arguments.model_config) if arguments.model_config else source / "config.json")
    config, mapping = checkpoint.from_trtllm(content)
    fault = faults.parse(config.simulator).build
    architecture = "SimulatedForCausalLM" if fault.fail == "unsupported" else config.architecture
    if architecture not in checkpoint.ARCHITECTURES:
        raise AssertionError(f"Unsupported model architecture: {architecture}")
    gpus = gpu.visible()
    if not gpus:
        raise RuntimeError("No CUDA GPUs are available")
    log.info(f"Compute capability: {gpus[0].capability}")
    log.info(f"Memory size: {gpus[0].memory_mib} MiB, name: {gpus[0].name} (simulated)")
    log.info(f"Set dtype to {config.dtype}.")
    build_config = _build_config(arguments, config) | {"plugin_config": plugins}
    if arguments.dry_run:
        return
    target.mkdir(parents=True, exist_ok=True)
    if fault.fail == "hang":
        faults.hang()

    def one(rank: int) -> None:
        _build_rank(
            rank,
            source,
            target,
            engine.Header(behaviour.version, tensorrt, gpus[0].compute_capability, mapping.tp, mapping.pp, rank),
            fault,
            gpus[0],
        )

    workers = min(len(gpus), arguments.workers)
    if not _all(one, mapping.world, workers):
        raise AssertionError("Engine building failed, please check error log.")
    if fault.fail != "no-engine":
        whole = {"version": behaviour.version, "pretrained_config": content, "build_config": build_config}
        (target / "config.json").write_text(json.dumps(whole, indent=4))
    timing = hashlib.sha256(json.dumps([content, build_config], sort_keys=True).encode()).digest()
    Path(arguments.output_timing_cache).write_bytes(b"TRTLLM-SIMULATOR-TIMING-CACHE\n" + timing)


def _source(arguments: argparse.Namespace) -> Path:
    for flag in ("build_config", "model_cls_file", "model_cls_name", "lora_dir", "speculative_decoding_mode"):
        if getattr(arguments, flag) is not None:
            raise NotImplementedError(f"the simulator does not implement --{flag}")
    if arguments.checkpoint_dir is None:
        if arguments.model_config is None:
            raise AssertionError("Either checkpoint_dir or model_config must be specified")
        raise NotImplementedError("the simulator does not build without weights: give --checkpoint_dir")
    source = Path(arguments.checkpoint_dir)
    if not (source / "config.json").is_file():
        raise FileNotFoundError(2, "No such file or directory", str(source / "config.json"))
    return source


def _build_config(arguments: argparse.Namespace, config: checkpoint.ModelConfig) -> dict[str, Any]:
    """Sizes, put right as BuildConfig does (builder.py, about 1.2)."""
    max_seq_len, max_input_len, max_num_tokens = arguments.max_seq_len, arguments.max_input_len, arguments.max_num_tokens
    if max_seq_len is None:
        max_seq_len = config.max_positions
        log.info(f"max_seq_len is not specified, using deduced value {max_seq_len}")
    elif max_seq_len > config.max_positions:
        log.warning(
            f"max_seq_len {max_seq_len} is larger than max_position_embeddings {config.max_positions} * rotary scaling 1, "
            "the model accuracy might be affected"
        )
    if max_input_len > max_seq_len:
        log.warning(f"max_input_len is {max_input_len} is larger than max_seq_len {max_seq_len}, clipping it to max_seq_len")
        max_input_len = max_seq_len
    if max_num_tokens > max_seq_len * arguments.max_batch_size:
        most = max_seq_len * arguments.max_batch_size
        log.warning(
            f"max_num_tokens ({max_num_tokens}) shouldn't be greater than max_seq_len * max_batch_size ({most}), "
            f"specifying to max_seq_len * max_batch_size ({most})."
        )
        max_num_tokens = most
    opt_num_tokens = arguments.opt_num_tokens
    if opt_num_tokens is None:
        opt_num_tokens = min(max_num_tokens, arguments.max_batch_size * arguments.max_beam_width)
        log.warning(f"Specifying a `opt_num_tokens` is recommended; using max_batch_size*max_beam_width ({opt_num_tokens})")
    return {
        "max_input_len": max_input_len,
        "max_seq_len": max_seq_len,
        "opt_batch_size": 8,
        "max_batch_size": arguments.max_batch_size,
        "max_beam_width": arguments.max_beam_width,
        "max_num_tokens": max_num_tokens,
        "opt_num_tokens": opt_num_tokens,
        "max_prompt_embedding_table_size": arguments.max_prompt_embedding_table_size,
        "kv_cache_type": str(getattr(arguments, "kv_cache_type", "paged")).upper(),
        "gather_context_logits": arguments.gather_context_logits or arguments.gather_all_token_logits,
        "gather_generation_logits": arguments.gather_generation_logits or arguments.gather_all_token_logits,
        "strongly_typed": True,
        "profiling_verbosity": arguments.profiling_verbosity,
        "enable_debug_output": arguments.enable_debug_output,
        "max_draft_len": arguments.max_draft_len,
        "speculative_decoding_mode": 1,
        "use_strip_plan": arguments.strip_plan,
        "weight_sparsity": arguments.weight_sparsity,
        "weight_streaming": arguments.weight_streaming,
        "max_encoder_input_len": arguments.max_encoder_input_len,
        "monitor_memory": arguments.monitor_memory,
        "lora_config": {"lora_dir": [], "lora_ckpt_source": "hf", "max_lora_rank": arguments.max_lora_rank, "lora_target_modules": []},
    }


def _build_rank(rank: int, source: Path, target: Path, header: engine.Header, fault: faults.BuildFaults, device: gpu.Gpu) -> None:
    started = time.monotonic()
    weights = (source / f"rank{rank}.safetensors").read_bytes()
    tensors.loads(weights)  # damaged files are found here
    log.info("Total time of constructing network from module object 0.01 seconds")
    log.info("Total optimization profiles added: 1")
    log.info(f"Build TensorRT engine Unnamed Network 0 (rank {rank})")
    if fault.fail == "gpu-oom":
        faults.build_out_of_gpu_memory(device.memory_mib)
    faults.pause(fault.seconds_per_rank)
    if fault.fail == "host-oom":
        faults.host_out_of_memory()
    took = time.monotonic() - started
    log.log("info", f"Engine generation completed in {took:.3f} seconds.", source="TRT")
    log.info(f"Total time of building Unnamed Network 0: {log.elapsed(took)}")
    path = target / f"rank{rank}.engine"
    data = engine.dump(header, weights)
    log.info(f"Serializing engine to {path}...")
    if fault.fail == "disk-full":
        faults.disk_full(path, data)
    if fault.fail == "half-engine":
        data = data[: len(data) // 2]
    if fault.fail != "no-engine":
        path.write_bytes(data)
    log.info(f"Engine serialized. Total time: {log.elapsed(time.monotonic() - started - took)}")


def _all(one: Callable[[int], None], world: int, workers: int) -> bool:
    """Builds all ranks; rank r would be on GPU r % workers. One worker fails with its own error, several with a common one."""
    if workers <= 1:
        for rank in range(world):
            one(rank)
        return True
    good = True
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for future in as_completed([pool.submit(one, rank) for rank in range(world)]):
            if (error := future.exception()) is not None:
                traceback.print_exception(error)
                good = False
    return good


if __name__ == "__main__":
    sys.exit(main())
