"""What others do to our children is put right; what is not ours is left alone."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.api import Api
from tests.support.audit import Audit
from tests.support.operator_process import OperatorProcess
from tests.support.samples import condition, engine, is_ready, service, with_condition
from tests.support.waiting import eventually

Start = Callable[..., OperatorProcess]


def _settled(api: Api, namespace: str, start_stub: Start, **environment: str) -> OperatorProcess:
    api.create(service("one", namespace))
    operator = start_stub(**environment)
    eventually(lambda: is_ready(api.find("LLMService", "one", namespace)), what="ready")
    return operator


def test_drift_of_a_child_is_healed(api: Api, namespace: str, start_stub: Start) -> None:
    """Fault 32."""
    _settled(api, namespace, start_stub)
    api.patch("ConfigMap", "one-options", {"data": {"engine": "changed by somebody"}}, namespace)
    eventually(lambda: api.get("ConfigMap", "one-options", namespace)["data"]["engine"] == "tiny", what="drift healed")


def test_what_others_add_stays(api: Api, namespace: str, start_stub: Start, audit: Audit) -> None:
    """Fault 32."""
    operator = _settled(api, namespace, start_stub)
    eventually(operator.idle, what="idle")
    mark = audit.mark()
    api.patch("Deployment", "one", {"spec": {"template": {"metadata": {"annotations": {"restartedAt": "now"}}}}}, namespace)
    passes = "trtllm_operator_reconcile_seconds_count{kind=LLMService}"
    count = operator.metrics()[passes]
    api.patch("LLMService", "one", {"metadata": {"labels": {"touched": "yes"}}}, namespace)
    eventually(lambda: operator.metrics()[passes] > count and operator.idle(), what="looked again")
    assert api.get("Deployment", "one", namespace)["spec"]["template"]["metadata"]["annotations"] == {"restartedAt": "now"}
    assert audit.by_operator(mark) == []


def test_a_deleted_child_comes_back(api: Api, namespace: str, start_stub: Start) -> None:
    """Fault 32."""
    _settled(api, namespace, start_stub)
    uid = api.get("ConfigMap", "one-options", namespace)["metadata"]["uid"]
    api.delete("ConfigMap", "one-options", namespace)
    eventually(lambda: api.find("ConfigMap", "one-options", namespace), what="made again")
    assert api.get("ConfigMap", "one-options", namespace)["metadata"]["uid"] != uid


def test_a_child_that_lost_its_label_gets_it_back(api: Api, namespace: str, start_stub: Start) -> None:
    """Fault 32."""
    _settled(api, namespace, start_stub)
    api.patch("ConfigMap", "one-options", {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}, namespace)
    eventually(
        lambda: api.get("ConfigMap", "one-options", namespace)["metadata"]["labels"].get("app.kubernetes.io/managed-by"),
        what="label is back",
    )


def test_an_object_of_somebody_else_is_left_alone_and_shown(api: Api, namespace: str, start_stub: Start) -> None:
    """Fault 33."""
    foreign = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "one-options", "namespace": namespace},
        "data": {"mine": "yes"},
    }
    made = api.create(foreign)
    api.create(service("one", namespace))
    start_stub()
    eventually(
        lambda: condition(api.find("LLMService", "one", namespace), "Stalled").get("reason") == "NameConflict", what="conflict shown"
    )
    now = api.get("ConfigMap", "one-options", namespace)
    assert now["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]

    # Nobody tells when it goes, so it is looked at again; a change of the resource makes that now.
    api.delete("ConfigMap", "one-options", namespace)
    api.patch("LLMService", "one", {"metadata": {"labels": {"touched": "yes"}}}, namespace)
    eventually(lambda: is_ready(api.find("LLMService", "one", namespace)), what="ready without the conflict")


def test_a_name_conflict_of_a_job_is_shown_on_the_engine(api: Api, namespace: str, start_stub: Start) -> None:
    """Fault 33."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
    spec = {"suspend": True, "template": {"spec": pod}}
    api.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "tiny-1", "namespace": namespace}, "spec": spec})
    api.create(engine("tiny", namespace))
    start_stub()
    shown = eventually(lambda: with_condition(api.find("LLMEngine", "tiny", namespace), "Ready", "NameConflict"), what="conflict shown")
    assert "Job tiny-1" in condition(shown, "Ready")["message"]


def test_what_is_made_once_is_not_applied_again_and_old_ones_go(api: Api, namespace: str, start_stub: Start, audit: Audit) -> None:
    api.create(engine("tiny", namespace))
    operator = start_stub()
    eventually(lambda: api.find("Job", "tiny-1", namespace), what="first Job")
    api.patch("LLMEngine", "tiny", {"spec": {"suspend": True}}, namespace)
    eventually(
        lambda: api.find("Job", "tiny-2", namespace) and not api.find("Job", "tiny-1", namespace), what="second Job instead of the first"
    )
    eventually(operator.idle, what="idle")
    mark = audit.mark()
    api.patch("Job", "tiny-2", {"metadata": {"annotations": {"somebody": "else"}}}, namespace)
    api.patch("LLMEngine", "tiny", {"metadata": {"labels": {"touched": "yes"}}}, namespace)
    operator.stop()
    operator.start()
    eventually(operator.idle, what="idle after the restart")
    assert audit.by_operator(mark) == []


def test_a_recreated_root_gets_children_of_its_own(api: Api, namespace: str, start_stub: Start) -> None:
    """Fault 38."""
    _settled(api, namespace, start_stub)
    old = api.get("Deployment", "one", namespace)["metadata"]["uid"]
    api.delete("LLMService", "one", namespace)
    made = api.create(service("one", namespace))
    eventually(lambda: is_ready(api.find("LLMService", "one", namespace)), what="ready again")
    child = api.get("Deployment", "one", namespace)["metadata"]
    assert child["uid"] != old
    assert child["ownerReferences"][0]["uid"] == made["metadata"]["uid"]


def test_a_deleted_root_leaves_nothing(api: Api, namespace: str, start_stub: Start) -> None:
    operator = _settled(api, namespace, start_stub)
    api.delete("LLMService", "one", namespace)
    eventually(
        lambda: not api.find("Deployment", "one", namespace) and not api.find("ConfigMap", "one-options", namespace), what="children gone"
    )
    eventually(lambda: operator.metrics()["trtllm_operator_stored_objects"] == 0, what="store empty")
    assert operator.idle()
