"""From apply to a token, as the demo does it, and what happens to a running service when things change around it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import openai

from tests.e2e.conftest import SMALL, Space, engine, service
from tests.support.kubectl import condition


def ask(url: str, model: str, prompt: str = "What is TensorRT-LLM?") -> str:
    """One streamed answer."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        chunks = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": prompt}], max_tokens=24, temperature=0, stream=True
        )
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@dataclass
class Loop:
    """Requests one after the other, until told to stop."""

    answers: int = 0
    errors: list[str] = field(default_factory=list)


@contextmanager
def request_loop(url: str, model: str, every: float = 0.05) -> Iterator[Loop]:
    """Ask all the time in a thread of its own, with so many seconds between an answer and the next question."""
    result, stop = Loop(), threading.Event()

    def run() -> None:
        while not stop.wait(every):
            try:
                ask(url, model)
                result.answers += 1
            except Exception as error:  # noqa: BLE001  every kind of failure is what the test looks for
                result.errors.append(f"{type(error).__name__}: {error} (after {result.answers} answers)")

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield result
    finally:
        stop.set()
        thread.join(90)


def test_engine_from_apply_to_token_in_any_order(space: Space) -> None:
    space.apply(service("llama"))
    waiting = space.reason("llmservice", "llama", "EngineNotFound")
    assert "llama" in waiting["message"]
    space.apply(engine("llama", parallelism={"tensor": 2}))
    built = space.ready("llmengine", "llama")
    served = space.ready("llmservice", "llama")
    assert built["status"]["artifact"]["kind"] == "TensorRTEngine"
    assert built["status"]["artifact"]["tensorParallel"] == 2
    assert {s["name"]: s["state"] for s in built["status"]["stages"]} == dict.fromkeys(
        ("resolve", "fetch", "build", "publish", "verify"), "Succeeded"
    )
    assert len(built["status"]["revision"]) == 40
    assert built["status"]["verification"]["output"]
    deployment = space.kubectl.get("deployment", "llama")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    for kind in ("service", "poddisruptionbudget", "networkpolicy"):
        assert space.kubectl.get(kind, "llama"), f"there is no {kind}"
    with space.kubectl.forward("service/llama", 8000) as url:
        assert len(ask(url, served["status"]["model"])) > 10
    table = space.kubectl("get", "llmengine,llmenginebuild,llmservice")
    assert table.count("True") >= 3, table


def test_checkpoint_recipe_after_the_removal(space: Space) -> None:
    space.apply(engine("llama", version="1.3.0rc29"), service("llama", serve={"servedModelName": "my/llama"}))
    built = space.ready("llmengine", "llama")
    served = space.ready("llmservice", "llama")
    assert built["status"]["artifact"]["kind"] == "HFCheckpoint"
    assert space.jobs("build") == []
    with space.kubectl.forward("service/llama", 8000) as url:
        assert len(ask(url, "my/llama")) > 10
    assert served["status"]["model"] == "my/llama"


def test_service_survives_its_engine(space: Space) -> None:
    """Fault 30."""
    space.apply(engine("llama"), service("llama"))
    space.ready("llmservice", "llama")
    before = space.kubectl.get("deployment", "llama")["metadata"]["generation"]
    space.kubectl("delete", "llmengine", "llama")

    def told() -> bool | None:
        return True if condition(space.kubectl.get("llmservice", "llama"), "EngineReady").get("reason") == "EngineNotFound" else None

    space.kubectl.wait("EngineReady says that the engine is gone", told)
    with space.kubectl.forward("service/llama", 8000) as url:
        assert ask(url, "llama")
    seen = space.kubectl.get("llmservice", "llama")
    assert condition(seen, "Available")["status"] == "True"
    assert space.kubectl.get("deployment", "llama")["metadata"]["generation"] == before
    assert len(space.kubectl.get("llmenginebuild")["items"]) == 1, "the build that is served must stay"


