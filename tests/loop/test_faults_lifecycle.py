"""Faults of lifecycle: deletion in every way and at every time, recreation, edits to and fro, a namespace that goes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.support.api import Api, ApiRefusedError, Document
from tests.support.audit import Audit
from tests.support.kubelet_standin import KubeletStandIn
from tests.support.looking import identities, jobs, named, observed, ready, things
from tests.support.operator_process import OperatorProcess
from tests.support.samples import condition, engine, is_ready, service, with_condition
from tests.support.waiting import eventually, nothing_for
from trtllm_operator.kube.resources import BY_KIND

Start = Callable[..., OperatorProcess]
GONE_SECONDS = 90.0


def _delete(api: Api, kind: str, name: str, namespace: str, policy: str) -> None:
    body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy}
    api.request("DELETE", BY_KIND[kind].path(namespace, name), body)


def _owner_uids(obj: Document) -> set[str]:
    return {owner["uid"] for owner in obj["metadata"].get("ownerReferences", ())}


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_deleted_in_mid_build_everything_goes(
    api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn, policy: str
) -> None:
    """Fault 36. There is no finalizer of ours, so nothing waits for the operator."""
    kubelet.hold.add("build")
    operator = start_operator()
    api.create(engine("tiny", namespace))
    api.create(service("chat", namespace))
    eventually(lambda: jobs(api, namespace, "build"), what="build started", seconds=60)
    assert not any(obj["metadata"].get("finalizers") for obj in things(api, namespace, ("LLMEngine", "LLMEngineBuild", "LLMService")))
    for kind, name in (("LLMEngine", "tiny"), ("LLMService", "chat")):
        _delete(api, kind, name, namespace, policy)
    eventually(lambda: not things(api, namespace) and not api.list("Pod", namespace), what="all gone", seconds=GONE_SECONDS)
    eventually(operator.idle, what="idle")
    assert kubelet.ended["build"] == 0
    assert "Traceback" not in operator.log()


def test_orphaned_in_mid_build_no_gpu_is_held(api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn) -> None:
    """Fault 36. With `--cascade=orphan` a build that nobody asks for any more ends itself; what belonged to the engine alone stays, as asked."""
    kubelet.hold.add("build")
    operator = start_operator()
    api.create(engine("tiny", namespace))
    eventually(lambda: jobs(api, namespace, "build"), what="build started", seconds=60)
    _delete(api, "LLMEngine", "tiny", namespace, "Orphan")
    eventually(
        lambda: not api.list("LLMEngineBuild", namespace) and not jobs(api, namespace, "build"),
        what="build and its Job gone",
        seconds=GONE_SECONDS,
    )
    eventually(operator.idle, what="idle")
    left = things(api, namespace, ("Job",))
    assert [job["metadata"]["labels"]["trtllm.dev/stage"] for job in left] == ["resolve"], named(left)
    assert all(job["spec"]["ttlSecondsAfterFinished"] for job in left), "which go by themselves"


def test_what_is_deleted_while_the_operator_is_down_leaves_nothing(
    api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn, audit: Audit
) -> None:
    """Fault 37. Also with a finalizer of somebody else's, which is then removed by hand (the operator has none of its own)."""
    kubelet.hold.add("build")
    operator = start_operator()
    for number, name in enumerate(("gone", "held", "stays")):
        api.create(engine(name, namespace, build={"maxBatchSize": number + 1}))
    api.create(service("chat", namespace, engine="gone"))
    api.patch("LLMEngine", "held", {"metadata": {"finalizers": ["example.com/hold"]}}, namespace)
    eventually(lambda: len(jobs(api, namespace, "build")) == 3, what="builds started", seconds=60)
    built = {name: api.get("LLMEngine", name, namespace)["status"]["build"] for name in ("gone", "held", "stays")}
    operator.stop(signal.SIGKILL)
    for kind, name in (("LLMEngine", "gone"), ("LLMService", "chat"), ("LLMEngine", "held")):
        api.delete(kind, name, namespace)
    eventually(lambda: not api.find("LLMEngineBuild", built["gone"], namespace), what="build gone", seconds=GONE_SECONDS)
    mark = audit.mark()
    operator.start()
    eventually(lambda: api.find("LLMEngineBuild", built["stays"], namespace) and operator.idle(), what="idle")
    # What is on its way out is not worked for any more.
    assert not [write for write in audit.by_operator(mark) if write.name.startswith(("gone", "held", "chat", built["gone"]))]
    operator.stop(signal.SIGKILL)
    api.patch("LLMEngine", "held", {"metadata": {"finalizers": None}}, namespace)
    eventually(lambda: not api.find("LLMEngineBuild", built["held"], namespace), what="held build gone", seconds=GONE_SECONDS)
    operator.start()
    kubelet.hold.clear()
    kept = ready(api, namespace, "LLMEngine", "stays")
    alive = {obj["metadata"]["uid"] for obj in things(api, namespace)}
    assert all(_owner_uids(obj) & alive for obj in things(api, namespace) if _owner_uids(obj)), "no leak"
    assert named(things(api, namespace, ("LLMEngineBuild", "LLMService", "Deployment"))) == {f"LLMEngineBuild {built['stays']}"}
    assert kept["status"]["build"] == built["stays"]
    assert kubelet.ended["build"] == 1


