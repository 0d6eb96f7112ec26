"""The LLM API as far as a program needs it that loads a model and generates: llmapi/llm.py at 4c05a748, sampling_params.py at 000a01de."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from trtllm_simulator import log, versions
from trtllm_simulator.executor import Executor, Request, RequestError
from trtllm_simulator.llm_args import TRT_ONLY, BaseLlmArgs, TorchLlmArgs, TrtLlmArgs
from trtllm_simulator.loader import Loaded, load
from trtllm_simulator.sequence import Sampling, Step
from trtllm_simulator.textio import TextIO


@dataclass(kw_only=True)
class SamplingParams:
    """How to generate. Of the fields that choose tokens the simulator acts on temperature, top_k, top_p and seed."""

    end_id: int | None = None
    pad_id: int | None = None
    max_tokens: int = 32
    bad: str | list[str] | None = None
    bad_token_ids: list[int] | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    n: int = 1
    best_of: int | None = None
    use_beam_search: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    min_tokens: int | None = None
    beam_search_diversity_rate: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    length_penalty: float | None = None
    early_stopping: int | None = None
    no_repeat_ngram_size: int | None = None
    ignore_eos: bool = False
    detokenize: bool = True
    add_special_tokens: bool = True
    skip_special_tokens: bool = True
    truncate_prompt_tokens: int | None = None
    exclude_input_from_output: bool = True
    return_perf_metrics: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    guided_decoding: Any = None

    def __post_init__(self) -> None:
        if self.best_of is not None and self.best_of < self.n:
            raise ValueError(f"best_of ({self.best_of}) cannot be less than n ({self.n})")
        for name in ("use_beam_search", "logprobs", "prompt_logprobs", "guided_decoding", "bad", "bad_token_ids"):
            if getattr(self, name):
                raise NotImplementedError(f"the simulator does not implement SamplingParams({name}=...)")
        if self.n > 1:
            raise NotImplementedError("the simulator does not implement SamplingParams(n=...)")

    def settle(self, text: TextIO | None, max_tokens: int) -> Sampling:
        """What the engine gets.

        Raises:
            ValueError: there is no tokenizer to tell the end of a text.
        """
        if self.end_id is None and text is None:
            raise ValueError(
                "tokenizer is required to reset end_id if it is None, or you can explicitly specify the end_id for sampling_params"
            )
        ends = frozenset([self.end_id]) if self.end_id is not None else text.end_ids if text else frozenset()
        return Sampling(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            seed=self.seed,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            stop_ids=frozenset(self.stop_token_ids or ()),
            end_ids=ends,
            ignore_eos=self.ignore_eos,
            min_tokens=self.min_tokens or 0,
            include_stop=self.include_stop_str_in_output,
        )


@dataclass
class CompletionOutput:
    """One generated text. An end-of-text token is not part of `token_ids`' text but is counted."""

    index: int = 0
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[Any] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: str | int | None = None

    @property
    def length(self) -> int:
        return len(self.token_ids)


@dataclass
class RequestOutput:
    """A prompt and what was generated for it."""

    request_id: int
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool = False
    context_logits: Any = None


class Pending(RequestOutput):
    """A request that is under way, as `generate_async` returns it."""

    def __init__(self, request_id: int, prompt: str | None, tokens: list[int]) -> None:
        super().__init__(request_id, prompt, tokens, [CompletionOutput()])
        self._done = threading.Event()
        self._error: Exception | None = None

    def accept(self, step: Step | Exception) -> None:
        """Called from the engine's thread."""
        output = self.outputs[0]
        if isinstance(step, Exception):
            self._error = step
        else:
            output.token_ids.append(step.token)
            output.text += step.text
            output.cumulative_logprob = (output.cumulative_logprob or 0.0) + step.logprob
            output.finish_reason, output.stop_reason = step.finish, step.stop_reason
        if isinstance(step, Exception) or step.finish:
            self.finished = not isinstance(step, Exception)
            self._done.set()

    def end_empty(self) -> None:
        """Ends it without a token (a fault on request)."""
        self.outputs[0].finish_reason, self.finished = "stop", True
        self._done.set()

    def result(self, timeout: float | None = None) -> RequestOutput:
        """Waits for the end.

        Raises:
            TimeoutError: it takes longer.
            RuntimeError: the engine failed.
        """
        if not self._done.wait(timeout):
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return RequestOutput(self.request_id, self.prompt, self.prompt_token_ids, self.outputs, self.finished)

    async def aresult(self) -> RequestOutput:
        """As `result`, for asyncio."""
        return await asyncio.to_thread(self.result)


Prompt = str | Sequence[int] | Mapping[str, Any]


