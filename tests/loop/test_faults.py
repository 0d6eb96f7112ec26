"""Faults: poisoned objects, refusals, an API server that goes away, watches that miss things, sudden ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.cluster.controlplane import ControlPlane
from tests.support.api import Api
from tests.support.audit import Audit
from tests.support.operator_process import OperatorProcess, crd_directory
from tests.support.samples import condition, is_ready, service, with_condition
from tests.support.stub_operator import ASK
from tests.support.waiting import eventually, nothing_for

Start = Callable[..., OperatorProcess]


@pytest.mark.parametrize(
    ("ask", "reason", "said"),
    [("raise", "InternalError", "poisoned on request"), ("invalid", "ApplyRefused", "422"), ("typed", "ApplyRefused", "500")],
)
def test_one_bad_object_is_shown_and_stops_no_other(
    api: Api, namespace: str, start_stub: Start, audit: Audit, ask: str, reason: str, said: str
) -> None:
    """Fault 22."""
    api.create(service("bad", namespace, annotations={ASK: ask}))
    for number in range(10):
        api.create(service(f"good{number}", namespace))
    operator = start_stub()
    good = [f"good{number}" for number in range(10)]
    eventually(lambda: all(is_ready(api.find("LLMService", name, namespace)) for name in good), what="the others are ready")
    bad = eventually(lambda: with_condition(api.find("LLMService", "bad", namespace), "Stalled"), what="shown")
    assert condition(bad, "Ready")["status"] == "False"
    assert condition(bad, "Ready")["reason"] == reason
    assert said in condition(bad, "Ready")["message"]
    assert condition(bad, "Ready")["observedGeneration"] == bad["metadata"]["generation"]
    warnings = api.request("GET", f"/api/v1/namespaces/{namespace}/events", fieldSelector="type=Warning")["items"]
    assert [event["reason"] for event in warnings] == [reason]

    # It is tried again ever more slowly, and says nothing new. (A condition comes before its Event.)
    eventually(operator.idle, what="all that was to be told is told")
    mark = audit.mark()
    failures = f"trtllm_operator_reconcile_errors_total{{kind=LLMService,problem={reason}}}"
    count = operator.metrics()[failures]
    eventually(lambda: operator.metrics()[failures] > count, what="tried again")
    statuses = [write for write in audit.by_operator(mark) if write.subresource == "status" or write.resource == "events"]
    assert statuses == []

    # Once it is put right, it goes on by itself.
    api.patch("LLMService", "bad", {"metadata": {"annotations": {ASK: None}}}, namespace)
    eventually(lambda: is_ready(api.find("LLMService", "bad", namespace)), what="ready after the mend")
    assert condition(api.get("LLMService", "bad", namespace), "Stalled") == {}


def test_a_missed_deletion_is_cured_after_an_expired_watch(
    control_plane: ControlPlane, api: Api, namespace: str, start_stub: Start
) -> None:
    """Faults 4, 11 and 15."""
    api.create(service("one", namespace))
    operator = start_stub()
    eventually(lambda: is_ready(api.find("LLMService", "one", namespace)), what="ready")
    eventually(operator.idle, what="idle")
    # While the operator does not listen, the child goes and the API server forgets what happened before.
    os.kill(operator.pid, signal.SIGSTOP)
    try:
        api.delete("ConfigMap", "one-options", namespace)
        control_plane.restart_apiserver()
    finally:
        os.kill(operator.pid, signal.SIGCONT)
    eventually(lambda: api.find("ConfigMap", "one-options", namespace), what="made again", seconds=60)


def test_the_periodic_list_cures_what_no_watch_tells(api: Api, namespace: str, start_stub: Start) -> None:
    """Fault 12. The watches are cut off for good: kopf gets credentials of nobody."""
    api.create(service("one", namespace))
    operator = start_stub(RELIST_SECONDS="2", TEST_DEAF="1")
    eventually(lambda: is_ready(api.find("LLMService", "one", namespace)), what="ready by lists alone")
    api.delete("ConfigMap", "one-options", namespace)
    eventually(lambda: api.find("ConfigMap", "one-options", namespace), what="made again by lists alone")
    eventually(lambda: operator.metrics()["trtllm_operator_watch_deaf_seconds"] > 0, what="deafness is measured")


@pytest.mark.slow
def test_survives_the_absence_of_the_api_server(control_plane: ControlPlane, api: Api, namespace: str, start_stub: Start) -> None:
    """Fault 4."""
    api.create(service("before", namespace))
    operator = start_stub()
    eventually(lambda: is_ready(api.find("LLMService", "before", namespace)), what="ready")
    pid = operator.pid
    control_plane.stop_apiserver()
    try:
        nothing_for(15, lambda: operator.probe("healthz") != 200, what="alive without the API server")
    finally:
        control_plane.start_apiserver()
        control_plane.restart_controllers()
    api.create(service("after", namespace))
    eventually(lambda: is_ready(api.find("LLMService", "after", namespace)), what="new one is ready", seconds=60)
    assert operator.pid == pid
    assert operator.probe("readyz") == 200


def test_waits_for_its_crds(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Fault 9. Order of installation does not matter."""
    directory = tmp_path_factory.mktemp("late")
    with ControlPlane() as bare:
        client = Api(bare.url, bare.token, bare.ca)
        operator = OperatorProcess(bare.kubeconfig, directory, program=("-m", "tests.support.stub_operator"))
        try:
            operator.start(ready=False)
            eventually(lambda: "install the CRDs" in operator.log(), what="says what it waits for")
            assert operator.probe("healthz") == 200
            assert operator.probe("readyz") == 503
            client.install_crds(crd_directory())
            eventually(operator.ready, what="ready once they are there", seconds=60)
        finally:
            operator.stop(signal.SIGKILL)
            client.close()


