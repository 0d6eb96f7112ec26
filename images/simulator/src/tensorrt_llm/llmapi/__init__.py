"""Classes of the LLM API."""

from trtllm_simulator.executor import RequestError
from trtllm_simulator.llm_args import KvCacheConfig
from trtllm_simulator.llmapi import CompletionOutput, RequestOutput, SamplingParams
from trtllm_simulator.llmapi import TorchLLM as LLM  # noqa: N814  its public name

__all__ = ["LLM", "CompletionOutput", "KvCacheConfig", "RequestError", "RequestOutput", "SamplingParams"]
