"""The version table: everything that differs between versions of TensorRT-LLM, as data with its source. Nothing else compares versions.

Sources: [guide] https://nvidia.github.io/TensorRT-LLM/legacy/tensorrt-backend-removal.html; [rc20] the GitHub release note of v1.3.0rc20;
[notes] the release notes; [serve] tensorrt_llm/commands/serve.py at 4c05a748 (about 1.1) and 00209af1 (about 1.2);
[cli] tests/unittest/api_stability/references/trtllm_serve_cli.yaml at 029e223d (after the removal); [build] tensorrt_llm/commands/build.py;
#N is a pull request or issue of NVIDIA/TensorRT-LLM. What no source says for a version is not used with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from packaging.version import InvalidVersion, Version

Recipe = Literal["TensorRTEngine", "HFCheckpoint"]
Backend = Literal["auto", "tensorrt", "pytorch"]


@dataclass(frozen=True)
class ServeOptions:
    """Spelling of trtllm-serve's options. None: the version has no such option."""

    tensorrt_backend: str | None
    """Value of --backend that loads an engine."""
    pytorch_backend: str | None
    """Value of --backend that loads a checkpoint; None where it is the default and the option is deprecated."""
    served_model_name: str | None
    """Without it the name in requests is the last component of the model's path."""
    tool_parser: str | None
    reasoning_parser: str | None = "--reasoning_parser"
    options_file: str = "--extra_llm_api_options"
    """The spelling that all versions know; `--config` came later [cli]."""
    kv_cache_fraction: str = "--kv_cache_free_gpu_memory_fraction"
    chunked_prefill: str = "--enable_chunked_prefill"


@dataclass(frozen=True)
class Row:
    """A range of versions: from `first` to the next row's `first`, which is not included."""

    first: str
    builds_engines: bool
    automatic: Recipe
    """The recipe of `backend: auto`."""
    serve: ServeOptions
    liveness_path: str
    source: str
    converters: str | None = None
    """Directory of the convert_checkpoint.py scripts in NVIDIA's image."""


_EXAMPLES = "/app/tensorrt_llm/examples/models/core"  # docker/release.md at 585c7565

_TABLE: tuple[Row, ...] = (
    Row(
        "1.0.0", True, "TensorRTEngine",
        ServeOptions("trt", "pytorch", None, None),
        "/health_generate",  # /health says 200 whatever the engine does (openai_server.py at e7f7345e)
        "default backend PyTorch since 1.0 [notes]; backend name `trt` in mid-2025 (#6419)",
        _EXAMPLES,
    ),
    Row(
        "1.1.0rc0", True, "TensorRTEngine",
        ServeOptions("tensorrt", "pytorch", None, None),
        "/health_generate",
        "backend names [serve]; /health still always 200 (openai_server.py at e7f7345e)",
        _EXAMPLES,
    ),
    Row(
        "1.2.0rc0", True, "TensorRTEngine",
        ServeOptions("tensorrt", "pytorch", None, "--tool_parser"),
        "/health",
        "last line with trtllm-build [rc20]; /health gives 503 when the engine is dead [serve]",
        _EXAMPLES,
    ),
    Row(
        "1.3.0rc0", True, "HFCheckpoint",
        ServeOptions("tensorrt", "pytorch", None, "--tool_parser"),
        "/health",
        "TensorRT backend deprecated from 1.3 on (#11723), removed after rc20 [rc20]",
        _EXAMPLES,
    ),
    Row(
        "1.3.0rc7", True, "HFCheckpoint",
        ServeOptions("tensorrt", "pytorch", "--served_model_name", "--tool_parser"),
        "/health",
        "--served_model_name since rc7 (#11711); TensorRT backend until rc20 [rc20]",
        _EXAMPLES,
    ),
    Row(
        "1.3.0rc21", False, "HFCheckpoint",
        ServeOptions(None, None, "--served_model_name", "--tool_parser"),
        "/health",
        "TensorRT backend removed (#15763, #15918, #16369) [guide]; --backend deprecated, pytorch by default [cli]",
    ),
)  # fmt: skip

