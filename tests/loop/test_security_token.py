"""O12: a token in a Secret appears in no object but it, no event, log line, metric or termination message; also under faults."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.cluster.controlplane import ControlPlane
from tests.cluster.ports import free_ports
from tests.faults.case import Case, Ground
from tests.faults.conftest import _served
from tests.faults.forkserver import ForkServer
from tests.support.api import Api
from tests.support.faultproxy_loop import LoopThread
from tests.support.faultproxy_plan import Plan, each_write
from tests.support.kubelet_standin import Failure
from tests.support.samples import engine, is_ready, service, with_condition
from tests.support.waiting import eventually
from tests.unit.test_builder_support import Stage
from tests.unit.test_hostile_token import EchoHub

TOKEN = "hf_plantedPLANTEDplanted0123456789"
_SPELLINGS = (TOKEN, base64.b64encode(TOKEN.encode()).decode(), TOKEN.removeprefix("hf_"))

PLANS: dict[str, Plan] = {
    "none": Plan(),
    "refused": each_write("status:403"),
    "broken": each_write("status:500"),
    "lost": each_write("reset-after"),
    "killed": Plan([{"when": {"verb": "write", "resource": "llmengines/status", "nth": 2, "times": 1}, "do": "kill-after"}]),
}


@pytest.fixture(scope="module")
def ground(control_plane: ControlPlane, api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    directory = tmp_path_factory.mktemp("token")
    eventually(lambda: _served(api), what="the CRDs' paths served")
    with ForkServer(directory) as operators, LoopThread() as loop:
        yield Ground(control_plane, api, loop, operators, directory)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the stage program itself leaves, with that token, when a hub throws it back: reports of failures."""
    reports = []
    for mode in ("denied", "body"):
        root = tmp_path_factory.mktemp(f"stage-{mode}")
        with EchoHub(mode).running() as hub:
            source = {"kind": "huggingFace", "repo": "org/model", "revision": "main", "endpoint": hub.endpoint}
            reports.append(Stage(root, {"HF_TOKEN": TOKEN}).run("resolve", {"source": source}).report)
    return reports


def _listed(api: Api, namespace: str) -> Iterator[tuple[str, str]]:
    """Every object of every kind that the API server has in a namespace, as text."""
    groups = ["/api/v1", *(f"/apis/{g['preferredVersion']['groupVersion']}" for g in api.request("GET", "/apis")["groups"])]
    for group in groups:
        for resource in api.request("GET", group)["resources"]:
            if resource["namespaced"] and "list" in resource["verbs"] and "/" not in resource["name"]:
                for item in api.request("GET", f"{group}/namespaces/{namespace}/{resource['name']}")["items"]:
                    yield f"{resource['name']}/{item['metadata']['name']}", json.dumps(item)


def _metrics(port: int) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def _secret(namespace: str) -> dict[str, Any]:
    metadata = {"name": "hub", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"token": TOKEN}}


def test_a_token_stays_in_its_secret(ground: Ground, told: list[dict[str, Any]]) -> None:
    """Without faults and under each of the plans, side by side."""

    def one(name: str) -> list[str]:
        return [f"{name}: {problem}" for problem in run(ground, told, name)]

    with ThreadPoolExecutor(len(PLANS)) as pool:
        assert [problem for problems in pool.map(one, PLANS) for problem in problems] == []


def run(ground: Ground, told: list[dict[str, Any]], name: str) -> Iterator[str]:
    """An engine that fails for want of access, then is built and served; where the token, or the operator's own, was seen."""
    api, namespace = ground.api, f"token-{name}"
    metrics, probes = free_ports(2)
    with Case(ground, namespace, METRICS_PORT=str(metrics), PROBES_PORT=str(probes)) as case:
        api.request("POST", f"/api/v1/namespaces/{namespace}/secrets", _secret(namespace))
        case.kubelet.failures["resolve"] = Failure(told[0]["reason"], told[0]["message"], times=1)
        case.arm(PLANS[name])
        case.start()
        source = {"huggingFace": {"repo": "tiny/llama", "tokenSecretRef": {"name": "hub"}}}
        api.create(engine("tiny", namespace, source=source))
        api.create(service("chat", namespace, serve={"options": {"x": "$(HF_TOKEN)"}}))
        case.wait(
            lambda: (
                with_condition(api.find("LLMEngine", "tiny", namespace), "Ready", told[0]["reason"])
                or api.list("LLMEngineBuild", namespace)
            ),
            what="the refusal is told, or over already",
        )
        case.kubelet.failures["fetch"] = Failure(told[1]["reason"], told[1]["message"], times=1)
        api.patch("LLMEngine", "tiny", {"spec": {"source": {"huggingFace": {"revision": "v2"}}}}, namespace)  # a person acts
        case.wait(
            lambda: is_ready(api.find("LLMEngine", "tiny", namespace)) and is_ready(api.find("LLMService", "chat", namespace)),
            what="built and served",
            seconds=150,
        )
        if name != "none" and PLANS[name].hits == 0:
            yield "the plan hit nothing"
        found = dict(_listed(api, namespace))
        numbers = _metrics(metrics)
        log, entries = case.log(), case.journal.since()
        left = "\n".join(
            path.read_text(errors="replace") for path in case.directory.rglob("*") if path.name != "kubeconfig" and path.is_file()
        )
    kinds = {key.split("/")[0] for key in found}
    wanted = {"secrets", "events", "pods", "jobs", "llmengines", "llmenginebuilds", "llmservices", "deployments", "configmaps"}
    if not wanted <= kinds:
        yield f"nothing was looked at of {wanted - kinds}"
    yield from (key for key, text in found.items() if key != "secrets/hub" and any(form in text for form in _SPELLINGS))
    if not any(form in found["secrets/hub"] for form in _SPELLINGS):
        yield "the token is not even in its Secret, so this proves nothing"
    own = ground.control_plane.token
    for what, text in (("log", log), ("metrics", numbers), ("journal", repr(entries)), ("files", left)):
        if any(form in text for form in (*_SPELLINGS, own)):
            yield f"in the {what}"
    yield from (f"the operator asked for {entry.target}" for entry in entries if entry.resource.startswith("secrets"))
