"""What one user does to one resource, or somebody to resources that are none of ours, does not take the operator from others."""

from __future__ import annotations

import functools
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.cluster.controlplane import ControlPlane
from tests.crd import objects
from tests.support.api import Api
from tests.support.audit import Audit
from tests.support.faultproxy import FaultProxy
from tests.support.faultproxy_loop import LoopThread
from tests.support.journal import Journal
from tests.support.kubelet_standin import KubeletStandIn
from tests.support.operator_process import OperatorProcess
from tests.support.samples import condition, engine, is_ready, service
from tests.support.waiting import eventually
from trtllm_operator.kube.resources import BY_KIND, OWN_SELECTOR

Json = dict[str, Any]
Start = Callable[..., OperatorProcess]

GOOD = 100
FOREIGN = 700
MEGABYTE = 10**6


def told(api: Api, namespace: str, kind: str = "LLMService", start: str = "good-") -> int:
    """How many of these have been worked on: they have a status of ours."""
    found = [obj for obj in api.list(kind, namespace) if obj["metadata"]["name"].startswith(start)]
    return sum(bool(condition(obj, "Ready")) for obj in found)


def make(api: Api, namespace: str, count: int, start: str = "good-") -> float:
    """Seconds until as many services have been made and worked on."""
    began = time.monotonic()
    for number in range(count):
        api.create(service(f"{start}{number}", namespace))
    eventually(lambda: told(api, namespace, start=start) == count, what=f"{count} services worked on", seconds=120, every=0.3)
    return time.monotonic() - began


def stalled(api: Api, namespace: str, kind: str, name: str) -> Json:
    """What a person must do about a resource, once it is told."""
    return eventually(lambda: condition(api.find(kind, name, namespace), "Stalled"), what=f"{name} is told")


def post(control_plane: ControlPlane, path: str, bodies: Iterator[bytes]) -> None:
    """Create from text, on one connection: bodies that Python's own json can't write, or that are large."""
    connection = HTTPSConnection(control_plane.url.removeprefix("https://"), context=control_plane._tls, timeout=60)
    headers = {"Authorization": f"Bearer {control_plane.token}", "Content-Type": "application/json"}
    for body in bodies:
        connection.request("POST", path, body=body, headers=headers)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 201, text[:500]
    connection.close()


DEEP = (60, 950, 1010, 1500, 9500)
"""Levels: more than options may have, about as many as each of our parsers takes, and far more."""


