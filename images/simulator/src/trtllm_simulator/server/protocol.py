"""Requests and answers of the OpenAI API, as serve/openai_protocol.py has them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trtllm_simulator.sequence import Sampling


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False
    continuous_usage_stats: bool = False


class _Request(BaseModel):
    """What both kinds of request have in common. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")

    model: str
    frequency_penalty: float | None = 0.0
    presence_penalty: float | None = 0.0
    logit_bias: dict[str, float] | None = None
    n: int = Field(1, ge=1, le=16)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, ge=0, le=1)
    user: str | None = None
    # Beyond OpenAI's own.
    use_beam_search: bool = False
    best_of: int | None = None
    top_k: int | None = Field(None, ge=0)
    top_p_min: float = 0.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0
    early_stopping: bool = False
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int = Field(0, ge=0)
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    truncate_prompt_tokens: int | None = None
    response_format: dict[str, Any] | None = None
    lora_request: Any = None
    disaggregated_params: Any = None

    @property
    def wants_usage(self) -> bool:
        """Shall a stream end with the usage?"""
        return bool(self.stream_options and self.stream_options.include_usage)

    def refused(self) -> str | None:
        """What the simulator can't do."""
        if self.stream_options is not None and not self.stream:
            return "stream_options can only be set if stream is true"
        for name in ("use_beam_search", "lora_request", "disaggregated_params", "logit_bias"):
            if getattr(self, name):
                return f"the simulator does not implement {name}"
        if self.response_format and self.response_format.get("type") != "text":
            return "the simulator does not implement response_format"
        return None

    def sampling(self, max_tokens: int, end_ids: frozenset[int], index: int) -> Sampling:
        """What the engine gets for the choice `index`."""
        seed = self.seed if index == 0 else (self.seed or 0) + index
        return Sampling(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_k=self.top_k or None,
            top_p=self.top_p,
            seed=seed,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            stop_ids=frozenset(self.stop_token_ids or ()),
            end_ids=end_ids,
            ignore_eos=self.ignore_eos,
            min_tokens=self.min_tokens,
            include_stop=self.include_stop_str_in_output,
        )


class CompletionRequest(_Request):
    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool = False
    logprobs: int | None = None
    max_tokens: int | None = Field(None, ge=1)
    suffix: str | None = None
    add_special_tokens: bool = True
    detokenize: bool = True

    def prompts(self) -> list[str | list[int]]:
        """The prompts, one by one."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        tokens = [token for token in self.prompt if isinstance(token, int)]
        return [tokens] if tokens else [prompt for prompt in self.prompt if isinstance(prompt, str | list)]

    def refused(self) -> str | None:
        if self.logprobs is not None or self.suffix is not None:
            return "the simulator does not implement logprobs and suffix"
        return super().refused()


class ChatCompletionRequest(_Request):
    messages: list[dict[str, Any]] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = False
    top_logprobs: int | None = None
    tools: list[Any] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = "none"
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    add_generation_prompt: bool = True
    add_special_tokens: bool = False
    documents: list[Any] | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def tokens(self) -> int | None:
        """Limit, by the new name or the old one."""
        return self.max_completion_tokens or self.max_tokens

    def refused(self) -> str | None:
        if self.logprobs or self.top_logprobs or self.tools:
            return "the simulator does not implement logprobs and tools"
        return super().refused()


def error(message: str, code: int, kind: str = "BadRequestError") -> dict[str, Any]:
    """Body of an answer that is an error."""
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code}


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    """Counted tokens."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