_DENIED: dict[str, str] = {
    "1.3.0rc27": "its Open MPI can't start worker processes and the server hangs without an error "
    "(https://github.com/ai-dynamo/dynamo/issues/15060); use 1.3.0rc26 or 1.3.0rc29",
}

OLDEST = _TABLE[0].first
_BEYOND = "2.0.0.dev0"
LAST_WITH_ENGINES = "1.3.0rc20"
LAST_STABLE_WITH_ENGINES = "1.2.1"

# Directory under the converters of each architecture that has an engine path (examples/models/core as of 1.0 to 1.2).
_CONVERTERS: dict[str, str] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "MixtralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen",
    "Qwen2MoeForCausalLM": "qwen",
    "Qwen3ForCausalLM": "qwen",
    "Qwen3MoeForCausalLM": "qwen",
    "PhiForCausalLM": "phi",
    "Phi3ForCausalLM": "phi",
    "GPT2LMHeadModel": "gpt",
    "InternLM2ForCausalLM": "internlm2",
    "CohereForCausalLM": "commandr",
    "NemotronForCausalLM": "gpt",
}


class VersionRefused(ValueError):
    """A version, or a wish that it can't fulfil. `reason` is one of `api.reasons`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@lru_cache(maxsize=64)
def row(version: str) -> Row:
    """The table's row for a version.

    Raises:
        VersionRefused: older than the oldest supported, newer than the table, or known to be broken.
    """
    try:
        wanted = Version(version)
    except InvalidVersion as error:
        raise VersionRefused(
            "UnsupportedVersion", f"runtime.version {version!r} is not a version of TensorRT-LLM, such as 1.2.1 or 1.3.0rc29"
        ) from error
    if why := _DENIED.get(version):
        raise VersionRefused("UnsupportedVersion", f"runtime.version {version} is known to be broken: {why}")
    if wanted < Version(OLDEST):
        raise VersionRefused("UnsupportedVersion", f"runtime.version {version} is too old: the oldest supported version is {OLDEST}")
    if wanted < Version(_BEYOND):
        return [entry for entry in _TABLE if Version(entry.first) <= wanted][-1]
    raise VersionRefused(
        "UnsupportedVersion", f"runtime.version {version} is newer than this operator knows: update the operator, or use 1.3.0rc29"
    )


def recipe(version: str, backend: Backend) -> Recipe:
    """What is made from the model with this version.

    Raises:
        VersionRefused: also where `tensorrt` is asked of a version without trtllm-build.
    """
    entry = row(version)
    if backend == "pytorch":
        return "HFCheckpoint"
    if backend == "tensorrt":
        if not entry.builds_engines:
            raise VersionRefused(
                "BackendNotAvailable",
                f"runtime.version {version} has no trtllm-build: the TensorRT backend was removed after {LAST_WITH_ENGINES}. "
                f"Set runtime.backend to auto or pytorch, or runtime.version to {LAST_STABLE_WITH_ENGINES}",
            )
        return "TensorRTEngine"
    return entry.automatic


def converter(version: str, architecture: str) -> str:
    """Path of convert_checkpoint.py for an architecture.

    Raises:
        VersionRefused: no engine can be built from this architecture.
    """
    entry = row(version)
    if entry.converters is None or architecture not in _CONVERTERS:
        known = ", ".join(sorted(_CONVERTERS))
        raise VersionRefused(
            "UnsupportedArchitecture",
            f"no TensorRT engine can be built from {architecture} with {version}. Set runtime.backend to pytorch, or use one of: {known}",
        )
    return f"{entry.converters}/{_CONVERTERS[architecture]}/convert_checkpoint.py"


def supported() -> tuple[Row, ...]:
    """All rows, oldest first; for documentation and tests."""
    return _TABLE
