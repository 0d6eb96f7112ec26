"""Which failure a program's exit code and log stand for."""

from __future__ import annotations

import pytest

from trtllm_operator.builder import failures
from trtllm_operator.builder.failures import Log, classify

NOISE = [f"[TRT-LLM] [I] line {number}" for number in range(100)]

CASES = [
    ("build", 1, "AssertionError: Unsupported model architecture: FooForCausalLM", "UnsupportedArchitecture"),
    ("smoke", 1, "ValueError: Unknown architecture for AutoModelForCausalLM: GraniteForCausalLM", "UnsupportedArchitecture"),
    (
        "convert",
        1,
        "ValueError: The repository for /m contains custom code which must be executed to correctly load the model.",
        "InvalidModel",
    ),
    (
        "smoke",
        1,
        "[TRT] [E] 6: The engine plan file is generated on an incompatible device, expecting compute 9.0 got compute 8.9, please rebuild.",
        "GPUMismatch",
    ),
    ("smoke", 1, "RuntimeError: CUDA driver version is insufficient for CUDA runtime version", "GPUMismatch"),
    (
        "smoke",
        1,
        "[TRT] [E] 6: The engine plan file is not compatible with this version of TensorRT, expecting library version 10.14.1.48 got 10.13.3.9",
        "EngineVersionMismatch",
    ),
    (
        "smoke",
        1,
        "Error while creating shared memory segment /dev/shm/nccl-abc (size 9637888), error: No space left on device (28)",
        "NCCLInitFailed",
    ),
    ("build", 1, "OSError: [Errno 28] No space left on device: '/engines/x/rank0.engine'", "DiskFull"),
    ("build", 2, "trtllm-build: error: unrecognized arguments: --tp_size 2", "BadOptions"),
    ("smoke", 2, "Error: Invalid value for '--backend': 'tensorrt' is not one of 'pytorch'.", "BadOptions"),
    ("build", 1, "RuntimeError: multiple_profiles is enabled, while opt_num_tokens is set. Only one can be used.", "BadOptions"),
    ("build", 1, "NotImplementedError: gemm_swiglu_plugin=fp8 is not supported on SM 100.", "BadOptions"),
    ("smoke", 1, "ValueError: LLM got invalid argument: kv_cache_dtype", "BadOptions"),
    ("smoke", 1, "[TensorRT-LLM][ERROR] Assertion failed: MPI size 1 != TP size 2 * PP size 1", "ParallelismMismatch"),
    (
        "smoke",
        1,
        "RuntimeError: Cannot instantiate Generator for engine built for 2 ranks, while currently running on 1 ranks.",
        "ParallelismMismatch",
    ),
    ("build", 1, "ValueError: unsupported quant mode: 4", "UnsupportedDtype"),
    ("build", 1, "RuntimeError: Only 8 GPUs are available, but 16 are required.", "GPUNotFound"),
    (
        "smoke",
        1,
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB",
        "GPUOutOfMemory",
    ),
    ("smoke", 1, "Executor creation failed due to insufficient GPU memory.", "GPUOutOfMemory"),
    (
        "build",
        1,
        "[TRT] [E] 2: [virtualMemoryBuffer.cpp::resizePhysical::144] Error Code 2: OutOfMemory (no further information)",
        "GPUOutOfMemory",
    ),
    ("build", 1, "RuntimeError: CUDA error: uncorrectable ECC error encountered", "GPUFailed"),
    ("smoke", 1, "mpi4py.MPI.Exception: MPI_ERR_UNKNOWN: unknown error", "MPISpawnFailed"),
    ("smoke", 1, "Executor creation failed with NCCL error: Failed, NCCL error x.cpp:42 'unhandled cuda error'", "NCCLInitFailed"),
    ("convert", 1, "mpirun noticed that process rank 1 exited on signal 9 (Killed).", "HostOutOfMemory"),
    ("convert", 2, "python3: can't open file '/app/x.py': [Errno 2] No such file or directory", "ToolNotFound"),
    ("convert", 1, "ModuleNotFoundError: No module named 'tensorrt_llm.bindings'", "ToolNotFound"),
    ("convert", 1, "huggingface_hub.errors.OfflineModeIsEnabled: Cannot reach https://hub/api", "InvalidModel"),
    ("build", 1, "[TRT] [W] Requested amount of GPU memory (17179869184 bytes) could not be allocated.", "GPUOutOfMemory"),
]


def log_of(*lines: str) -> Log:
    log = Log()
    for line in (*NOISE, *lines, *NOISE):
        log.feed(line)
    return log


@pytest.mark.parametrize(("step", "code", "line", "reason"), CASES)
def test_texts(step: str, code: int, line: str, reason: str) -> None:
    failure = classify(
        step, "program", code, log_of("Traceback (most recent call last):", line, "RuntimeError: Executor worker returned error")
    )
    assert failure.reason == reason
    assert failure.step == step
    assert line[:200] in failure.message
    assert failure.message.startswith("program ")
    assert line[:200] in str(failure.detail)


def test_every_row_has_a_text() -> None:
    assert [row.pattern.pattern for row in failures.ROWS if not any(row.pattern.search(line) for _, _, line, _ in CASES)] == []


@pytest.mark.parametrize(
    ("step", "code", "reason"),
    [
        ("convert", -9, "HostOutOfMemory"),
        ("build", 137, "HostOutOfMemory"),
        ("build", 127, "ToolNotFound"),
        ("build", 126, "ToolNotFound"),
        ("convert", 1, "ConvertFailed"),
        ("build", 1, "BuildFailed"),
        ("build", -11, "BuildFailed"),
        ("smoke", 1, "VerifyFailed"),
    ],
)
def test_exit_codes(step: str, code: int, reason: str) -> None:
    assert classify(step, "program", code, log_of("nothing known")).reason == reason


def test_the_first_row_is_more_decisive_than_an_earlier_line() -> None:
    log = log_of("torch.OutOfMemoryError: CUDA out of memory.", "AssertionError: Unsupported model architecture: Foo")
    assert classify("build", "trtllm-build", 1, log).reason == "UnsupportedArchitecture"


def test_a_refused_option_counts_with_its_exit_code_only() -> None:
    assert classify("build", "trtllm-build", 1, log_of("x: error: argument --a: invalid")).reason == "BuildFailed"


def test_an_unknown_failure_names_the_last_exception() -> None:
    log = log_of("KeyError: 'model.layers.0'", "AssertionError: Engine building failed, please check error log.")
    failure = classify("build", "trtllm-build", 1, log)
    assert failure.reason == "BuildFailed"
    assert "KeyError: 'model.layers.0'" in failure.message
    assert "KeyError" in str(failure.detail)


def test_a_silent_failure() -> None:
    assert "it printed nothing" in classify("build", "trtllm-build", 3, Log()).message