def test_recreated_under_the_same_name_before_the_operator_looks(
    api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn
) -> None:
    """Fault 38. The new ones get children of their own, and nothing of the old one's status; a checkpoint in use is shared, not adopted."""
    operator = start_operator()
    api.create(engine("tiny", namespace))
    api.create(service("chat", namespace))
    ready(api, namespace, "LLMService", "chat")
    eventually(operator.idle, what="idle")
    old = {obj["metadata"]["uid"] for obj in things(api, namespace)}
    kubelet.failures.clear()
    os.kill(operator.pid, signal.SIGSTOP)
    try:
        for kind, name in (("LLMService", "chat"), ("LLMEngine", "tiny")):
            api.delete(kind, name, namespace)
        made = api.create(engine("tiny", namespace, build={"maxBatchSize": 3}))
        serving = api.create(service("chat", namespace, replicas=2))
    finally:
        os.kill(operator.pid, signal.SIGCONT)
    served = ready(api, namespace, "LLMService", "chat")
    eventually(lambda: not old & {obj["metadata"]["uid"] for obj in things(api, namespace)}, what="old ones gone", seconds=GONE_SECONDS)
    assert served["metadata"]["uid"] == serving["metadata"]["uid"]
    assert len(served["status"].get("history", ())) <= 1
    known = {made["metadata"]["uid"], serving["metadata"]["uid"]} | {b["metadata"]["uid"] for b in api.list("LLMEngineBuild", namespace)}
    strangers = [obj for obj in things(api, namespace) if not _owner_uids(obj) <= known]
    assert not strangers, named(strangers)
    assert api.get("Deployment", "chat", namespace)["spec"]["replicas"] == 2
    assert "Traceback" not in operator.log()


def test_there_and_back_in_mid_build_ends_with_the_first(api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn) -> None:
    """Fault 39. The build that is not wanted any more ends, once, and the first one is found again, not made again."""
    kubelet.hold.add("build")
    start_operator()
    api.create(engine("tiny", namespace))
    first = eventually(lambda: jobs(api, namespace, "build"), what="first build started", seconds=60)
    wanted = api.get("LLMEngine", "tiny", namespace)["status"]
    api.patch("LLMEngine", "tiny", {"spec": {"build": {"maxBatchSize": 3}}}, namespace)
    eventually(lambda: api.get("LLMEngine", "tiny", namespace)["status"]["key"] != wanted["key"], what="another key")
    other = api.get("LLMEngine", "tiny", namespace)["status"]["build"]
    eventually(
        lambda: [b["metadata"]["name"] for b in api.list("LLMEngineBuild", namespace)] == [other], what="only the second build", seconds=60
    )
    eventually(lambda: not set(first) & set(jobs(api, namespace, "build")), what="the first build's Job ended", seconds=60)
    api.patch("LLMEngine", "tiny", {"spec": {"build": {"maxBatchSize": None}}}, namespace)
    eventually(
        lambda: [b["metadata"]["name"] for b in api.list("LLMEngineBuild", namespace)] == [wanted["build"]],
        what="only the first build again",
        seconds=60,
    )
    kubelet.hold.clear()
    done = ready(api, namespace, "LLMEngine", "tiny")
    assert done["status"]["key"] == wanted["key"]
    assert done["status"]["build"] == wanted["build"]
    assert kubelet.ended["build"] == 1
    assert len(jobs(api, namespace, "build")) == 1


