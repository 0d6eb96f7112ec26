"""Errors of the engine."""

from trtllm_simulator.executor import CppExecutorError, RequestError

__all__ = ["CppExecutorError", "RequestError"]
