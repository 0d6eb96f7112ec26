"""What a program's exit code and output say about why it failed.

The whole log is searched, not its end: the last line of a worker is often `RuntimeError: Executor worker returned error`, and the cause
stands far above. Rows are in the order of decisiveness: the first that matches a line anywhere wins.
"""

from __future__ import annotations

import re
import signal
from collections import deque
from dataclasses import dataclass

from trtllm_operator.builder.report import Failure, Reason


@dataclass(frozen=True)
class Row:
    """`code`: only with this exit code. `source`: where the text is known from."""

    reason: Reason
    pattern: re.Pattern[str]
    what: str
    advice: str
    source: str
    code: int | None = None


def _row(reason: Reason, what: str, advice: str, source: str, *patterns: str, code: int | None = None) -> Row:
    return Row(reason, re.compile("|".join(patterns)), what, advice, source, code)


_LESS_MEMORY = "Lower build.maxBatchSize, build.maxNumTokens or build.maxSeqLen, or raise parallelism.tensor"
_IMAGE = "Use NVIDIA's image of runtime.version, or one made from it"
_OPTIONS = "Correct build or build.extraArgs"
_SHM = "Check that the node gives /dev/shm enough memory, and its GPU interconnect"
_DEVICES = "Check the device plugin and runtimeClassName"
_UNKNOWN = "does not know the model's architecture"
_MEMORY = "ran out of GPU memory"
_NODE = "It is tried again. See the node's kernel log for Xid messages, and drain the node if it goes on"

