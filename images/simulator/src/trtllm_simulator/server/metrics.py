"""`/prometheus/metrics`: names of metrics/collector.py, which differ between versions (see `versions`)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from trtllm_simulator.executor import Executor
from trtllm_simulator.server.generation import Generation
from trtllm_simulator.versions import Behaviour

_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LABELS = ("model_name", "engine_type")


class Metrics:
    """Metrics of one server."""

    def __init__(self, behaviour: Behaviour, model: str, executor: Executor, *, gauges: bool) -> None:
        self._executor = executor
        self._registry = CollectorRegistry()
        self._labels = dict(zip(_LABELS, (model, "trtllm") if behaviour.metric_labels else ("undefined", "undefined"), strict=True))
        prefix = behaviour.metric_prefix

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(prefix + name, text, _LABELS, buckets=_LATENCY, registry=self._registry)

        self._success = Counter(
            f"{prefix}request_success", "Count of successfully processed requests.", ("finished_reason", *_LABELS), registry=self._registry
        )
        self._e2e = histogram("e2e_request_latency_seconds", "Histogram of end to end request latency in seconds.")
        self._ttft = histogram("time_to_first_token_seconds", "Histogram of time to first token in seconds.")
        self._tpot = histogram("time_per_output_token_seconds", "Histogram of time per output token in seconds.")
        self._queue = histogram("request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.")
        self._phases: dict[str, Histogram] = {}
        self._tokens: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        if behaviour.metric_gauges:
            for phase in ("prefill", "decode", "inference"):
                self._phases[phase] = histogram(f"request_{phase}_time_seconds", f"Histogram of time spent in {phase}.")
            for kind in ("prompt", "generation"):
                self._tokens[kind] = Counter(
                    f"{prefix}{kind}_tokens", f"Number of {kind} tokens processed.", _LABELS, registry=self._registry
                )
        if behaviour.metric_gauges and gauges:
            for name in (
                "num_requests_running", "num_requests_waiting", "max_num_active_requests", "kv_cache_utilization", "kv_cache_hit_rate",
                "kv_cache_max_blocks", "kv_cache_free_blocks", "kv_cache_used_blocks", "kv_cache_tokens_per_block",
            ):  # fmt: skip
                self._gauges[name] = Gauge(prefix + name, f"{name} of the last iteration.", _LABELS, registry=self._registry)

    def observe(self, generation: Generation) -> None:
        """Counts a finished request."""
        for choice in generation.choices:
            if choice.finish is None or len(choice.times) != 3:
                continue
            begin, first, end = choice.times
            self._success.labels(finished_reason=choice.finish, **self._labels).inc()
            self._e2e.labels(**self._labels).observe(end - generation.started)
            self._ttft.labels(**self._labels).observe(first - generation.started)
            self._queue.labels(**self._labels).observe(max(0.0, begin - generation.started))
            if choice.tokens > 1:
                self._tpot.labels(**self._labels).observe((end - first) / (choice.tokens - 1))
            for phase, seconds in (("prefill", first - begin), ("decode", end - first), ("inference", end - begin)):
                if phase in self._phases:
                    self._phases[phase].labels(**self._labels).observe(max(0.0, seconds))
            for kind, count in (("prompt", len(choice.prompt)), ("generation", choice.tokens)):
                if kind in self._tokens:
                    self._tokens[kind].labels(**self._labels).inc(count)

    def render(self) -> bytes:
        """The exposition."""
        if self._gauges:
            now, limits = self._executor.snapshot(), self._executor.limits
            values = {
                "num_requests_running": now["active"],
                "num_requests_waiting": now["queued"],
                "max_num_active_requests": limits.max_batch_size,
                "kv_cache_utilization": now["used_blocks"] / limits.kv_blocks,
                "kv_cache_hit_rate": 0,
                "kv_cache_max_blocks": limits.kv_blocks,
                "kv_cache_free_blocks": limits.kv_blocks - now["used_blocks"],
                "kv_cache_used_blocks": now["used_blocks"],
                "kv_cache_tokens_per_block": limits.tokens_per_block,
            }
            for name, value in values.items():
                self._gauges[name].labels(**self._labels).set(value)
        return generate_latest(self._registry)
