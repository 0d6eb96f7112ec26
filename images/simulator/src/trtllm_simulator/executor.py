"""The engine's loop: in-flight batching in one thread. Each iteration advances every active sequence by one token."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trtllm_simulator import log
from trtllm_simulator.llama import Llama
from trtllm_simulator.sequence import Sampling, Sequence, Step
from trtllm_simulator.textio import Decoder

_STATS_KEPT = 1000  # iter_stats_max_iterations


class RequestError(RuntimeError):
    """The request can't be done; the engine goes on."""


class CppExecutorError(RuntimeError):
    """The engine is dead."""


@dataclass(frozen=True)
class Limits:
    """What the engine was made for."""

    max_batch_size: int
    max_seq_len: int
    max_num_tokens: int
    chunked_prefill: bool
    tokens_per_block: int
    kv_blocks: int

    def blocks(self, tokens: int) -> int:
        """KV cache blocks for a sequence."""
        return -(-tokens // self.tokens_per_block)


@dataclass
class Request:
    """One sequence to generate. `sink` is called from the engine's thread, with each step or with the error that ends it."""

    prompt: list[int]
    sampling: Sampling
    decoder: Decoder | None
    sink: Callable[[Step | Exception], None]
    queued_at: float = field(default_factory=time.monotonic)
    started_at: float | None = None
    aborted: bool = False

    @property
    def most_tokens(self) -> int:
        """Length if it is not ended early."""
        return len(self.prompt) + self.sampling.max_tokens


class Executor:
    """Runs requests. `token_delay` is the least time of an iteration; after `crash_after` tokens the engine dies."""

    def __init__(self, model: Llama, limits: Limits, *, token_delay: float = 0, crash_after: int | None = None, dead: bool = False) -> None:
        self.model, self.limits = model, limits
        self.fatal: Exception | None = None
        self._dead = dead
        self._delay, self._crash_after = token_delay, crash_after
        self._changed = threading.Condition()
        self._queue: deque[Request] = deque()
        self._active: list[tuple[Request, Sequence]] = []
        self._stats: deque[dict[str, Any]] = deque(maxlen=_STATS_KEPT)
        self._iterations = itertools.count(1)
        self._tokens = self._completed = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def check(self, prompt_tokens: int, max_tokens: int | None) -> int:
        """Number of tokens that will be generated at most.

        Raises:
            RequestError: the request is too large (texts of the executor).
        """
        limits = self.limits
        if prompt_tokens > limits.max_num_tokens and not limits.chunked_prefill:
            raise RequestError(
                f"The sum of prompt length ({prompt_tokens}), query length (0) should not exceed max_num_tokens ({limits.max_num_tokens})"
            )
        room = limits.max_seq_len - prompt_tokens
        if room <= 0:
            raise RequestError(
                f"`default_max_tokens` [{room}] must be greater than 0, `default_max_tokens` [{room}] = max_seq_len [{limits.max_seq_len}] "
                f"- `splited_prompt_len` [{prompt_tokens}] - `query_token_len` [0]"
            )
        tokens = room if max_tokens is None else max_tokens
        if tokens > room:
            log.warning(
                f"User-specified `max_tokens` [{tokens}] is greater than deduced `default_max_tokens` [{room}], using default_max_tokens instead."
            )
            tokens = room
        if (needed := limits.blocks(prompt_tokens + tokens)) > limits.kv_blocks:
            raise RequestError(
                f"KV_CACHE_MANAGER requires {needed} KV cache blocks to complete the request, "
                f"which exceeds its GPU-primary capacity of {limits.kv_blocks} blocks"
            )
        return tokens

    def submit(self, request: Request) -> None:
        """Queues a request. After `shutdown` or a crash its sink gets the error at once."""
        with self._changed:
            error = self.fatal or (RuntimeError("LLM is shutting down") if self._closing else None)
            if error is None:
                self._queue.append(request)
                self._changed.notify()
                return
        request.sink(error)

    def abort(self, request: Request) -> None:
        """Ends a request, whose client is gone."""
        request.aborted = True

    def drain_stats(self) -> list[dict[str, Any]]:
        """Statistics of the iterations since the last call."""
        with self._changed:
            stats = list(self._stats)
            self._stats.clear()
        return stats

    def snapshot(self) -> dict[str, int]:
        """Figures of this moment."""
        with self._changed:
            return {"active": len(self._active), "queued": len(self._queue), "used_blocks": self._used_blocks()}

    def shutdown(self) -> None:
        """Stops the loop. Unfinished requests get an error. May be called again."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._queue or self._active or self._closing))
                if self._closing:
                    break
                self._admit()
            try:
                self._iterate()
            except Exception as error:  # noqa: BLE001  whatever it is, the engine is dead and says so
                self._die(error)
                return
        self._fail_all(RuntimeError("LLM is shutting down"))

    def _admit(self) -> None:
        """Takes requests as long as their whole length fits into the KV cache (GUARANTEED_NO_EVICT)."""
        while self._queue and len(self._active) < self.limits.max_batch_size:
            request = self._queue[0]
            if not request.aborted and self._used_blocks() + self.limits.blocks(request.most_tokens) > self.limits.kv_blocks:
                return
            self._queue.popleft()
            if not request.aborted:
                request.started_at = time.monotonic()
                self._active.append((request, Sequence(request.prompt, request.sampling, request.decoder)))

    def _used_blocks(self) -> int:
        return sum(self.limits.blocks(request.most_tokens) for request, _ in self._active)

    def _iterate(self) -> None:
        started = time.monotonic()
        if self._dead:
            raise CppExecutorError("the engine does not answer (simulated)")
        context = sum(1 for _, sequence in self._active if not sequence.generated)
        context_tokens = sum(len(sequence.pending) for _, sequence in self._active if not sequence.generated)
        batch = len(self._active)
        finished = []
        if self._delay:
            time.sleep(self._delay)
        for request, sequence in self._active:
            if request.aborted:
                finished.append(request)
                continue
            step = sequence.take(self.model.forward(sequence.pending, sequence.cache))
            self._tokens += 1
            if self._crash_after is not None and self._tokens > self._crash_after:
                raise CppExecutorError("Executor loop crashed on this rank; hard-killing all ranks")
            request.sink(step)
            if step.finish:
                finished.append(request)
        with self._changed:
            self._active = [(request, sequence) for request, sequence in self._active if not any(request is done for done in finished)]
            self._completed += len(finished)
            self._stats.append(self._statistics(started, batch, context, context_tokens, len(finished)))

    def _statistics(self, started: float, batch: int, context: int, context_tokens: int, finished: int) -> dict[str, Any]:
        used = self._used_blocks()
        return {
            "cpuMemUsage": 0,
            "gpuMemUsage": self.model.bytes,
            "iter": next(self._iterations),
            "iterLatencyMS": (time.monotonic() - started) * 1000,
            "timestamp": time.strftime("%m-%d-%Y %H:%M:%S"),
            "maxNumActiveRequests": self.limits.max_batch_size,
            "numActiveRequests": len(self._active),
            "numQueuedRequests": len(self._queue),
            "numCompletedRequests": finished,
            "numNewActiveRequests": context,
            "kvCacheStats": {
                "maxNumBlocks": self.limits.kv_blocks,
                "usedNumBlocks": used,
                "freeNumBlocks": self.limits.kv_blocks - used,
                "tokensPerBlock": self.limits.tokens_per_block,
                "allocNewBlocks": 0,
                "allocTotalBlocks": used,
                "reusedBlocks": 0,
                "missedBlocks": 0,
                "cacheHitRate": 0.0,
            },
            "inflightBatchingStats": {
                "numContextRequests": context,
                "numGenRequests": batch - context,
                "numPausedRequests": 0,
                "numScheduledRequests": batch,
                "numCtxTokens": context_tokens,
                "microBatchId": 0,
                "avgNumDecodedTokensPerIter": 1.0,
            },
        }

    def _die(self, error: Exception) -> None:
        if not self._dead:
            log.error(f"Executor loop crashed on this rank; hard-killing all {self.model.mapping.world} ranks in 9.99947s: {error}")
        with self._changed:
            # A server whose health check lies goes on as if nothing were.
            self.fatal = error if isinstance(error, CppExecutorError) else CppExecutorError(str(error))
        self._fail_all(self.fatal)

    def _fail_all(self, error: Exception) -> None:
        with self._changed:
            waiting = [*(request for request, _ in self._active), *self._queue]
            self._active, self._queue = [], deque()
        for request in waiting:
            request.sink(error)
