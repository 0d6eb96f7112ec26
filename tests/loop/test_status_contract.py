"""What tools make of our resources, on a real API server, in every state that an engine and its service go through.

The objects of the tour are the test data of Argo CD's health checks. After a wanted change:
`GOLDEN=write pytest tests/loop/test_status_contract.py`, then read the difference.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import yaml

from tests.cluster.controlplane import ControlPlane
from tests.support import argocd, kstatus_writes
from tests.support.api import Api, ApiRefusedError, Document
from tests.support.contract_tour import Recorded, Tour
from tests.support.faultproxy_loop import LoopThread
from tests.support.golden_objects import masked
from tests.support.journal_witness import Seen, Witness
from tests.support.kstatus import Verdict, verdict
from tests.support.kstatus_writes import conditions, wrong_change
from tests.support.kubectl import Kubectl, program
from tests.support.kubelet_standin_servers import ServersStandIn
from tests.support.operator_process import OperatorProcess
from tests.support.samples import engine
from tests.support.waiting import eventually

NAMESPACE = "status-contract"
Kind = Literal["LLMEngine", "LLMEngineBuild", "LLMService"]

# Scene -> kind. The first word is the health that Argo CD must show.
SCENES: dict[Kind, tuple[str, ...]] = {
    "LLMEngine": (
        "progressing_new", "progressing_resolving", "progressing_building", "progressing_retrying", "progressing_new_spec_unseen",
        "progressing_deleting", "healthy", "suspended", "degraded_gated", "degraded_build", "degraded_refused",
    ),
    "LLMEngineBuild": ("progressing_fetching", "progressing_deleting", "healthy", "suspended", "degraded"),
    "LLMService": (
        "progressing_new", "progressing_no_engine", "progressing_starting", "progressing_rollout", "progressing_new_spec_unseen",
        "progressing_deleting", "healthy", "healthy_scaled_to_zero", "degraded_image", "degraded_refused_but_serving",
    ),
}  # fmt: skip
ALL = [(kind, scene) for kind in get_args(Kind) for scene in SCENES[kind]]
_VERDICT: dict[str, Verdict] = {"progressing": "InProgress", "healthy": "Current", "suspended": "InProgress", "degraded": "Failed"}
# What a check says where no condition decides.
_SAYS = {
    "progressing_new": "Waiting for the operator to see the newest spec",
    "progressing_new_spec_unseen": "Waiting for the operator to see the newest spec",
    "progressing_deleting": "It is being deleted",
}


@dataclass(frozen=True)
class Toured:
    """What the tour has left."""

    recorded: dict[tuple[str, str], Recorded]
    history: list[Seen]
    events: list[Document]
    log: str


@pytest.fixture(scope="module")
def tour(api: Api, control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toured]:
    namespace = api.with_account(api.namespace(NAMESPACE))
    eventually(lambda: _served(api), what="the CRDs' paths served")
    operator = OperatorProcess(control_plane.kubeconfig, tmp_path_factory.mktemp("contract"), WATCH_NAMESPACE=namespace, READ_NODES="true")
    try:
        with (
            LoopThread() as loop,
            Witness(loop, control_plane.url, control_plane.token, control_plane.ca, namespace) as witness,
            ServersStandIn(api, namespace) as kubelet,
        ):
            made = Tour(api, namespace, operator, kubelet)
            made.run()
            events = api.request("GET", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
            yield Toured(made.recorded, witness.seen(), events, operator.log())
    finally:
        operator.stop()


def _served(api: Api) -> bool:
    """Established comes a moment before the paths are there for good."""
    try:
        return all(api.list(kind, NAMESPACE) == [] for kind in SCENES)
    except ApiRefusedError as error:
        if error.status not in (404, 429):
            raise
        return False


def _health(scene: str) -> str:
    return scene.split("_", maxsplit=1)[0]


def _said(scene: str, obj: Document) -> argocd.Health:
    """What Argo CD must show, found without the script."""
    health = _health(scene)
    if scene in _SAYS:
        return argocd.Health("Progressing", _SAYS[scene])
    one = conditions(obj)["Stalled" if health == "degraded" else "Ready"]
    return argocd.Health(health.capitalize(), one["message"] if health == "healthy" else f"{one['reason']}: {one['message']}")


def _is_golden(file: Path, found: Any) -> bool:
    text = yaml.safe_dump(found, sort_keys=False, width=120)
    if os.environ.get("GOLDEN") == "write":
        file.write_text(text)
    return file.exists() and text == file.read_text()


def test_every_state_is_reached(tour: Toured) -> None:
    assert sorted(tour.recorded) == sorted(ALL)
    assert "Traceback" not in tour.log


def test_kstatus_says_what_is_meant(tour: Toured) -> None:
    def wanted(scene: str) -> Verdict:
        return "Terminating" if scene == "progressing_deleting" else _VERDICT[_health(scene)]

    assert {(kind, scene): verdict(tour.recorded[kind, scene].obj) for kind, scene in ALL} == {
        (k, scene): wanted(scene) for k, scene in ALL
    }
    for kind in SCENES:
        assert "foregroundDeletion" in tour.recorded[kind, "progressing_deleting"].obj["metadata"]["finalizers"]


@pytest.mark.parametrize("kind", SCENES)
def test_test_data_of_the_health_checks_are_real_objects(tour: Toured, kind: Kind) -> None:
    directory = argocd.CUSTOMIZATIONS / "trtllm.dev" / kind
    made = {scene: masked(tour.recorded[kind, scene].obj, NAMESPACE) for scene in SCENES[kind]}
    said = {scene: _said(scene, obj) for scene, obj in made.items()}
    tests = [
        {"healthStatus": {"status": one.status, "message": one.message}, "inputPath": f"testdata/{scene}.yaml"}
        for scene, one in said.items()
    ]
    stale = [scene for scene, obj in made.items() if not _is_golden(directory / "testdata" / f"{scene}.yaml", obj)]
    stale += [] if _is_golden(directory / "health_test.yaml", {"tests": tests}) else ["health_test.yaml"]
    assert stale == [], "not what the API server gives: run this test with GOLDEN=write, and read the difference"
    assert {path.stem for path in (directory / "testdata").iterdir()} == set(SCENES[kind])


@pytest.mark.parametrize("libraries", [True, False], ids=["bundled", "argocd-cm"])
def test_argo_cd_shows_the_health_of_the_state(tour: Toured, libraries: bool) -> None:
    for kind, scene in ALL:
        obj = tour.recorded[kind, scene].obj
        assert argocd.run(argocd.script(kind), obj, libraries=libraries) == _said(scene, obj), (kind, scene)


def test_what_the_user_applied_is_in_sync(tour: Toured) -> None:
    """Argo CD compares by a server-side apply in a dry run."""
    assert {key: seen.drift for key, seen in tour.recorded.items() if seen.drift} == {}


_RUNNING = ("progressing_resolving", "progressing_fetching", "progressing_building")
_ALWAYS: dict[Kind, set[str]] = {"LLMEngine": {"Model", "Version"}, "LLMEngineBuild": {"Recipe"}, "LLMService": set()}
_ONCE_SEEN: dict[Kind, set[str]] = {"LLMEngine": set(), "LLMEngineBuild": set(), "LLMService": {"Serving", "Replicas", "Model", "URL"}}


def test_columns_have_something_to_show(tour: Toured) -> None:
    for kind, scene in ALL:
        columns = tour.recorded[kind, scene].columns
        shown = {name for name, cell in columns.items() if cell not in (None, "", "<none>", "<unknown>")}
        wanted = {"Name", "Age"} | _ALWAYS[kind]
        if scene == "progressing_new":
            assert shown == wanted, (kind, scene)
            continue
        wanted |= {"Ready", "Reason", "Message"} | _ONCE_SEEN[kind] | ({"Stage", "Progress %"} if scene in _RUNNING else set())
        assert shown >= wanted, (kind, scene)
        ready = conditions(tour.recorded[kind, scene].obj)["Ready"]
        assert (columns["Ready"], columns["Reason"], columns["Message"]) == (ready["status"], ready["reason"], ready["message"])


def _versions(tour: Toured) -> dict[tuple[str, str, str], list[Document]]:
    """Every version of each of our objects, in order."""
    found: dict[tuple[str, str, str], list[Document]] = {}
    for seen in tour.history:
        if seen.kind in SCENES and seen.type != "DELETED":
            found.setdefault((seen.kind, str(seen.obj["metadata"]["name"]), seen.uid), []).append(seen.obj)
    return found


def test_every_status_that_was_written_keeps_the_rules(tour: Toured) -> None:
    problems, verdicts = [], Counter[Verdict]()
    for key, versions in _versions(tour).items():
        for before, after in zip([None, *versions], versions, strict=False):
            if not conditions(after):
                continue
            verdicts[verdict(after)] += 1
            problems += [f"{key}: {text}" for text in kstatus_writes.wrong(after)]
            problems += [f"{key}: {text}" for text in wrong_change(before or {"metadata": {}}, after)]
    assert problems == []
    assert set(verdicts) == set(get_args(Verdict))


def _changes(versions: list[Document]) -> list[tuple[str, str, str]]:
    """Changes of Ready that are news: type of condition, its reason, and its message."""
    found: list[tuple[str, str, str]] = []
    before: Document = {}
    for obj in versions:
        ready = conditions(obj).get("Ready")
        if ready is None or obj["metadata"].get("deletionTimestamp"):
            continue
        first = not before and ready["status"] == "Unknown"
        if not first and (ready["status"], ready["reason"]) != (before.get("status"), before.get("reason")):
            found.append(("Warning" if "Stalled" in conditions(obj) else "Normal", ready["reason"], ready["message"]))
        before = dict(ready)
    return found


def _mark(kind: str, reason: str, note: str) -> tuple[str, str, str]:
    """What makes an Event another one: numbers don't."""
    return kind, reason, re.sub(r"\d+", "#", note.removeprefix("Ready: "))


