"""Faults of the process: told to stop, stopped, blocked, out of file descriptors; and an API server that is away while things happen."""

from __future__ import annotations

import base64
import json
import os
import resource
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.controlplane import ControlPlane
from tests.support import oracles
from tests.support.api import Api
from tests.support.audit import Audit
from tests.support.kubelet_standin import KubeletStandIn
from tests.support.looking import ROOTS, identities, jobs, ready, things
from tests.support.operator_process import OperatorProcess
from tests.support.samples import engine, is_ready, service
from tests.support.stub_operator import ASK
from tests.support.waiting import eventually, nothing_for
from trtllm_operator.desired import names

Start = Callable[..., OperatorProcess]
OUTAGES = [5, 60, *([300] if os.environ.get("SOAK") else [])]
"""Seconds; the longest with SOAK set."""


def test_told_to_stop_in_mid_reconcile_it_leaves_nothing_half_done(api: Api, namespace: str, start_stub: Start, audit: Audit) -> None:
    """Fault 3. It ends within its grace, every status that it wrote is whole, and the next one goes on without making anything twice."""
    wanted = [f"s{number}" for number in range(60)]
    for name in wanted:
        api.create(service(name, namespace))
    mark = audit.mark()
    operator = start_stub(WORKERS="2")
    eventually(lambda: len(audit.by_operator(mark)) > 30, what="in the middle", every=0.01)
    began = time.monotonic()
    operator.stop(signal.SIGTERM)
    assert time.monotonic() - began < 5
    found = api.list("LLMService", namespace)
    assert not all(map(is_ready, found)), "it was in the middle"
    assert not oracles.o9_final(obj for obj in found if obj.get("status", {}).get("conditions"))
    assert not oracles.o8_log(operator.log())
    operator.start()
    eventually(lambda: all(map(is_ready, api.list("LLMService", namespace))), what="all ready", seconds=60)
    made = [(write.resource, write.name) for write in audit.by_operator(mark) if write.code == 201 and write.resource != "events"]
    assert len(made) == len(set(made)) == 2 * len(wanted)


def _delete_in_etcd(control_plane: ControlPlane, key: str) -> None:
    """As another API server would do it: nobody who watches this one is told."""
    url = f"http://127.0.0.1:{control_plane._etcd_port}/v3/kv/deleterange"
    body = json.dumps({"key": base64.b64encode(key.encode()).decode()}).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, data=body, timeout=10) as answer:
        assert json.loads(answer.read()).get("deleted") == "1", f"{key} is not there"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", OUTAGES)
def test_the_api_server_is_away_and_things_go_meanwhile(
    control_plane: ControlPlane, api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn, seconds: int
) -> None:
    """Fault 4. Alive all the time, and not deaf afterwards: what was deleted meanwhile (kopf tells of no such deletion) is made again."""
    operator = start_operator()
    api.create(engine("tiny", namespace))
    for name in ("chat", "gone"):
        api.create(service(name, namespace))
        ready(api, namespace, "LLMService", name)
    eventually(operator.idle, what="idle")
    options = [obj["metadata"]["name"] for obj in api.list("ConfigMap", namespace) if obj["metadata"]["name"].startswith("chat")]
    before = api.get("Service", "chat", namespace)["metadata"]["uid"]
    pid = operator.pid
    control_plane.stop_apiserver()
    try:
        _delete_in_etcd(control_plane, f"/registry/services/specs/{namespace}/chat")
        for name in options:
            _delete_in_etcd(control_plane, f"/registry/configmaps/{namespace}/{name}")
        _delete_in_etcd(control_plane, f"/registry/trtllm.dev/llmservices/{namespace}/gone")
        nothing_for(seconds, lambda: operator.probe("healthz") != 200, what="alive without the API server")
    finally:
        control_plane.start_apiserver()
        control_plane.restart_controllers()
    began = time.monotonic()
    api.create(service("after", namespace))
    eventually(lambda: api.find("Deployment", "after", namespace), what="the next service is worked on")
    print(f"\nafter {seconds} s without an API server, the next service was worked on in {time.monotonic() - began:.1f} s")
    eventually(lambda: api.find("Service", "chat", namespace), what="the Service is back")
    assert api.get("Service", "chat", namespace)["metadata"]["uid"] != before
    eventually(lambda: {o["metadata"]["name"] for o in api.list("ConfigMap", namespace)} >= set(options), what="options are back")
    ready(api, namespace, "LLMService", "after")
    eventually(lambda: not api.find("Deployment", "gone", namespace), what="what the deleted service had is gone", seconds=90)
    eventually(lambda: operator.probe("readyz") == 200 and operator.idle(), what="ready and idle", seconds=60)
    assert operator.pid == pid
    assert kubelet.ended["build"] == 1
    assert "Traceback" not in operator.log()