def deep(namespace: str, name: str, levels: int) -> bytes:
    """A service whose options have so many levels."""
    nested = '{"a":[' * (levels // 2) + "1" + "]}" * (levels // 2)
    return json.dumps(service(name, namespace, serve={"options": {"x": "HERE"}})).replace('"HERE"', nested).encode()


def poisoned(api: Api, control_plane: ControlPlane, namespace: str) -> dict[str, str]:
    """Resources that the API server takes and nobody can serve: name -> word of what their user is told."""
    path = BY_KIND["LLMService"].path(namespace)
    bodies = [deep(namespace, f"deep-{levels}", levels) for levels in DEEP]
    bodies.append(json.dumps(service("wide", namespace, serve={"options": {"x": list(range(150_000))}})).encode())
    post(control_plane, path, iter(bodies))
    for number in range(3):
        limits = {"requests": {"memory": "8Gi"}, "limits": {"memory": "1Gi"}}
        api.create(engine(f"refused-{number}", namespace, jobs={"fetch": {"resources": limits}}))
    return {**{f"deep-{levels}": "levels" for levels in DEEP}, "wide": "bytes"}


def test_poisoned_resources_and_a_hundred_good_ones(
    api: Api, control_plane: ControlPlane, namespace: str, start_operator: Start, audit: Audit
) -> None:
    """Before the operator starts, while it runs, and when it starts again."""
    operator = start_operator()
    without = make(api, namespace, GOOD, "before-")
    expected = poisoned(api, control_plane, namespace)
    mark = audit.mark()
    with_poison = make(api, namespace, GOOD)
    writes = [write for write in audit.by_operator(mark) if write.name.startswith("good-") and not write.resource.startswith("events")]
    per_good = len(writes) / GOOD
    assert with_poison < 3 * without + 5, f"{with_poison:.1f} s with poisoned resources, {without:.1f} s without"
    assert per_good <= 6, "as many writes as without: Service, budget, policy, statuses"
    for name, word in expected.items():
        found = stalled(api, namespace, "LLMService", name)
        assert (found["reason"], word in found["message"]) == ("InvalidSpec", True), found
    for number in range(3):
        assert stalled(api, namespace, "LLMEngine", f"refused-{number}")["reason"] == "ApplyRefused"
    errors = sum(count for sample, count in operator.metrics().items() if sample.startswith("trtllm_operator_reconcile_errors_total{"))
    assert errors < 150, "what is refused is tried again ever more slowly"
    operator.stop()
    started = time.monotonic()
    operator.start()
    assert time.monotonic() - started < 60
    make(api, namespace, 5, "after-")
    assert "Traceback" not in operator.log()
    assert "RecursionError" not in operator.log()


def resident(operator: OperatorProcess, field: str = "VmRSS") -> float:
    """MB of memory: now, or (VmHWM) at most so far."""
    lines = Path(f"/proc/{operator.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


class AskedProxy(FaultProxy):
    """Also keeps the paths that were asked for."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked: list[tuple[str, str, bool]] = []
        """Path, label selector, and whether it is a watch."""

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            self.asked.append((request.path, request.query.get("labelSelector", ""), "watch" in request.query))
        return await super()._handle(request)


def test_foreign_config_maps_cost_nothing(api: Api, control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    """700 of 1 MB in the very namespace: they are neither listed nor watched."""
    with LoopThread() as loop:
        journal = Journal()
        with AskedProxy(loop, control_plane.url, control_plane.ca, journal, lambda: None) as proxy:
            kubeconfig = proxy.kubeconfig(tmp_path / "kubeconfig", control_plane.token)
            with OperatorProcess(kubeconfig, tmp_path, WATCH_NAMESPACE=namespace, RELIST_SECONDS="5") as operator:
                make(api, namespace, 10, "before-")
                before, highest = resident(operator), resident(operator, "VmHWM")
                _config_maps(control_plane, namespace)
                make(api, namespace, 10)
                lists = "trtllm_operator_list_age_seconds{kind=ConfigMap}"
                age = operator.metrics().get(lists)
                if age is not None:
                    eventually(lambda: operator.metrics()[lists] < age, what="another list of ConfigMaps", seconds=60)
                assert resident(operator) < before + 30, "memory stays flat"
                assert resident(operator, "VmHWM") < highest + 40
                operator.stop()
                operator.start()  # with all of them there
                make(api, namespace, 10, "after-")
                assert resident(operator, "VmHWM") < highest + 40
                log = operator.log()
            asked = [(selector, watch) for path, selector, watch in proxy.asked if path.endswith("/configmaps")]
    api.request("DELETE", f"/api/v1/namespaces/{namespace}/configmaps")
    assert len(asked) >= 4
    assert set(asked) == {(OWN_SELECTOR, True), (OWN_SELECTOR, False)}
    assert not [entry for entry in journal.since() if entry.kind == "event" and entry.name.startswith("foreign-")]
    assert "Traceback" not in log


def _config_maps(control_plane: ControlPlane, namespace: str) -> None:
    data = "x" * MEGABYTE
    template = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "foreign-NAME"}, "data": {"x": data}})

    def some(numbers: range) -> None:
        bodies = (template.replace("NAME", str(number), 1).encode() for number in numbers)
        post(control_plane, f"/api/v1/namespaces/{namespace}/configmaps", bodies)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(some, [range(start, FOREIGN, 3) for start in range(3)]))


def test_a_hundred_updates_a_second_of_one_object(api: Api, namespace: str, start_operator: Start, audit: Audit) -> None:
    operator = start_operator()
    without = make(api, namespace, 30, "before-")
    api.create(service("busy", namespace))
    stop = threading.Event()
    updates = itertools.count()
    done = []

    def change(begin: int) -> None:
        number = begin
        while not stop.wait(0.02):
            number += 2
            api.patch("LLMService", "busy", {"spec": {"replicas": number % 900}}, namespace)
            done.append(next(updates))
        api.close()

    mark = audit.mark()
    threads = [threading.Thread(target=change, args=(begin,)) for begin in (0, 1)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    try:
        with_updates = make(api, namespace, 30)
        eventually(lambda: len(done) > 300, what="300 updates", seconds=60)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    rate = len(done) / (time.monotonic() - began)
    assert with_updates < 3 * without + 5, f"{with_updates:.1f} s at {rate:.0f} updates/s, {without:.1f} s without"
    eventually(
        lambda: (obj := api.get("LLMService", "busy", namespace))["status"]["observedGeneration"] == obj["metadata"]["generation"],
        what="the last update is seen",
        seconds=60,
    )
    eventually(operator.idle, what="queue empty")
    statuses = [write for write in audit.by_operator(mark) if write.name == "busy" and write.subresource == "status"]
    assert len(statuses) <= len(done) + 2, "at most one status for each change"
    others = [write for write in audit.by_operator(mark) if write.name == "busy" and not write.subresource and write.resource != "events"]
    assert len(others) <= 5, "no child depends on what has changed"
    assert "Traceback" not in operator.log()


# At the bounds: what may not be as long as it could, because it would be refused at once for another reason.
_ENGINE: Json = {
    "spec.runtime.version": "1.2.1", "spec.source.pvc": None, "spec.storage.claimName": None, "spec.accelerator.computeCapability": "9.0",
    "spec.parallelism.pipeline": 1, "spec.build.optNumTokens": None, "spec.suspend": False, "spec.podSecurity.runAsRoot": False,
}  # fmt: skip
_FROM_CLAIM = {**_ENGINE, "spec.source.huggingFace": None, "spec.source.pvc": {"claimName": "c" * 253, "path": "p" * 512}}
_TOLERATION = {"key": "k" * 63, "operator": "Equal", "value": "v" * 63, "effect": "NoExecute", "tolerationSeconds": 604800}
_METRIC = {"type": "pods", "name": "m" * 253, "averageValue": "1" * 15}
_OPTIONS = {f"x{'k' * 60}{number}": "v" * 900 for number in range(64)}
_CPU = {"cpu": "1", "memory": "1Gi"}


def fullest(schema: Json, path: tuple[str, ...], given: Json) -> Any:
    """A value at every bound of a schema. `given`: what is there instead; None leaves a field out."""
    shown = ".".join(path)
    if shown in given:
        return given[shown]
    match path[-1]:
        case "tolerations":
            return [_TOLERATION | {"key": f"{'k' * 60}{number}"} for number in range(schema["maxItems"])]
        case "metrics":
            return [_METRIC | {"name": f"{'m' * 250}{number}"} for number in range(schema["maxItems"])]
        case "resources":
            return {"requests": _CPU, "limits": _CPU}
        case "options":
            return _OPTIONS
        case "clients":
            labels = {f"{'l' * 60}{number}": "v" * 63 for number in range(32)}
            return [{"podLabels": labels, "namespaceLabels": labels}] * schema["maxItems"]
        case _:
            pass
    if "enum" in schema:
        return schema["enum"][-1]
    match schema.get("type", "string"):
        case "object" if "additionalProperties" in schema:
            value = fullest(schema["additionalProperties"], (*path, "*"), given)
            return {f"{'k' * 60}{number}": value for number in range(schema["maxProperties"])}
        case "object":
            fields = {name: fullest(child, (*path, name), given) for name, child in schema["properties"].items()}
            return {name: value for name, value in fields.items() if value is not None}
        case "array":
            return [fullest(schema["items"], (*path, "[]"), given)] * schema["maxItems"]
        case "integer" | "number":
            return schema.get("maximum", 2**31 - 1)
        case "boolean":
            return True
        case _:
            return objects.text(schema, schema.get("maxLength", 253))


def at_the_bounds(kind: str, name: str, namespace: str, given: Json) -> Json:
    """A resource with every field, as large as it may be."""
    from tests.unit.test_injection_schema import SCHEMAS  # noqa: PLC0415 - it is slow to import

    spec = fullest(SCHEMAS[kind]["properties"]["spec"], ("spec",), given)
    return {"apiVersion": objects.API_VERSION, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def test_specs_at_every_bound_all_at_once(api: Api, namespace: str, start_operator: Start) -> None:
    """Eight of each; a small engine and a small service beside them are built and served meanwhile."""
    operator = start_operator()
    before = resident(operator)
    scaled = {"spec.engineRef.name": "tiny", "spec.replicas": None, "spec.autoscaling.minReplicas": 1000}
    fixed = {"spec.engineRef.name": "tiny", "spec.autoscaling": None}
    with KubeletStandIn(api, namespace):
        for number in range(8):
            api.create(at_the_bounds("LLMEngine", f"{'e' * 60}-{number}", namespace, _ENGINE))
            api.create(at_the_bounds("LLMEngine", f"claim-{number}", namespace, _FROM_CLAIM))
            api.create(at_the_bounds("LLMService", f"{'s' * 50}{number}", namespace, scaled if number % 2 else fixed))
        api.create(engine("tiny", namespace))
        api.create(service("chat", namespace))
        eventually(lambda: is_ready(api.find("LLMEngine", "tiny", namespace)), what="the small engine is built", seconds=120)
        eventually(lambda: is_ready(api.find("LLMService", "chat", namespace)), what="the small service is served", seconds=120)
        for kind, count in {"LLMEngine": 17, "LLMService": 9}.items():
            look = functools.partial(told, api, namespace, kind, "")
            eventually(lambda look=look, count=count: look() == count, what=f"every {kind} is told", seconds=120)  # type: ignore[misc]
    said = {condition(obj, "Ready")["message"] for kind in ("LLMEngine", "LLMService") for obj in api.list(kind, namespace)}
    assert not [message for message in said if "can't work on this resource" in message]
    assert "Traceback" not in operator.log()
    assert resident(operator) < before + 150
