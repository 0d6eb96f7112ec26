"""One sequence being generated: choosing tokens, noticing the end, cutting at stop strings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trtllm_simulator.llama import Cache
from trtllm_simulator.tensors import Array
from trtllm_simulator.textio import Decoder


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen and when generation ends. `greedy` follows sampling_params.py (params_imply_greedy_decoding)."""

    max_tokens: int
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    end_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    min_tokens: int = 0
    include_stop: bool = False

    @property
    def greedy(self) -> bool:
        """Is the likeliest token always taken?"""
        nothing_said = self.temperature is None and self.top_p is None and self.top_k is None
        return nothing_said or self.top_k == 1 or self.top_p == 0.0 or self.temperature == 0


@dataclass(frozen=True)
class Step:
    """What one step of the engine adds to a sequence. `text` lags behind while it may be the start of a stop string."""

    token: int
    text: str
    logprob: float
    finish: str | None = None
    stop_reason: str | int | None = None


class Sequence:
    """State of one sequence."""

    def __init__(self, prompt: list[int], sampling: Sampling, decoder: Decoder | None) -> None:
        self.cache = Cache()
        self.pending = list(prompt)
        self.generated = 0
        self._sampling = sampling
        self._decoder = decoder
        self._held = ""
        self._random = np.random.default_rng(sampling.seed or 0)  # the runtime's default seed is 0

    def take(self, logits: Array) -> Step:
        """Chooses the next token."""
        sampling = self._sampling
        self.generated += 1
        enough = self.generated >= sampling.min_tokens
        blocked = () if enough else tuple(sampling.end_ids | sampling.stop_ids)
        token, logprob = self._choose(logits, blocked)
        self.pending = [token]
        ended = token in sampling.end_ids and not sampling.ignore_eos
        if enough and (ended or token in sampling.stop_ids):
            return Step(token, self._flush(), logprob, "stop", None if ended else token)
        self._held += self._decoder.step(token) if self._decoder else ""
        if enough and (found := self._find_stop()):
            at, stop = found
            return Step(token, self._held[: at + len(stop) if sampling.include_stop else at], logprob, "stop", stop)
        if self.generated >= sampling.max_tokens:
            return Step(token, self._flush(), logprob, "length")
        return Step(token, self._release(), logprob)

    def _choose(self, logits: Array, blocked: tuple[int, ...]) -> tuple[int, float]:
        values = logits.astype(np.float64)
        values[list(blocked)] = -np.inf
        logprobs = values - values.max()
        logprobs -= np.log(np.exp(logprobs).sum())
        if self._sampling.greedy:
            token = int(values.argmax())
            return token, float(logprobs[token])
        temperature = self._sampling.temperature
        scaled = values / (1.0 if temperature is None else temperature)
        order = np.argsort(-scaled, kind="stable")
        if self._sampling.top_k:
            order = order[: self._sampling.top_k]
        weights = np.exp(scaled[order] - scaled[order[0]])
        weights /= weights.sum()
        if self._sampling.top_p is not None and self._sampling.top_p < 1:
            keep = int(np.searchsorted(np.cumsum(weights), self._sampling.top_p)) + 1
            order, weights = order[:keep], weights[:keep] / weights[:keep].sum()
        token = int(self._random.choice(order, p=weights))
        return token, float(logprobs[token])

    def _find_stop(self) -> tuple[int, str] | None:
        hits = [(at, stop) for stop in self._sampling.stop if (at := self._held.find(stop)) >= 0]
        return min(hits, default=None)

    def _release(self) -> str:
        """Text that can't be part of a stop string any more."""
        hold = 0
        for stop in self._sampling.stop:
            longest = next((size for size in range(min(len(stop) - 1, len(self._held)), 0, -1) if self._held.endswith(stop[:size])), 0)
            hold = max(hold, longest)
        cut = len(self._held) - hold
        text, self._held = self._held[:cut], self._held[cut:]
        return text

    def _flush(self) -> str:
        text, self._held = self._held, ""
        return text