def test_there_and_back_before_the_operator_looks_does_nothing(
    api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn, audit: Audit
) -> None:
    """Faults 15 and 39. Made and unmade between two looks: no Job, no child, nothing but the status says a word."""
    operator = start_operator()
    api.create(engine("tiny", namespace))
    api.create(service("chat", namespace))
    ready(api, namespace, "LLMService", "chat")
    eventually(operator.idle, what="idle")
    before = identities(api, namespace)
    mark = audit.mark()
    operator.stop(signal.SIGKILL)
    api.patch("LLMEngine", "tiny", {"spec": {"build": {"maxBatchSize": 3}}}, namespace)
    api.patch("LLMService", "chat", {"spec": {"replicas": 3}}, namespace)
    api.patch("LLMEngine", "tiny", {"spec": {"build": {"maxBatchSize": None}}}, namespace)
    api.patch("LLMService", "chat", {"spec": {"replicas": None}}, namespace)
    api.create(engine("brief", namespace, build={"maxBatchSize": 5}))
    api.delete("LLMEngine", "brief", namespace)
    operator.start()
    for kind, name in (("LLMEngine", "tiny"), ("LLMService", "chat")):
        ready(api, namespace, kind, name)
    eventually(operator.idle, what="idle")
    written = [write for write in audit.by_operator(mark) if write.resource not in ("events", "leases")]
    assert all(write.subresource == "status" for write in written), written
    assert len(written) <= 3, "the status of each says which spec it speaks of"
    assert kubelet.ended["build"] == 1
    eventually(lambda: identities(api, namespace) == before, what="as before", seconds=GONE_SECONDS)


def test_an_invalid_edit_leaves_what_serves_alone(
    api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn, audit: Audit
) -> None:
    """Fault 40. Whether the API server refuses the edit or the operator does; and once it is taken back, nothing has happened."""
    operator = start_operator()
    api.create(engine("tiny", namespace))
    api.create(service("chat", namespace))
    ready(api, namespace, "LLMService", "chat")
    eventually(operator.idle, what="idle")
    before, pods = identities(api, namespace), {pod["metadata"]["uid"] for pod in api.list("Pod", namespace)}
    for kind, name, spec in (
        ("LLMService", "chat", {"replicas": -1}),
        ("LLMService", "chat", {"engineRef": None}),
        ("LLMEngine", "tiny", {"precision": {"dtype": "float7"}}),
    ):
        with pytest.raises(ApiRefusedError):
            api.patch(kind, name, {"spec": spec}, namespace)
    mark = audit.mark()
    api.patch("LLMEngine", "tiny", {"spec": {"runtime": {"version": "9.9.9"}}}, namespace)
    api.patch("LLMService", "chat", {"spec": {"engineRef": {"name": "nobody"}}}, namespace)
    shown = eventually(lambda: with_condition(api.find("LLMEngine", "tiny", namespace), "Stalled"), what="the engine says so")
    assert condition(shown, "Ready")["reason"] == "UnsupportedVersion"
    eventually(
        lambda: observed(api.get("LLMService", "chat", namespace)) and not is_ready(api.get("LLMService", "chat", namespace)),
        what="the service says so",
    )
    eventually(operator.idle, what="idle")
    refused = api.get("LLMService", "chat", namespace)
    assert condition(refused, "Available")["status"] == "True"
    assert identities(api, namespace) == before
    assert {pod["metadata"]["uid"] for pod in api.list("Pod", namespace)} == pods
    api.patch("LLMEngine", "tiny", {"spec": {"runtime": {"version": "1.2.1"}}}, namespace)
    api.patch("LLMService", "chat", {"spec": {"engineRef": {"name": "tiny"}}}, namespace)
    for kind, name in (("LLMEngine", "tiny"), ("LLMService", "chat")):
        ready(api, namespace, kind, name)
    eventually(operator.idle, what="idle")
    assert identities(api, namespace) == before
    assert not [write for write in audit.by_operator(mark) if write.subresource != "status" and write.resource not in ("events", "jobs")]
    assert kubelet.ended["build"] == 1


def test_a_namespace_that_is_deleted_in_mid_build_goes(
    api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn, audit: Audit
) -> None:
    """Fault 43. Nothing of ours holds it up, and nobody hammers at it."""
    kubelet.hold.add("build")
    operator = start_operator()
    api.create(engine("tiny", namespace))
    api.create(service("chat", namespace))
    eventually(lambda: jobs(api, namespace, "build"), what="build started", seconds=60)
    eventually(operator.idle, what="idle")
    mark = audit.mark()
    api.request("DELETE", f"/api/v1/namespaces/{namespace}")

    def gone() -> bool:
        try:
            found = api.request("GET", f"/api/v1/namespaces/{namespace}")
        except ApiRefusedError as error:
            return error.status == 404
        left.append(found["status"].get("conditions"))
        return False

    left: list[object] = []
    try:
        eventually(gone, what="namespace gone", seconds=GONE_SECONDS, every=0.5)
    except AssertionError as error:
        raise AssertionError(f"{error}; {left[-1]}; {named(things(api, namespace))}") from error
    eventually(operator.idle, what="idle")
    assert len(audit.by_operator(mark)) < 40
    nothing_for(2, lambda: operator.probe("healthz") != 200, what="alive")
    mark = audit.mark()
    nothing_for(2, lambda: audit.by_operator(mark), what="no write any more")
    assert "Traceback" not in operator.log()
