"""The LLM class for engines. Not installed for versions without the TensorRT backend."""

from trtllm_simulator.llmapi import TrtLLM as LLM  # noqa: N814  its public name

__all__ = ["LLM"]
