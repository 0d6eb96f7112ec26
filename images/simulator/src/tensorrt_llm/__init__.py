"""The simulator's stand-in for the package `tensorrt_llm`."""

from trtllm_simulator import log, versions
from trtllm_simulator.llmapi import SamplingParams
from trtllm_simulator.llmapi import TorchLLM as LLM  # noqa: N814  its public name

_BEHAVIOUR = versions.installed()
__version__ = _BEHAVIOUR.version

log.banner(versions.notice(_BEHAVIOUR))

__all__ = ["LLM", "SamplingParams", "__version__"]