def test_one_event_for_each_transition_of_ready_and_none_for_a_repetition(tour: Toured) -> None:
    for (kind, name, uid), versions in _versions(tour).items():
        told = [event for event in tour.events if event["regarding"]["uid"] == uid]
        ready = [event for event in told if event["note"].startswith("Ready: ")]
        marks = [_mark(event["type"], event["reason"], event["note"]) for event in ready]
        assert set(marks) == {_mark(*change) for change in _changes(versions)}, f"{kind} {name}"
        lives = [(event["reportingInstance"], mark) for event, mark in zip(ready, marks, strict=True)]
        assert len(set(lives)) == len(lives), f"{kind} {name}: told again within ten minutes"
        others = [event for event in told if event not in ready]
        doubled = [event["note"] for event in others if any(event["note"].split(": ", 1)[1] == r["note"].split(": ", 1)[1] for r in ready)]
        assert doubled == [], f"{kind} {name}: a transition that Ready tells already"


def test_kubectl_wait_waits_for_the_newest_spec(
    control_plane: ControlPlane, api: Api, namespace: str, start_operator: Callable[..., OperatorProcess]
) -> None:
    start_operator()
    kubectl = Kubectl(program(built=True), control_plane.kubeconfig, namespace)
    with ServersStandIn(api, namespace):
        api.create(engine("tiny", namespace))
        kubectl("wait", "--for=condition=Ready", "llmengine/tiny", "--timeout=90s")
        api.patch("LLMEngine", "tiny", {"spec": {"runtime": {"version": "0.1.0"}}}, namespace)
        kubectl("wait", "--for=condition=Stalled", "llmengine/tiny", "--timeout=60s")
        assert "UnsupportedVersion" in kubectl("get", "trtllm", "--output=wide")
        api.patch("LLMEngine", "tiny", {"spec": {"runtime": {"version": "1.2.1"}}}, namespace)
        kubectl("wait", "--for=condition=Ready", "llmengine/tiny", "--timeout=60s")
    assert "tiny" in kubectl("get", "llme")