def test_a_blocked_event_loop_shows_on_the_probe(api: Api, namespace: str, start_stub: Start) -> None:
    """Fault 20. The probe is served by the loop that does the work, so the kubelet sees that it does not turn."""
    operator = start_stub()
    api.create(service("blocks", namespace, annotations={ASK: "block"}))
    eventually(lambda: operator.probe("healthz") == 0, what="the probe gets no answer")
    api.create(service("next", namespace))
    eventually(lambda: is_ready(api.find("LLMService", "next", namespace)), what="goes on afterwards")
    assert operator.probe("healthz") == 200


def _open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_out_of_file_descriptors_it_says_so_and_recovers(control_plane: ControlPlane, api: Api, namespace: str, start_stub: Start) -> None:
    """Fault 20. With no descriptor left for new connections, neither probe nor API server is reached; given some again, it goes on."""
    operator = start_stub()
    api.create(service("before", namespace))
    eventually(lambda: is_ready(api.find("LLMService", "before", namespace)), what="ready")
    eventually(operator.idle, what="idle")
    soft, hard = resource.prlimit(operator.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(operator.pid, resource.RLIMIT_NOFILE, (6, hard))
    control_plane.restart_apiserver()  # so that it needs new connections
    api.create(service("after", namespace))
    eventually(lambda: operator.probe("healthz") != 200, what="the probe fails, so that the kubelet would start it anew")
    assert not is_ready(api.find("LLMService", "after", namespace))
    resource.prlimit(operator.pid, resource.RLIMIT_NOFILE, (soft, hard))
    eventually(lambda: is_ready(api.find("LLMService", "after", namespace)), what="ready", seconds=90)
    assert operator.probe("healthz") == 200
    assert _open_files(operator.pid) < 100


def test_scaled_to_zero_nothing_is_written_and_what_serves_goes_on(
    api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn, audit: Audit
) -> None:
    """Fault 46. The one way to pause the operator as a whole; faults meanwhile are made up for at the next start."""
    operator = start_operator()
    api.create(engine("tiny", namespace))
    api.create(service("chat", namespace))
    ready(api, namespace, "LLMService", "chat")
    kubelet.hold.add("build")
    api.create(engine("late", namespace, build={"maxBatchSize": 3}))
    eventually(lambda: len(jobs(api, namespace, "build")) == 2, what="the second build started")
    eventually(operator.idle, what="idle")
    operator.stop()
    before, statuses = (
        identities(api, namespace, ("Deployment",)),
        {o["metadata"]["uid"]: o["status"] for o in things(api, namespace, ROOTS)},
    )
    mark = audit.mark()
    pods = _serving(api, namespace)
    kubelet.hold.clear()  # the build ends
    api.patch("Deployment", "chat", {"spec": {"progressDeadlineSeconds": 77}}, namespace)
    api.delete("Service", "chat", namespace)
    api.delete("PodDisruptionBudget", "chat", namespace)
    nothing_for(2, lambda: audit.by_operator(mark), what="no write of the operator")
    assert _serving(api, namespace) == pods
    assert {o["metadata"]["uid"]: o["status"] for o in things(api, namespace, ROOTS)} == statuses
    operator.start()
    eventually(lambda: api.find("Service", "chat", namespace) and api.find("PodDisruptionBudget", "chat", namespace), what="made again")
    eventually(lambda: api.get("Deployment", "chat", namespace)["spec"]["progressDeadlineSeconds"] != 77, what="drift healed")
    ready(api, namespace, "LLMEngine", "late")
    ready(api, namespace, "LLMService", "chat")
    assert identities(api, namespace, ("Deployment",))["Deployment chat"][0] == before["Deployment chat"][0]
    assert _serving(api, namespace) == pods
    assert kubelet.ended["build"] == 2


def _serving(api: Api, namespace: str) -> set[str]:
    """Uids of the pods of services."""
    return {pod["metadata"]["uid"] for pod in api.list("Pod", namespace, labelSelector=names.SERVICE)}
