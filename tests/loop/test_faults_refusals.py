"""Refusals that last: no right, a quota, a policy, a webhook that is down. They name what is refused, others go on, and so does this one
when the cause is gone.
"""

from __future__ import annotations

import base64
import http.server
import json
import signal
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.controlplane import ControlPlane
from tests.cluster.ports import free_ports
from tests.support.account import Account, base_rules, without
from tests.support.api import APPLY, MERGE, Api, Document
from tests.support.audit import Audit, Write
from tests.support.kubelet_standin import KubeletStandIn
from tests.support.looking import jobs, ready, warnings
from tests.support.operator_process import OperatorProcess
from tests.support.samples import condition, engine, is_ready, service, with_condition
from tests.support.waiting import eventually, nothing_for

Start = Callable[..., OperatorProcess]
ADMISSION = "/apis/admissionregistration.k8s.io/v1"


@pytest.fixture
def account(api: Api, namespace: str) -> Account:
    return Account(api, namespace)


@pytest.fixture
def restricted(account: Account, control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator with the account's rights, not started yet."""
    kubeconfig = account.kubeconfig(control_plane, tmp_path / "kubeconfig")
    operator = OperatorProcess(kubeconfig, tmp_path, WATCH_NAMESPACE=namespace, READ_NODES="false", RELIST_SECONDS="5")
    yield operator
    operator.stop(signal.SIGKILL)


@contextmanager
def _installed(api: Api, *objects: Document) -> Iterator[None]:
    """Objects of the whole cluster, for a while."""
    paths = [
        f"{ADMISSION}/{obj['kind'].lower()[:-1]}ies" if obj["kind"].endswith("y") else f"{ADMISSION}/{obj['kind'].lower()}s"
        for obj in objects
    ]
    for path, obj in zip(paths, objects, strict=True):
        body = {"apiVersion": "admissionregistration.k8s.io/v1", **obj}
        api.request("PATCH", f"{path}/{obj['metadata']['name']}", body, content_type=APPLY, fieldManager="test")
    try:
        yield
    finally:
        for path, obj in zip(paths, objects, strict=True):
            api.request("DELETE", f"{path}/{obj['metadata']['name']}")


def test_a_right_that_is_missing_is_named_and_stops_no_others(
    api: Api, namespace: str, account: Account, restricted: OperatorProcess, kubelet: KubeletStandIn
) -> None:
    """Fault 8. One verb on one resource: the condition and one log line name both; with a status that can't be written, an event does."""
    account.may(without(base_rules(), "poddisruptionbudgets", ["create", "patch"]))
    restricted.start()
    api.create(engine("tiny", namespace))
    api.create(service("chat", namespace))
    shown = eventually(lambda: with_condition(api.find("LLMService", "chat", namespace), "Ready", "ApplyRefused"), what="shown", seconds=60)
    message = condition(shown, "Stalled")["message"]
    assert 'cannot patch resource "poddisruptionbudgets"' in message, message
    ready(api, namespace, "LLMEngine", "tiny")  # others go on
    failures = "trtllm_operator_reconcile_errors_total{kind=LLMService,problem=ApplyRefused}"
    count = restricted.metrics()[failures]
    eventually(lambda: restricted.metrics()[failures] > count + 1, what="tried again")
    assert restricted.log().count('cannot patch resource "poddisruptionbudgets"') == 1

    account.may(without(base_rules(), "llmservices/status", ["patch"]))
    api.create(service("mute", namespace))
    said = eventually(lambda: warnings(api, namespace, "mute"), what="an event")
    assert 'cannot patch resource "llmservices/status"' in said[0]["message"]
    api.create(engine("other", namespace, build={"maxBatchSize": 3}))
    ready(api, namespace, "LLMEngine", "other")
    assert sum('cannot patch resource "llmservices/status"' in line for line in restricted.log().splitlines() if "mute" in line) == 1

    account.may(base_rules())
    for name in ("chat", "mute"):
        ready(api, namespace, "LLMService", name)
    assert kubelet.ended["build"] == 2
    assert "Traceback" not in restricted.log()


def test_without_the_right_to_watch_a_kind_it_lives_by_lists_and_says_so(
    api: Api, namespace: str, account: Account, restricted: OperatorProcess, kubelet: KubeletStandIn
) -> None:
    """Fault 8. Never alive and deaf: what a watch may not tell, lists do."""
    account.may(without(base_rules(), "jobs", ["watch"]))
    restricted.start()
    api.create(engine("tiny", namespace))
    ready(api, namespace, "LLMEngine", "tiny")
    told = eventually(lambda: [line for line in restricted.log().splitlines() if 'cannot watch resource "jobs"' in line], what="said")
    assert len(told) < 10, "not over and over"
    assert restricted.probe("healthz") == 200
    assert kubelet.ended["build"] == 1


def test_with_its_service_account_deleted_it_says_so_and_takes_nothing_away(
    api: Api, namespace: str, account: Account, restricted: OperatorProcess, kubelet: KubeletStandIn, audit: Audit
) -> None:
    """Faults 8 and 45. Its token is refused from then on, for however long; it asks again and again, slowly, and is told to nobody else."""
    restricted.start()
    api.create(engine("tiny", namespace))
    ready(api, namespace, "LLMEngine", "tiny")
    eventually(restricted.idle, what="idle")
    account.delete()
    eventually(
        lambda: "401 Unauthorized" in restricted.log(), what="said", seconds=60
    )  # the API server believes a token for a while longer
    mark = audit.mark()
    api.create(service("chat", namespace))
    nothing_for(3, lambda: [write for write in audit.by_operator(mark) if write.code < 300], what="no write")
    assert is_ready(api.get("LLMEngine", "tiny", namespace))
    assert kubelet.ended["build"] == 1
    assert "Traceback" not in restricted.log()


def _webhook(namespace: str, port: int) -> Document:
    """A validating webhook that nobody serves, for what we make, and for statuses."""
    rules = [
        {"apiGroups": ["trtllm.dev"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": ["*/status"]},
        {
            "apiGroups": ["batch", "apps", ""],
            "apiVersions": ["*"],
            "operations": ["CREATE"],
            "resources": ["jobs", "deployments", "services"],
        },
    ]
    return {
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": f"down-{namespace}"},
        "webhooks": [
            {
                "name": "down.example.com",
                "clientConfig": {"url": f"https://127.0.0.1:{port}/"},
                "rules": rules,
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "timeoutSeconds": 1,
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            }
        ],
    }


def test_a_webhook_of_others_is_down(api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn) -> None:
    """Fault 17. What it keeps us from is waited for and told, deletion stays possible, and it goes on by itself afterwards."""
    operator = start_operator()
    api.create(engine("tiny", namespace))
    for name in ("chat", "leaving"):
        api.create(service(name, namespace))
    (port,) = free_ports(1)
    only_children = _webhook(namespace, port)
    only_children["webhooks"][0]["rules"] = only_children["webhooks"][0]["rules"][1:]
    with _installed(api, only_children):
        api.create(engine("late", namespace, build={"maxBatchSize": 3}))
        shown = eventually(lambda: with_condition(api.find("LLMEngine", "late", namespace), "Ready", "ApplyRefused"), what="shown")
        assert "down.example.com" in condition(shown, "Ready")["message"]
        assert condition(shown, "Reconciling")["status"] == "True", "it goes on by itself"
    with _installed(api, _webhook(namespace, port)):
        api.delete("LLMService", "leaving", namespace)
        eventually(lambda: not api.find("Deployment", "leaving", namespace), what="deleted all the same", seconds=90)
        api.create(engine("mute", namespace, build={"maxBatchSize": 4}))
        eventually(lambda: warnings(api, namespace, "mute"), what="an event, where no status can be written")
        assert operator.probe("healthz") == 200
    for name in ("late", "mute"):
        ready(api, namespace, "LLMEngine", name)
    ready(api, namespace, "LLMService", "chat")
    assert kubelet.ended["build"] == 3
    assert "Traceback" not in operator.log()


def _quota(api: Api, namespace: str, hard: dict[str, str], used: dict[str, str]) -> None:
    """A ResourceQuota, with the figures that the quota controller (which does not run here) would put into its status."""
    path = f"/api/v1/namespaces/{namespace}/resourcequotas/tight"
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tight", "namespace": namespace}, "spec": {"hard": hard}}
    api.request("PATCH", path, body, content_type=APPLY, fieldManager="test", force="true")
    api.request(
        "PATCH", f"{path}/status", {**body, "status": {"hard": hard, "used": used}}, content_type=APPLY, fieldManager="quota", force="true"
    )


def test_a_quota_is_named_and_then_raised(api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn) -> None:
    """Fault 44. Of objects: the API server's words are in the condition; once there is room, it goes on."""
    _quota(api, namespace, {"count/jobs.batch": "0"}, {"count/jobs.batch": "0"})
    start_operator()
    api.create(engine("tiny", namespace))
    shown = eventually(lambda: with_condition(api.find("LLMEngine", "tiny", namespace), "Stalled"), what="shown")
    assert "exceeded quota: tight" in condition(shown, "Ready")["message"]
    _quota(api, namespace, {"count/jobs.batch": "100"}, {"count/jobs.batch": "0"})
    ready(api, namespace, "LLMEngine", "tiny")
    assert kubelet.ended["build"] == 1


def test_a_policy_says_no(api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn) -> None:
    """Fault 44. A ValidatingAdmissionPolicy that denies Deployments: its message is in the condition, the engine is built, then it goes on."""
    policy = {
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": f"deny-{namespace}"},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}]
            },
            "validations": [{"expression": "false", "message": "no deployments on Fridays"}],
        },
    }
    binding = {
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": f"deny-{namespace}"},
        "spec": {
            "policyName": f"deny-{namespace}",
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
        },
    }
    operator = start_operator()
    with _installed(api, policy, binding):
        api.create(engine("tiny", namespace))
        api.create(service("chat", namespace))
        shown = eventually(
            lambda: with_condition(api.find("LLMService", "chat", namespace), "Ready", "ApplyRefused"), what="shown", seconds=90
        )
        assert "no deployments on Fridays" in condition(shown, "Ready")["message"]
    ready(api, namespace, "LLMService", "chat")
    assert operator.log().count("no deployments on Fridays") == 1
    assert kubelet.ended["build"] == 1


def _rewriting(control_plane: ControlPlane, namespace: str, port: int) -> Document:
    return {
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": f"rewrite-{namespace}"},
        "webhooks": [
            {
                "name": "rewrite.example.com",
                "clientConfig": {
                    "url": f"https://127.0.0.1:{port}/",
                    "caBundle": base64.b64encode(control_plane.ca.read_bytes()).decode(),
                },
                "rules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]}],
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            }
        ],
    }


class _Rewriter(http.server.BaseHTTPRequestHandler):
    """A mutating webhook that has an opinion on fields of ours."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
        patch = [{"op": "add", "path": f"/spec/{field}", "value": value} for field, value in REWRITTEN.items()]
        answer = {
            "uid": asked["uid"],
            "allowed": True,
            "patchType": "JSONPatch",
            "patch": base64.b64encode(json.dumps(patch).encode()).decode(),
        }
        body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


REWRITTEN = {"progressDeadlineSeconds": 1234, "minReadySeconds": 1}


@contextmanager
def _rewriter(control_plane: ControlPlane) -> Iterator[int]:
    """Serves the webhook on loopback; gives its port."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(control_plane._pki.certificate("apiserver"), control_plane._pki.key("apiserver"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Rewriter) as server:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join(10)


def test_what_admission_rewrites_is_no_endless_difference(
    control_plane: ControlPlane, api: Api, namespace: str, start_operator: Start, kubelet: KubeletStandIn, audit: Audit
) -> None:
    """Fault 44. A namespace that enforces `restricted`, LimitRange defaults, a webhook that rewrites our Deployments: ready, and then quiet."""
    api.request(
        "PATCH",
        f"/api/v1/namespaces/{namespace}",
        {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
        content_type=MERGE,
    )
    limits = {"type": "Container", "default": {"cpu": "64", "memory": "512Gi"}, "defaultRequest": {"cpu": "1", "memory": "1Gi"}}
    api.request(
        "POST",
        f"/api/v1/namespaces/{namespace}/limitranges",
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "defaults"}, "spec": {"limits": [limits]}},
    )
    operator = start_operator()
    with _rewriter(control_plane) as port, _installed(api, _rewriting(control_plane, namespace, port)):
        api.create(engine("tiny", namespace))
        api.create(service("chat", namespace))
        ready(api, namespace, "LLMService", "chat")
        deployment = api.get("Deployment", "chat", namespace)
        assert REWRITTEN.items() <= deployment["spec"].items()
        eventually(operator.idle, what="idle")
        mark = audit.mark()
        api.patch("LLMService", "chat", {"metadata": {"labels": {"touched": "yes"}}}, namespace)
        nothing_for(4, lambda: audit.by_operator(mark), what="no write any more")
        operator.stop()
        operator.start()
        eventually(operator.idle, what="idle")
        nothing_for(2, lambda: len(_children(audit, mark)) > 1, what="a restart asks once at most")
        assert api.get("Deployment", "chat", namespace)["metadata"]["generation"] == deployment["metadata"]["generation"]
    assert kubelet.ended["build"] == 1
    assert len(jobs(api, namespace, "build")) == 1


def _children(audit: Audit, mark: int) -> list[Write]:
    return [write for write in audit.by_operator(mark) if write.resource not in ("leases", "events")]
