"""Two operators at the same time, of which one works: by its end, its death, its sleep and a wrong clock."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.api import Api
from tests.support.audit import Audit
from tests.support.kubelet_standin import KubeletStandIn
from tests.support.operator_process import OperatorProcess
from tests.support.samples import engine, is_ready, service
from tests.support.waiting import eventually

Start = Callable[..., OperatorProcess]
SECONDS = "6"  # of the Lease: short, but a loaded machine must be able to renew it


@pytest.fixture
def pair(namespace: str, start_stub: Start) -> tuple[OperatorProcess, OperatorProcess]:
    """The one that leads, and the one that waits."""
    found = [start_stub(POD_NAME=name, **_elect(namespace)) for name in ("operator-a", "operator-b")]
    leading = eventually(lambda: [operator for operator in found if _leads(operator)], what="one leads")
    assert len(leading) == 1
    return leading[0], next(operator for operator in found if operator is not leading[0])


def _elect(namespace: str) -> dict[str, str]:
    return {"LEADER_ELECTION": "true", "POD_NAMESPACE": namespace, "LEASE_SECONDS": SECONDS}


def _leads(operator: OperatorProcess) -> bool:
    return operator.metrics().get("trtllm_operator_leading") == 1


def _lease(api: Api, namespace: str) -> dict[str, Any]:
    found = api.request("GET", f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/trtllm-operator")
    return dict(found["spec"])


def _served(api: Api, namespace: str, name: str) -> None:
    api.create(service(name, namespace))
    eventually(lambda: is_ready(api.find("LLMService", name, namespace)), what=f"{name} is ready", seconds=60)


def test_one_works_and_the_other_is_ready_to(api: Api, namespace: str, pair: tuple[OperatorProcess, OperatorProcess], audit: Audit) -> None:
    _, waiting = pair
    mark = audit.mark()
    _served(api, namespace, "one")
    assert waiting.probe("readyz") == 200, "so that a rollout of the operator goes on"
    assert not _leads(waiting)

    def made() -> list[tuple[str, str]]:
        return sorted(
            (write.resource, write.name) for write in audit.by_operator(mark) if not write.subresource and write.resource != "leases"
        )

    eventually(lambda: len(made()) >= 3, what="the Event, which comes after the status")
    assert made() == [("configmaps", "one-options"), ("deployments", "one"), ("events", "")]
    assert waiting.metrics().get("trtllm_operator_api_requests_total{code=200,verb=PATCH}", 0) == 0
    assert _lease(api, namespace)["leaseTransitions"] == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_other_takes_over(api: Api, namespace: str, pair: tuple[OperatorProcess, OperatorProcess], how: signal.Signals) -> None:
    """Fault 3: told to end, the leader gives the Lease back. Fault 18: killed, it is waited for until the Lease runs out."""
    leader, waiting = pair
    _served(api, namespace, "before")
    leader.stop(how)
    assert ("the Lease is given back" in leader.log()) == (how == signal.SIGTERM)
    _served(api, namespace, "after")
    assert _leads(waiting)
    assert _lease(api, namespace)["leaseTransitions"] == 1


def test_stopped_past_its_lease_it_writes_nothing_any_more(
    api: Api, namespace: str, pair: tuple[OperatorProcess, OperatorProcess], audit: Audit
) -> None:
    """Fault 18: SIGSTOP in the middle of its work, SIGCONT after another has done it. A Lease has no fencing; the own clock has."""
    leader, waiting = pair
    count = 60
    mark = audit.mark()
    for number in range(count):
        api.create(service(f"s{number}", namespace))
    eventually(lambda: len(audit.by_operator(mark)) > 30, what="in the middle", every=0.005)
    os.kill(leader.pid, signal.SIGSTOP)
    try:
        eventually(lambda: _leads(waiting), what="the other leads", seconds=60)
        eventually(lambda: sum(map(is_ready, api.list("LLMService", namespace))) == count, what="all ready", seconds=60)
        eventually(waiting.idle, what="nothing left to do")
        before = {obj["metadata"]["name"]: obj["metadata"]["resourceVersion"] for obj in api.list("LLMService", namespace)}
        done = audit.mark()
    finally:
        os.kill(leader.pid, signal.SIGCONT)
    eventually(lambda: not leader.running, what="the old one ends")
    assert "has taken the Lease" in leader.log() or "could not be renewed" in leader.log()
    assert leader.exit_status == 1
    # One write can have been stopped between the last look at the clock and the socket; its precondition refuses it.
    late = [write for write in audit.by_operator(done) if write.resource != "leases"]
    assert len(late) <= 1
    assert [write for write in late if write.code != 409] == [], "what was in its hands when it was stopped changes nothing"
    assert before == {obj["metadata"]["name"]: obj["metadata"]["resourceVersion"] for obj in api.list("LLMService", namespace)}
    created = Counter(write.name for write in audit.by_operator(mark) if write.resource == "deployments" and write.code == 201)
    assert set(created.values()) == {1}


@pytest.mark.parametrize("skew", [-300, 300])
def test_clocks_five_minutes_apart(
    api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn, audit: Audit, skew: int
) -> None:
    """Fault 19: who waits neither takes the Lease too early, nor flips what the other has made when it has taken over."""
    right = start_operator(POD_NAME="right", **_elect(namespace))
    eventually(lambda: _leads(right), what="the first leads")
    wrong = start_operator(program=("-m", "tests.support.skewed_operator"), POD_NAME="wrong", SKEW_SECONDS=str(skew), **_elect(namespace))
    mark = audit.mark()
    api.create(engine("tiny", namespace))
    api.create(service("chat", namespace))
    eventually(lambda: kubelet.ended["fetch"] == 1, what="in the middle of the build", seconds=60)
    assert not _leads(wrong)
    right.stop(signal.SIGKILL)
    eventually(lambda: is_ready(api.find("LLMService", "chat", namespace)), what="served by the other", seconds=90)
    eventually(wrong.idle, what="idle")
    jobs = Counter(write.name for write in audit.by_operator(mark) if write.resource == "jobs" and write.code == 201)
    assert set(jobs.values()) == {1}
    assert dict(kubelet.ended) == dict.fromkeys(("resolve", "fetch", "build", "publish", "verify"), 1)
    # Back to the right clock, and nothing is written.
    again = start_operator(POD_NAME="right", **_elect(namespace))
    mark = audit.mark()
    wrong.stop()
    eventually(lambda: _leads(again), what="the first leads again")
    eventually(lambda: again.metrics().get("trtllm_operator_reconcile_seconds_count{kind=LLMService}", 0) > 0, what="looked at")
    eventually(again.idle, what="idle")
    assert [write for write in audit.by_operator(mark) if write.resource != "leases"] == []


def test_two_that_elect_nobody_do_nothing_twice(
    api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn, audit: Audit
) -> None:
    """Fault 18 without any Lease: names and preconditions alone keep the children from being made twice or flipping."""
    mark = audit.mark()
    for name in ("a", "b"):
        start_operator(POD_NAME=name)
    for number in range(5):
        api.create(engine(f"e{number}", namespace, build={"maxBatchSize": number + 1}))
        api.create(service(f"s{number}", namespace, engine=f"e{number}"))
    eventually(lambda: sum(map(is_ready, api.list("LLMService", namespace))) == 5, what="all ready", seconds=120, every=0.5)
    created = Counter((write.resource, write.name) for write in audit.by_operator(mark) if write.code == 201 and write.name)
    assert set(created.values()) == {1}
    assert kubelet.ended["build"] == 5
