"""`convert_checkpoint.py` for Llama: a Hugging Face checkpoint becomes a TensorRT-LLM checkpoint, one file per rank.

Flags: examples/models/core/llama/convert_checkpoint.py at 368f8f2a.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from trtllm_simulator import checkpoint, faults, log, sharding, tensors, versions

_QUANTISING = (
    "use_weight_only", "smoothquant", "per_channel", "per_token", "int8_kv_cache", "fp8_kv_cache", "use_fp8", "use_fp8_rowwise", "use_nvfp4",
    "use_qserve", "per_group", "quant_ckpt_path", "meta_ckpt_dir",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The flags of the real script."""
    p = argparse.ArgumentParser(prog="convert_checkpoint.py", description="TensorRT-LLM SIMULATOR: converts on the CPU, quantises nothing")
    p.add_argument("--model_dir", type=str, default=None)
    p.add_argument("--meta_ckpt_dir", type=str, default=None)
    p.add_argument("--output_dir", type=str, default="tllm_checkpoint", help="The path to save the TensorRT-LLM checkpoint")
    p.add_argument("--dtype", type=str, default="auto", choices=["auto", "float16", "bfloat16", "float32"])
    p.add_argument("--tp_size", type=int, default=1, help="N-way tensor parallelism size")
    p.add_argument("--pp_size", type=int, default=1, help="N-way pipeline parallelism size")
    p.add_argument("--cp_size", type=int, default=1, help="N-way context parallelism size")
    p.add_argument("--moe_tp_size", type=int, default=-1)
    p.add_argument("--moe_ep_size", type=int, default=-1)
    p.add_argument("--workers", type=int, default=1, help="The number of workers for converting checkpoint in parallel")
    p.add_argument("--use_weight_only", action="store_true")
    p.add_argument(
        "--weight_only_precision", type=str, nargs="?", default="int8", choices=["int8", "int4", "int8_gptq", "int4_gptq", "int4_awq"]
    )
    p.add_argument("--smoothquant", "-sq", type=float, default=None)
    for flag in (
        "per_channel",
        "per_token",
        "int8_kv_cache",
        "fp8_kv_cache",
        "use_fp8",
        "use_fp8_rowwise",
        "use_nvfp4",
        "use_qserve",
        "per_group",
    ):
        p.add_argument(f"--{flag}", action="store_true")
    p.add_argument("--group_size", type=int, default=128)
    p.add_argument("--quant_ckpt_path", type=str, default=None)
    p.add_argument("--calib_dataset", type=str, default="ccdv/cnn_dailymail")
    p.add_argument("--calib_size", type=int, default=512)
    p.add_argument("--calib_max_seq_length", type=int, default=512)
    p.add_argument("--load_by_shard", action="store_true")
    p.add_argument("--load_model_on_cpu", action="store_true")
    p.add_argument("--use_parallel_embedding", action="store_true")
    p.add_argument("--embedding_sharding_dim", type=int, default=0, choices=[0, 1])
    p.add_argument("--save_config_only", action="store_true")
    p.add_argument("--log_level", type=str, default="info", choices=log.LEVELS)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status; errors are raised, as in the real script."""
    behaviour = versions.installed()
    arguments = parser().parse_args(argv)
    log.set_level(arguments.log_level)
    log.banner(versions.notice(behaviour))
    if behaviour.tensorrt is None:
        raise NotImplementedError(f"convert_checkpoint.py was removed with the TensorRT backend; TensorRT-LLM {behaviour.version} has none")
    print(behaviour.version)
    for flag in _QUANTISING:
        if getattr(arguments, flag) not in (None, False):
            raise NotImplementedError(f"the simulator does not implement --{flag}")
    if arguments.cp_size != 1:
        raise NotImplementedError("the simulator does not implement --cp_size")
    if arguments.model_dir is None:
        raise AssertionError("One of model_dir and meta_ckpt_dir must be specified")
    started = time.monotonic()
    convert(Path(arguments.model_dir), Path(arguments.output_dir), arguments)
    print(f"Total time of converting checkpoints: {log.elapsed(time.monotonic() - started)}")
    return 0


def convert(source: Path, target: Path, arguments: argparse.Namespace) -> None:
    """Reads `source`, writes `target`.

    Raises:
        OSError, ValueError, KeyError: the source is no Hugging Face checkpoint of a Llama.
        AssertionError: the model can't be split like this, or a rank failed.
    """
    config = checkpoint.from_huggingface(source, arguments.dtype)
    fault = faults.parse(config.simulator).convert
    mapping = checkpoint.Mapping(arguments.tp_size, arguments.pp_size)
    if fault.fail == "unsupported":
        raise AssertionError(f"Unsupported model architecture: {config.architecture}")
    if fault.fail == "hang":
        faults.hang()
    sharding.check(config, mapping)
    target.mkdir(parents=True, exist_ok=True)
    content = checkpoint.to_trtllm(config, mapping)
    (target / "config.json").write_text(json.dumps(content, indent=4))
    if arguments.save_config_only:
        return
    weights = tensors.load_huggingface(source)

    def save(rank: int) -> None:
        faults.pause(fault.seconds_per_rank)
        if fault.fail == "host-oom":
            faults.host_out_of_memory()
        path = target / f"rank{rank}.safetensors"
        data = tensors.dumps(sharding.shard(weights, config, mapping, rank), config.dtype)
        if fault.fail == "disk-full":
            faults.disk_full(path, data)
        path.write_bytes(data)
        log.info(f"Rank {rank}: saved {len(data)} bytes to {path}")

    _on_each_rank(save, mapping.world, arguments.workers)


def _on_each_rank(save: Callable[[int], None], world: int, workers: int) -> None:
    failed = []
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        for future in as_completed([pool.submit(save, rank) for rank in range(world)]):
            if (error := future.exception()) is not None:
                traceback.print_exception(error)
                failed.append(error)
    if failed:
        raise AssertionError("Checkpoint conversion failed, please check error log.")


if __name__ == "__main__":
    sys.exit(main())