# Each row: reason, what, advice, source, patterns.
ROWS: tuple[Row, ...] = (
    _row(
        "UnsupportedArchitecture",
        _UNKNOWN,
        "Use another model or version, or backend: pytorch",
        "tensorrt_llm/commands/build.py",
        r"Unsupported model architecture:",
    ),
    _row(
        "UnsupportedArchitecture",
        _UNKNOWN,
        "Use another model or version",
        "tensorrt_llm/_torch/models/modeling_auto.py",
        r"Unknown architecture for AutoModelForCausalLM:",
    ),
    _row(
        "InvalidModel",
        "refuses a model that brings code of its own",
        "Use a model that works without",
        "transformers/dynamic_module_utils.py",
        r"contains custom code which must be executed",
        r"pass the argument `trust_remote_code=True`",
    ),
    _row(
        "GPUMismatch",
        "was given an engine for another kind of GPU",
        "Correct accelerator.product or accelerator.computeCapability",
        "NVIDIA/TensorRT-LLM#3031",
        r"generated on an incompatible device, expecting compute",
    ),
    _row(
        "GPUMismatch",
        "needs a newer GPU driver than the node has",
        "Update the node's driver, or use an older runtime.version",
        "CUDA runtime, cudaErrorInsufficientDriver",
        r"CUDA driver version is insufficient for CUDA runtime version",
    ),
    _row(
        "EngineVersionMismatch",
        "was given an engine of another version of TensorRT",
        "Make runtime.version and runtime.image agree",
        "triton-inference-server/triton_cli#59",
        r"engine plan file is not compatible with this version of TensorRT",
    ),
    _row(
        "NCCLInitFailed",
        "found no room in /dev/shm",
        _SHM,
        "vllm-project/production-stack#276",
        r"Error while creating shared memory segment",
        r"/dev/shm\S*: No space left on device",  # noqa: S108  a text to look for
        r"No space left on device.*/dev/shm",
    ),
    _row(
        "DiskFull",
        "found no room on a volume",
        "Set storage.size of the LLMEngine to a higher value, or enlarge the claim",
        "strerror of ENOSPC and EDQUOT",
        r"No space left on device",
        r"Disk quota exceeded",
        r"\[Errno (28|122)\]",
    ),
    _row(
        "BadOptions",
        "refuses its options",
        _OPTIONS,
        "argparse",
        r"error: (unrecognized arguments|argument |ambiguous option|the following arguments are required)",
        code=2,
    ),
    _row(
        "BadOptions",
        "refuses its options",
        _OPTIONS,
        "click",
        r"^Error: (No such option|Invalid value|Missing (option|argument)|Got unexpected)",
        code=2,
    ),
    _row(
        "BadOptions",
        "refuses multipleProfiles together with optNumTokens",
        _OPTIONS,
        "tensorrt_llm/builder.py",
        r"multiple_profiles is enabled, while opt_num_tokens is set",
    ),
    _row(
        "BadOptions",
        "refuses a plugin",
        _OPTIONS,
        "tensorrt_llm/plugin/plugin.py",
        r"StreamingLLM is no longer supported",
        r"is not supported on SM \d+",
    ),
    _row(
        "BadOptions",
        "refuses its options",
        _OPTIONS,
        "tensorrt_llm/llmapi/llm.py",
        r"LLM got invalid argument",
        r"arguments are specific to TensorRT backend",
    ),
    _row(
        "ParallelismMismatch",
        "has another number of processes than the engine has ranks",
        "Choose parallelism that divides heads and layers",
        "NVIDIA/TensorRT-LLM#1992, #1047, #753",
        r"MPI size \d+ != TP size",
        r"mpiSize == tp \* pp",
        r"Engine world size .* != Runtime world size",
        r"engine built for \d+ ranks",
    ),
    _row(
        "UnsupportedDtype",
        "can't handle this number format",
        "Choose another precision or another model",
        "tensorrt_llm/layers/linear.py, convert_checkpoint.py",
        r"[Uu]nsupported quant[ _]mode",
        r"GPTQ with desc_act=True is not implemented",
    ),
    _row(
        "GPUNotFound",
        "sees too few GPUs",
        _DEVICES,
        "NVIDIA/TensorRT-LLM#2594, commands/serve.py, CUDA runtime",
        r"Only \d+ GPUs are available, but",
        r"No GPU devices found on the node",
        r"invalid device ordinal",
        r"no CUDA-capable device is detected",
        r"Found no NVIDIA driver",
    ),
    _row(
        "GPUOutOfMemory",
        _MEMORY,
        _LESS_MEMORY,
        "torch; NVIDIA/TensorRT-LLM#7818",
        r"torch\.(cuda\.)?OutOfMemoryError",
        r"CUDA out of memory",
        r"CUDA error: out of memory",
        r"CUDA runtime error in .*: out of memory",
    ),
    _row(
        "GPUOutOfMemory",
        _MEMORY,
        _LESS_MEMORY,
        "tensorrt_llm/_torch/pyexecutor/py_executor_creator.py",
        r"Executor creation failed due to insufficient GPU memory",
    ),
    _row(
        "GPUOutOfMemory",
        _MEMORY,
        _LESS_MEMORY,
        "NVIDIA/TensorRT-LLM#346, #102",
        r"Error Code 2: OutOfMemory",
        r"virtualMemoryBuffer\.cpp::resizePhysical",
    ),
    _row(
        "GPUFailed",
        "was left by a GPU that broke down",
        _NODE,
        "CUDA runtime, cudaErrorECCUncorrectable; NVML, NVML_ERROR_GPU_IS_LOST; the driver's Xid 79",
        r"uncorrectable ECC error",
        r"GPU is lost",
        r"GPU has fallen off the bus",
    ),
    _row(
        "MPISpawnFailed",
        "can't start its worker processes",
        "Use another version of the image",
        "NVIDIA/TensorRT-LLM#5854, ai-dynamo/dynamo#15060",
        r"There are not enough slots available in the system",
        r"mpi4py\.MPI\.Exception: MPI_ERR",
        r"ORTE was unable to reliably start",
        r"PMI2_Init failed",
    ),
    _row(
        "NCCLInitFailed",
        "can't connect its GPUs",
        _SHM,
        "py_executor_creator.py; NVIDIA/ai-cloud-validation#643",
        r"NCCL error",
        r"mm_iface failed to allocate receive FIFO",
    ),
    _row(
        "HostOutOfMemory",
        "ran out of memory (not the GPU's)",
        "Raise the memory limit of the stage under jobs",
        "NVIDIA/TensorRT-LLM#743, #1700",
        r"exited on signal 9 \(Killed\)",
        r"DefaultCPUAllocator: can't allocate memory",
        r"^MemoryError",
    ),
    _row(
        "ToolNotFound",
        "lacks a file or package",
        _IMAGE,
        "CPython; sh",
        r"can't open file .*\[Errno 2\]",
        r"command not found",
        r"ModuleNotFoundError: No module named",
    ),
    _row(
        "InvalidModel",
        "misses a file of the model",
        "Use a complete repository, or check allowPatterns and ignorePatterns",
        "huggingface_hub; transformers/utils/hub.py",
        r"OfflineModeIsEnabled",
        r"LocalEntryNotFoundError",
        r"does not appear to have a file named",
    ),
    # Weak: also seen where memory is not the cause, so after everything else.
    _row(
        "GPUOutOfMemory",
        "probably ran out of GPU memory",
        _LESS_MEMORY,
        "TensorRT-LLM documentation, troubleshooting",
        r"Requested amount of GPU memory \(\d+ bytes\) could not be allocated",
        r"could not find any supported formats consistent with input/output data types",
    ),
)