def test_changed_option_rolls_without_a_failed_request(space: Space) -> None:
    space.apply(engine("llama"), service("llama"))
    first = space.ready("llmengine", "llama")["status"]["key"]
    space.ready("llmservice", "llama")
    # Requests go through the node port, so that they reach whatever the Service reaches.
    space.kubectl("patch", "llmservice", "llama", "--type=merge", '--patch={"spec":{"expose":{"service":{"type":"NodePort"}}}}')
    space.ready("llmservice", "llama")
    url = space.kubectl.wait("a node port", lambda: node_url(space))
    space.kubectl.wait("kube-proxy leads there", lambda: reached(url))  # which it does a moment after the port is given
    with request_loop(url, "llama") as loop:
        space.kubectl.wait("the first answers", lambda: True if loop.answers >= 3 else None)
        space.kubectl("patch", "llmengine", "llama", "--type=merge", '--patch={"spec":{"build":{"maxBatchSize":16}}}')

        def new_key() -> str | None:
            key: str = space.kubectl.get("llmengine", "llama")["status"].get("key", first)
            return key if key != first else None

        second = space.kubectl.wait("a new key", new_key)
        assert space.kubectl.get("llmservice", "llama")["status"]["current"]["engineKey"] == first, (
            "the old artifact serves until the new one is done"
        )
        space.ready("llmengine", "llama")

        def rolled() -> bool | None:
            return True if space.ready("llmservice", "llama")["status"]["current"]["engineKey"] == second else None

        space.kubectl.wait("the rollout", rolled, 240)
        answered = loop.answers
        space.kubectl.wait("answers after the rollout", lambda: True if loop.answers >= answered + 3 else None)
    assert loop.errors == []
    space.kubectl.wait("the old build goes", lambda: True if len(space.kubectl.get("llmenginebuild")["items"]) == 1 else None)


def reached(url: str) -> str | None:
    """An answer, or None where nobody listens yet."""
    try:
        return ask(url, "llama")
    except openai.APIConnectionError:
        return None


def node_url(space: Space) -> str | None:
    """The Service's node port, on the address of the node, which is a container of this machine."""
    port = space.kubectl.get("service", "llama")["spec"]["ports"][0].get("nodePort")
    addresses = space.kubectl.get("nodes")["items"][0]["status"]["addresses"]
    address = next(a["address"] for a in addresses if a["type"] == "InternalIP")
    return f"http://{address}:{port}" if port else None


def test_scaling_by_hand_and_by_an_autoscaler_loses_no_pod(space: Space) -> None:
    space.apply(engine("llama"), service("llama", replicas=2))
    space.ready("llmservice", "llama")
    space.kubectl("scale", "llmservice", "llama", "--replicas=3")
    space.ready("llmservice", "llama")
    pods = {pod["metadata"]["uid"] for pod in space.kubectl.get("pods", None, "--selector=trtllm.dev/service=llama")["items"]}
    assert len(pods) == 3

    def uids() -> set[str]:
        items = space.kubectl.get("pods", None, "--selector=trtllm.dev/service=llama")["items"]
        return {pod["metadata"]["uid"] for pod in items if "deletionTimestamp" not in pod["metadata"]}

    metric = [{"type": "resource", "name": "cpu", "averageUtilization": 80}]
    autoscaling = {"minReplicas": 3, "maxReplicas": 4, "metrics": metric}
    space.kubectl("replace", "--filename=-", stdin=replaced(space, autoscaling=autoscaling))
    space.kubectl.wait("an autoscaler", lambda: space.kubectl.get("horizontalpodautoscaler", "llama") or None)
    space.kubectl.wait(
        "the autoscaler has looked", lambda: space.kubectl.get("horizontalpodautoscaler", "llama").get("status", {}).get("conditions")
    )
    assert uids() == pods
    space.kubectl("replace", "--filename=-", stdin=replaced(space, replicas=3))
    space.kubectl.wait("no autoscaler", lambda: True if not space.kubectl.get("horizontalpodautoscaler", "llama") else None)
    space.ready("llmservice", "llama")
    assert uids() == pods


def replaced(space: Space, **spec: object) -> str:
    """The service with this spec and its present resourceVersion, as an edit would send it."""
    import json  # noqa: PLC0415

    now = space.kubectl.get("llmservice", "llama")
    return json.dumps({**now, "spec": {"engineRef": {"name": "llama"}, "placement": {"resources": SMALL}, **spec}})
