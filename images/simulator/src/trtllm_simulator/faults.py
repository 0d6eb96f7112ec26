"""Misbehaviour on request: the file `simulator.json` in a model's repository. It travels with the model: convert_checkpoint.py copies it
into the TensorRT-LLM checkpoint's config.json, trtllm-build from there into the engine's. Failure texts are those of the real tools.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from trtllm_simulator import log

Fail = Literal["gpu-oom", "host-oom", "disk-full", "unsupported", "no-engine", "half-engine", "hang"]


class _Faults(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True, frozen=True)


class ConvertFaults(_Faults):
    fail: Literal["host-oom", "disk-full", "unsupported", "hang"] | None = None
    seconds_per_rank: float = Field(0, ge=0)


class BuildFaults(_Faults):
    fail: Fail | None = None
    seconds_per_rank: float = Field(0, ge=0)


class ServeFaults(_Faults):
    fail: Literal["gpu-oom", "nccl", "host-oom", "hang"] | None = None
    load_seconds: float = Field(0, ge=0)
    health_lies: bool = False
    """/health says 200, every generation fails."""
    crash_after_tokens: int | None = Field(None, ge=0)
    """The engine dies after so many tokens, counted over all requests."""
    crash: Literal["exit", "linger"] = "exit"
    """What the server does then: it ends itself, or it stays and answers 503 (#18663)."""
    token_delay: float = Field(0, ge=0)
    """Seconds for each step of the engine."""


class LlmapiFaults(_Faults):
    fail: Literal["gpu-oom", "nccl", "host-oom", "hang"] | None = None
    load_seconds: float = Field(0, ge=0)
    empty_output: bool = False
    """Generation ends at once, without a token."""
    token_delay: float = Field(0, ge=0)


class Faults(_Faults):
    """Content of simulator.json."""

    convert: ConvertFaults = ConvertFaults()
    build: BuildFaults = BuildFaults()
    serve: ServeFaults = ServeFaults()
    llmapi: LlmapiFaults = LlmapiFaults()


def parse(content: Mapping[str, Any]) -> Faults:
    """Faults from the content of simulator.json.

    Raises:
        pydantic.ValidationError: an unknown key or value.
    """
    return Faults.model_validate(content)


def pause(seconds: float) -> None:
    """Time that the work would take on a GPU."""
    if seconds:
        time.sleep(seconds)


def hang() -> NoReturn:
    """Does nothing, until it is stopped from outside."""
    while True:
        signal.pause()


def host_out_of_memory() -> NoReturn:
    """Ends as a process that the kernel's OOM killer has chosen."""
    log.error("the kernel kills this process next (simulated lack of host memory)")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL can't be survived")


def disk_full(path: Path, content: bytes) -> NoReturn:
    """Leaves half a file behind.

    Raises:
        OSError: No space left on device.
    """
    path.write_bytes(content[: len(content) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def build_out_of_gpu_memory(memory_mib: int) -> NoReturn:
    """TensorRT runs out of GPU memory in a build (#346, #102; troubleshooting.md).

    Raises:
        AssertionError: the text of trtllm-build.
    """
    log.log("warning", f"Requested amount of GPU memory ({2 * memory_mib * 2**20} bytes) could not be allocated. "
            "There may not be enough free memory for allocation to succeed.", source="TRT")  # fmt: skip
    log.log("error", "2: [virtualMemoryBuffer.cpp::resizePhysical::144] Error Code 2: OutOfMemory (no further information)", source="TRT")
    raise AssertionError("Engine building failed, please check error log.")


def load_failure(fail: Literal["gpu-oom", "nccl", "host-oom", "hang"], memory_mib: int) -> NoReturn:
    """A model that can't be loaded (py_executor_creator.py; #7818, #8642).

    Raises:
        RuntimeError: the text of the executor, whose cause is further up in the log.
    """
    if fail == "hang":
        hang()
    if fail == "host-oom":
        host_out_of_memory()
    total = memory_mib / 1024
    if fail == "nccl":
        log.error(
            "Executor creation failed with NCCL error: Failed, NCCL error runtime.cpp:42 'unhandled cuda error (run with NCCL_DEBUG=INFO for details)'"
        )
        sys.stderr.write(
            "Error while creating shared memory segment /dev/shm/nccl-sim000 (size 33030528), error: No space left on device (28)\n"
        )
    else:
        sys.stderr.write(
            f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of {total:.2f} GiB "
            "of which 1.04 GiB is free.\n"
        )
        log.error(
            "Executor creation failed due to insufficient GPU memory.\n\nThe following component could not be created: Initial KV cache\n"
            f"Total GPU memory (GiB): {total:.2f}\nFree GPU memory before component creation attempt (GiB): 1.04\n"
        )
    raise RuntimeError("Executor worker returned error")
