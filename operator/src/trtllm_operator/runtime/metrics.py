"""The operator's own metrics, in Prometheus' format, on a port of their own."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from trtllm_operator.observe.refs import ROOTS, ready_status
from trtllm_operator.observe.store import Store
from trtllm_operator.runtime.freshness import Freshness
from trtllm_operator.runtime.queue import Queue

_PASS_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60)
_REQUEST_BUCKETS = (0.002, 0.005, 0.02, 0.1, 0.5, 2, 10, 30)


class Metrics:
    """Counters that the parts count with."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        prefix = "trtllm_operator"
        self._passes = Histogram(
            f"{prefix}_reconcile_seconds",
            "Length of passes, by kind of the resource.",
            ["kind"],
            buckets=_PASS_BUCKETS,
            registry=self.registry,
        )
        self._errors = Counter(
            f"{prefix}_reconcile_errors",
            "Passes that will be tried again, by kind and problem.",
            ["kind", "problem"],
            registry=self.registry,
        )
        self._requests = Counter(
            f"{prefix}_api_requests",
            "Requests to the API server, without watches; code 0: no answer.",
            ["verb", "code"],
            registry=self.registry,
        )
        self._latency = Histogram(
            f"{prefix}_api_request_seconds",
            "Time to an answer of the API server.",
            ["verb"],
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self.idle_writes = Counter(
            f"{prefix}_idle_writes", "Writes that changed nothing and should not have been sent.", registry=self.registry
        )
        self.watch_starts = Counter(f"{prefix}_watch_restarts", "Times that all watches were started anew.", registry=self.registry)
        self.leading = Gauge(f"{prefix}_leading", "1 where this process works; the others wait for its end.", registry=self.registry)
        ProcessCollector(registry=self.registry)

    def passed(self, kind: str, seconds: float, problem: str) -> None:
        """A pass ended; `problem` is `none` where all went well."""
        self._passes.labels(kind).observe(seconds)
        if problem != "none":
            self._errors.labels(kind, problem).inc()

    def requested(self, verb: str, code: str, seconds: float) -> None:
        """A request ended."""
        self._requests.labels(verb, code).inc()
        self._latency.labels(verb).observe(seconds)


class StateCollector(Collector):
    """What is only counted when somebody asks."""

    def __init__(self, store: Store, queue: Queue, freshness: Freshness) -> None:
        self._store = store
        self._queue = queue
        self._freshness = freshness

    def collect(self) -> Iterable[Metric]:
        """Gauges of this moment."""
        depth = GaugeMetricFamily(
            "trtllm_operator_queue_depth", "Resources that wait for a pass, are in one, or are due later.", labels=["state"]
        )
        for state, value in (("waiting", len(self._queue)), ("running", self._queue.busy), ("delayed", self._queue.delayed)):
            depth.add_metric([state], value)
        yield depth
        objects = GaugeMetricFamily(
            "trtllm_operator_resources", "Resources by kind and status of their Ready condition.", labels=["kind", "ready"]
        )
        for kind in sorted(ROOTS):
            counts = {"True": 0, "False": 0, "Unknown": 0}
            for obj in self._store.of_kind(kind):
                status = ready_status(obj)
                counts[status] = counts.get(status, 0) + 1
            for status, count in counts.items():
                objects.add_metric([kind, status], count)
        yield objects
        ages = GaugeMetricFamily("trtllm_operator_list_age_seconds", "Seconds since the last complete list, by kind.", labels=["kind"])
        for kind, age in sorted(self._freshness.list_ages().items()):
            ages.add_metric([kind], age)
        yield ages
        deaf = GaugeMetricFamily(
            "trtllm_operator_watch_deaf_seconds", "How long the oldest known change has not come through its watch; 0 is well."
        )
        deaf.add_metric([], self._freshness.deaf_seconds())
        yield deaf
        stored = GaugeMetricFamily("trtllm_operator_stored_objects", "Objects that are held in memory.")
        stored.add_metric([], len(self._store))
        yield stored


def application(metrics: Metrics) -> web.Application:
    """`GET /metrics`."""

    async def serve(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/metrics", serve)
    return app
