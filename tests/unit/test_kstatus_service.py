"""kstatus' verdict, Flux' rules and Argo CD's health on every state that an LLMService reaches in the pure world."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.kstatus import Verdict
from tests.unit import test_service_world as world_of_services
from tests.unit.test_kstatus_states import check_settled, check_state, check_write
from tests.unit.test_service_decide import REFUSED
from tests.unit.test_service_pods import PODS, SCHEDULING
from tests.unit.test_service_rules import SPECS, _valid
from tests.unit.test_service_world import build_object, engine_object, service_object, unschedulable
from trtllm_operator.api.crdgen.definition import UNSEEN

Json = dict[str, Any]
_VERDICT: dict[str, Verdict] = {"True": "Current", "False": "Failed", "Unknown": "InProgress"}
"""Of the status of Ready that the tests of the decisions expect: a service is not ready only where a person must act."""


class World(world_of_services.World):
    """Looks at every status that is written."""

    def __init__(self, service: Json | None = None, *, engine: bool = True, **more: Any) -> None:
        super().__init__(service, engine=engine, **more)
        self.service.setdefault("status", dict(UNSEEN))

    def step(self) -> bool:
        before = copy.deepcopy(self.service["status"])
        wrote = super().step()
        if self.service["status"] != before:
            check_write(self.service)
        return wrote

    def verdict(self) -> Verdict:
        """Once nothing more is written."""
        self.settle()
        return check_settled(self.service)


def test_before_the_first_visit_nobody_takes_it_for_settled() -> None:
    world = World()
    assert check_state(world.service) == "InProgress"
    world.step()
    assert check_state(world.service) == "InProgress"


def test_from_apply_to_ready_and_through_a_change() -> None:
    world = World(engine=False)
    assert world.verdict() == "InProgress", "the LLMEngine may still come: the order of two applies is no error"
    world.verified(build_object())
    assert world.verdict() == "InProgress"
    world.controller(available=0)
    assert world.verdict() == "InProgress"
    world.controller()
    assert world.verdict() == "Current"
    world.change(serve={"maxBatchSize": 4})
    assert check_state(world.service) == "InProgress", "not yet seen"
    assert world.verdict() == "InProgress"
    world.controller()
    assert world.verdict() == "Current"
    world.controller(available=0)
    assert world.verdict() == "InProgress", "a pod was lost"


def test_scaled_to_zero_is_settled() -> None:
    world = World()
    world.roll_out()
    world.change(replicas=0)
    assert world.verdict() == "InProgress"
    world.controller()
    assert world.verdict() == "Current"
    world.change(replicas=2)
    assert world.verdict() == "InProgress"


def _engine_says(status: str, reason: str, *, stalled: bool = False) -> Json:
    engine = engine_object(ready=(status, reason))
    ready = engine["status"]["conditions"][0]
    if stalled:
        engine["status"]["conditions"].append({**ready, "type": "Stalled", "status": "True"})
    return engine


ENGINES: list[tuple[Json | None, Verdict]] = [
    (None, "InProgress"),
    (_engine_says("Unknown", "Building"), "InProgress"),
    (_engine_says("False", "Suspended"), "InProgress"),
    (_engine_says("False", "ModelAccessDenied", stalled=True), "Failed"),
]


@pytest.mark.parametrize(("engine", "wanted"), ENGINES, ids=range(len(ENGINES)))
def test_engine_without_an_artifact(engine: Json | None, wanted: Verdict) -> None:
    world = World(engine=False)
    world.engine = engine
    assert world.verdict() == wanted
    world.verified(build_object())
    assert world.verdict() == "InProgress"
    world.controller()
    assert world.verdict() == "Current"


@pytest.mark.parametrize(("nodes", "message", "shown"), SCHEDULING)
def test_pods_that_fit_nowhere(nodes: Any, message: str, shown: tuple[str, str]) -> None:
    world = World(engine=False, nodes=nodes)
    world.verified(build_object(tensor=2))
    world.settle()
    world.controller(available=0)
    world.pod("chat-1", node=None, phase="Pending", **unschedulable(message))
    assert world.verdict() == _VERDICT[shown[0]]


@pytest.mark.parametrize(("phase", "containers", "shown", "words"), PODS, ids=range(len(PODS)))
def test_pods_that_do_not_run(phase: str, containers: list[Json], shown: tuple[str, str], words: str) -> None:
    del words
    world = World()
    world.settle()
    world.controller(available=0)
    world.pod("chat-1", phase=phase, containerStatuses=containers)
    assert world.verdict() == _VERDICT[shown[0]]
    world.pods = []
    world.controller()
    assert world.verdict() == "Current", "the trouble has passed"


@pytest.mark.parametrize(("change", "reason"), [(change, reason) for change, reason, _ in REFUSED], ids=range(len(REFUSED)))
def test_refused_specs(change: Json, reason: str) -> None:
    world = World(engine=False)
    world.verified(build_object(version="1.1.0"))
    world.roll_out()
    assert world.verdict() == "Current"
    before = dict(world.service["spec"])
    world.change(**change)
    assert check_state(world.service) == "InProgress", "not yet seen"
    assert world.verdict() == "Failed"
    assert world.condition("Stalled")[1] == reason
    world.service["spec"] = before
    world.service["metadata"]["generation"] += 1
    assert world.verdict() == "Current"


_TROUBLES: dict[str, Any] = {
    "Progressing": {"status": "False", "reason": "ProgressDeadlineExceeded", "message": "late"},
    "ReplicaFailure": {"status": "True", "reason": "FailedCreate", "message": "exceeded quota"},
}


def _controller(world: World, kind: str) -> None:
    trouble: dict[str, Any] = {kind: _TROUBLES[kind]}
    world.controller(available=0, **trouble)


@pytest.mark.parametrize("kind", _TROUBLES)
def test_deployments_that_do_not_get_on(kind: str) -> None:
    world = World()
    world.settle()
    _controller(world, kind)
    assert world.verdict() == "Failed"
    world.controller()
    assert world.verdict() == "Current"


def test_names_that_are_taken() -> None:
    world = World()
    world.foreign = ({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "chat", "namespace": "default", "uid": "other"}},)
    assert world.verdict() == "Failed"
    world.foreign = ()
    world.roll_out()
    assert world.verdict() == "Current"


def test_deletion() -> None:
    world = World()
    world.roll_out()
    world.service["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"
    assert check_state(world.service) == "Terminating"
    assert not world.step(), "what is being deleted gets no more writes"


_DEPLOYMENT: st.SearchStrategy[Any] = st.fixed_dictionaries({name: st.integers(0, 2) for name in ("updated", "available", "total")})


@settings(max_examples=60, deadline=None)
@given(data=st.data(), spec=SPECS.filter(_valid))
def test_no_path_breaks_a_rule(data: st.DataObject, spec: Json) -> None:
    """`World.step` looks at each status that is written on the way."""
    world = World(service_object(**spec), engine=data.draw(st.booleans()))
    for event in data.draw(
        st.lists(st.sampled_from(["spec", "engine", "artifact", "controller", "trouble", "pod", "lost", "status"]), max_size=8)
    ):
        match event:
            case "spec":
                world.service["spec"] = data.draw(SPECS.filter(_valid))
                world.service["metadata"]["generation"] += 1
            case "engine":
                world.engine = data.draw(st.sampled_from([engine for engine, _ in ENGINES]))
            case "artifact":
                world.verified(build_object(data.draw(st.sampled_from(["llama-aaaaaaaaaa", "llama-bbbbbbbbbb"]))))
            case "controller" if world.get("Deployment"):
                world.controller(**data.draw(_DEPLOYMENT))
            case "trouble" if world.get("Deployment"):
                kind = data.draw(st.sampled_from(sorted(_TROUBLES)))
                _controller(world, kind)
            case "pod" if world.get("Deployment"):
                phase, containers, _, _ = data.draw(st.sampled_from(PODS))
                world.pod("chat-x", phase=phase, containerStatuses=containers)
            case "lost":
                world.objects.pop(("Deployment", "chat"), None)
            case "status":
                world.service["status"] = dict(UNSEEN)
            case _:
                pass
        if data.draw(st.booleans()):
            world.step()
    world.verdict()