@pytest.mark.slow
def test_survives_the_removal_of_its_crds(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Faults 9 and 45. Kopf leaves out kinds that are not there when it starts; they must be watched once they are back."""
    directory = tmp_path_factory.mktemp("replaced")
    with ControlPlane() as bare:
        client = Api(bare.url, bare.token, bare.ca)
        operator = OperatorProcess(bare.kubeconfig, directory, program=("-m", "tests.support.stub_operator"))
        try:
            client.install_crds(crd_directory())
            operator.start()
            client.create(service("before", "default"))
            eventually(lambda: is_ready(client.find("LLMService", "before")), what="ready")
            pid = operator.pid
            client.request("DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/llmservices.trtllm.dev")
            eventually(lambda: "does not know trtllm.dev/v1alpha1 llmservices" in operator.log(), what="noticed")
            client.install_crds(crd_directory())
            client.create(service("after", "default"))
            eventually(lambda: is_ready(client.find("LLMService", "after")), what="ready after the CRD is back", seconds=60)
            assert operator.pid == pid
            assert operator.probe("healthz") == 200
        finally:
            operator.stop(signal.SIGKILL)
            client.close()


def test_stops_within_five_seconds(api: Api, namespace: str, start_stub: Start) -> None:
    """Fault 3."""
    for number in range(50):
        api.create(service(f"s{number}", namespace))
    operator = start_stub()
    began = time.monotonic()
    operator.stop(signal.SIGTERM)
    assert time.monotonic() - began < 5
    assert "stopping" in operator.log()
    assert "Traceback" not in operator.log()


def test_killed_in_the_middle_it_goes_on(api: Api, namespace: str, start_stub: Start, audit: Audit) -> None:
    """Fault 20."""
    for number in range(100):
        api.create(service(f"s{number}", namespace))
    mark = audit.mark()
    operator = start_stub()
    eventually(lambda: len(audit.by_operator(mark)) > 50, what="in the middle")
    operator.stop(signal.SIGKILL)
    operator.start()
    eventually(lambda: sum(map(is_ready, api.list("LLMService", namespace))) == 100, what="all ready", seconds=60)
    created = [write.name for write in audit.by_operator(mark) if write.code == 201 and write.resource == "deployments"]
    assert sorted(created) == sorted(set(created)), "nothing is made twice"