_GENERIC: dict[str, Reason] = {"preflight": "GPUNotFound", "convert": "ConvertFailed", "build": "BuildFailed", "smoke": "VerifyFailed"}
_EXCEPTION = re.compile(r"^\s*(\w+\.)*\w*(Error|Exception|Failed)\b.*:")
_INDECISIVE = re.compile(r"Executor worker returned error|Engine building failed, please check error log")
_TAIL = 12
_DETAIL = 3000
_QUOTED = 300


class Log:
    """Watches the output of one step."""

    def __init__(self) -> None:
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._hits: dict[int, str] = {}
        self._exception = ""

    def feed(self, line: str) -> None:
        """One line of output."""
        text = line[:2000]
        self._tail.append(text)
        for number, row in enumerate(ROWS):
            if number not in self._hits and row.pattern.search(text):
                self._hits[number] = text.strip()
        if _EXCEPTION.search(text) and not (self._exception and _INDECISIVE.search(text)):
            self._exception = text.strip()

    def hit(self, code: int | None = None) -> tuple[Row, str] | None:
        """The most decisive row that matched, and its line."""
        found = (number for number in sorted(self._hits) if ROWS[number].code in {None, code})
        number = next(found, None)
        return None if number is None else (ROWS[number], self._hits[number])

    def detail(self, decisive: str = "") -> str:
        """The decisive line, then the last ones."""
        lines = [line for line in dict.fromkeys((decisive, self._exception)) if line and line not in self._tail]
        return "\n".join([*lines, *self._tail])[:_DETAIL]

    def last(self) -> str:
        """The line that tells most where no row matched."""
        return self._exception or next((line.strip() for line in reversed(self._tail) if line.strip()), "it printed nothing")


def classify(step: str, program: str, code: int, log: Log) -> Failure:
    """The failure of a step that ended with a code other than 0.

    Args:
        step: its name.
        program: its name, as subject of the message.
        code: as of `subprocess`: negative for a signal.
        log: its output.
    """
    if (found := log.hit(code)) is not None:
        row, line = found
        return Failure(row.reason, f"{program} {row.what}: {line[:_QUOTED]}. {row.advice}", step=step, detail=log.detail(line))
    if code in {-signal.SIGKILL, 128 + signal.SIGKILL}:
        return Failure(
            "HostOutOfMemory",
            f"{program} was killed (signal 9), as happens when a container reaches its memory limit. Raise the memory limit of the stage under jobs",
            step=step,
            detail=log.detail(),
        )
    if code in {126, 127}:
        return Failure(
            "ToolNotFound", f"{program} can't be run (exit code {code}): {log.last()[:_QUOTED]}. {_IMAGE}", step=step, detail=log.detail()
        )
    ended = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
    return Failure(
        _GENERIC.get(step, "InternalError"),
        f"{program} {ended}: {log.last()[:_QUOTED]}. Look at the log of the pod",
        step=step,
        detail=log.detail(),
    )