class BaseLLM:
    """What the LLM classes of both backends have in common."""

    def __init__(
        self,
        model: str | Path,
        tokenizer: str | Path | None = None,
        tokenizer_mode: str = "auto",
        skip_tokenizer_init: bool = False,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        **kwargs: Any,
    ) -> None:
        behaviour = versions.installed()
        given = {
            "model": model, "tokenizer": tokenizer, "tokenizer_mode": tokenizer_mode, "skip_tokenizer_init": skip_tokenizer_init,
            "trust_remote_code": trust_remote_code, "tensor_parallel_size": tensor_parallel_size, "dtype": dtype, "revision": revision,
            "tokenizer_revision": tokenizer_revision, **kwargs,
        }  # fmt: skip
        self._loaded: Loaded | None = None
        self.args = parse_args(given, self._default_backend(), behaviour)
        self._loaded = load(self.args, behaviour, serving=False)
        self._requests = 0

    def _default_backend(self) -> versions.Backend:
        raise NotImplementedError

    @property
    def _executor(self) -> Executor:
        if self._loaded is None:
            raise RuntimeError("LLM is shutting down")
        return self._loaded.executor

    def generate(
        self,
        inputs: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | list[SamplingParams] | None = None,
        use_tqdm: bool = True,
        **kwargs: Any,
    ) -> RequestOutput | list[RequestOutput]:
        """Generates and waits. One prompt gives one output, a list gives a list in the same order."""
        del use_tqdm
        single = isinstance(inputs, str | Mapping) or (bool(inputs) and isinstance(inputs[0], int))
        prompts: list[Any] = [inputs] if single else list(inputs)
        settings = sampling_params if isinstance(sampling_params, list) else [sampling_params] * len(prompts)
        pending = [self.generate_async(prompt, setting, **kwargs) for prompt, setting in zip(prompts, settings, strict=True)]
        results = [one.result() for one in pending]
        return results[0] if single else results

    def generate_async(
        self, inputs: Prompt, sampling_params: SamplingParams | None = None, *, streaming: bool = False, **kwargs: Any
    ) -> Pending:
        """Queues one prompt.

        Raises:
            RequestError: it is too large for the engine.
            RuntimeError: after `shutdown`.
        """
        if streaming or any(value is not None for value in kwargs.values()):
            raise NotImplementedError("the simulator implements generate_async without streaming, LoRA and other options")
        executor = self._executor
        loaded = self._loaded
        params = sampling_params or SamplingParams()
        prompt, tokens = self._tokens(inputs, params)
        self._requests += 1
        pending = Pending(self._requests, prompt, tokens)
        text = loaded.text if loaded else None
        sampling = params.settle(text, executor.check(len(tokens), params.max_tokens))
        if loaded and loaded.faults.llmapi.empty_output:
            pending.end_empty()
            return pending
        decoder = text.decoder(skip_special_tokens=params.skip_special_tokens) if text and params.detokenize else None
        executor.submit(Request(tokens, sampling, decoder, pending.accept))
        return pending

    def _tokens(self, inputs: Prompt, params: SamplingParams) -> tuple[str | None, list[int]]:
        if isinstance(inputs, Mapping):
            inputs = inputs["prompt_token_ids"] if "prompt_token_ids" in inputs else inputs["prompt"]
        if not isinstance(inputs, str):
            return None, [int(token) for token in inputs]
        text = self._loaded.text if self._loaded else None
        if text is None:
            raise ValueError("tokenizer is required to tokenize a text; give token ids, or a tokenizer")
        tokens = text.encode(inputs, add_special_tokens=params.add_special_tokens)
        if not tokens:
            raise RequestError("the prompt is empty")
        return inputs, tokens

    def get_stats(self, timeout: float | None = 2) -> list[dict[str, Any]]:
        """Statistics of the iterations since the last call. The PyTorch backend needs enable_iter_perf_stats."""
        del timeout
        if isinstance(self.args, TorchLlmArgs) and not self.args.enable_iter_perf_stats:
            return []
        return self._executor.drain_stats()

    def shutdown(self) -> None:
        """Frees the engine. May be called again."""
        if self._loaded is not None:
            self._loaded.executor.shutdown()
            self._loaded = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.shutdown()

    def __reduce__(self) -> Any:
        raise RuntimeError("LLM object can not be pickled.")


class TorchLLM(BaseLLM):
    """`tensorrt_llm.LLM`: Hugging Face checkpoints."""

    def _default_backend(self) -> versions.Backend:
        return "pytorch"


class TrtLLM(BaseLLM):
    """`tensorrt_llm._tensorrt_engine.LLM`: engines."""

    def _default_backend(self) -> versions.Backend:
        return "tensorrt"


def parse_args(given: Mapping[str, Any], default: versions.Backend, behaviour: versions.Behaviour) -> BaseLlmArgs:
    """Arguments by the rules of the LLM's constructor.

    Raises:
        ValueError: an unknown argument, or one of another backend.
        pydantic.ValidationError: an impossible value.
    """
    wanted = given.get("backend") or default
    backend = behaviour.backends.get(str(wanted))
    log.info(f"Using LLM with {'TensorRT' if backend == 'tensorrt' else 'PyTorch'} backend")
    kind: type[BaseLlmArgs] = TrtLlmArgs if backend == "tensorrt" else TorchLlmArgs
    error: Exception | None = None
    if backend is None:
        error = ValueError(f"Unsupported backend: {wanted!r}; TensorRT-LLM {behaviour.version} has {', '.join(sorted(behaviour.backends))}")
    elif backend == "_autodeploy":
        error = NotImplementedError("the simulator does not implement the backend _autodeploy")
    elif backend == "pytorch" and (foreign := sorted(key for key in given if key in TRT_ONLY)):
        error = ValueError(f"The following arguments are specific to TensorRT backend and cannot be used with PyTorch backend: {foreign}.")
    elif unknown := [key for key in given if key not in kind.model_fields]:
        error = ValueError(f"LLM got invalid argument: {unknown[0]}")
    if error is not None:
        log.error(f"Failed to parse the arguments for the LLM constructor: {error}")
        raise error
    try:
        return kind.model_validate(dict(given))
    except ValidationError as invalid:
        log.error(f"Failed to parse the arguments for the LLM constructor: {invalid}")
        raise
