"""What objects of others cost the operator: nothing, since it neither watches nor lists them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from tests.bench import machine
from tests.bench.bare import Bare, spread
from tests.bench.goals import Figure
from tests.bench.rig import Rig
from tests.support.waiting import nothing_for

LINE = "foreign"
NAMESPACE = "bench-foreign"
_PATHS = {
    "Pod": f"/api/v1/namespaces/{NAMESPACE}/pods",
    "Job": f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs",
    "ConfigMap": f"/api/v1/namespaces/{NAMESPACE}/configmaps",
    "Secret": f"/api/v1/namespaces/{NAMESPACE}/secrets",
}
_POD: dict[str, Any] = {"restartPolicy": "Never", "containers": [{"name": "app", "image": "example.test/app:1"}]}
_BODIES: dict[str, dict[str, Any]] = {
    "Pod": {"spec": _POD},
    "Job": {"spec": {"template": {"spec": _POD}}},
    "ConfigMap": {"data": {"text": "x" * 1000}},
    "Secret": {"stringData": {"text": "x" * 1000}},
}


async def _make(bare: Bare, count: int) -> None:
    await bare.request("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    await bare.request("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", {"metadata": {"name": "default"}})

    async def one(item: tuple[str, int]) -> None:
        kind, number = item
        await bare.request("POST", _PATHS[kind], {"metadata": {"name": f"foreign-{number}"}, **_BODIES[kind]})

    await spread([(kind, number) for number in range(count) for kind in _PATHS], one)


def lines(rig: Rig, count: int, idle_seconds: float) -> Iterator[Figure]:
    """Memory and CPU that they add, to whole MB and whole percents of a core: below that, an idle process differs from itself.

    They stay: this is the last line, and the control plane goes after it.
    """
    with rig.operator() as operator:
        began, cpu = time.monotonic(), machine.cpu_seconds(operator.pid)
        nothing_for(idle_seconds, lambda: None, what="time passes")
        share, before = (machine.cpu_seconds(operator.pid) - cpu) / (time.monotonic() - began), machine.rss(operator.pid)
        began, cpu = time.monotonic(), machine.cpu_seconds(operator.pid)
        rig.run(lambda bare: _make(bare, count))
        seconds = time.monotonic() - began
        busy, after = (machine.cpu_seconds(operator.pid) - cpu) / seconds, machine.rss(operator.pid)
    text = f"{count} foreign Pods, Jobs, ConfigMaps and Secrets each"
    details = {"mb": [before, after], "cpu_percent": [100 * share, 100 * busy], "made_in_seconds": seconds}
    yield Figure(LINE, f"RSS added by {text}", (float(max(0, round(after - before))),), unit="MB", goal=0, details=details)
    yield Figure(LINE, f"CPU added by {text}", (float(max(0, round(100 * (busy - share)))),), unit="% of a core", goal=0, details=details)
