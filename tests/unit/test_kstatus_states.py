"""kstatus' verdict, Flux' rules and Argo CD's health on every state that LLMEngine and LLMEngineBuild reach in the pure world."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import timedelta
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import argocd, flow
from tests.support.flow import engine_object
from tests.support.kstatus import Verdict, broken, verdict
from tests.support.kstatus_writes import wrong
from tests.unit.test_injection_schema import SCHEMAS, faults
from trtllm_operator.api.crdgen.definition import UNSEEN
from trtllm_operator.api.reasons import needs_person, retry_of
from trtllm_operator.builder.report import Reason
from trtllm_operator.decide.input import Hints

Json = dict[str, Any]

STAGES = ("resolve", "fetch", "build", "publish", "verify")
_SAME = {"Current": "Healthy", "Failed": "Degraded", "Terminating": "Progressing", "InProgress": "Progressing"}


def check_state(obj: Json) -> Verdict:
    """What holds of any state, whatever it is: the schema takes it, the tools agree about it. Returns kstatus' verdict."""
    found = verdict(obj)
    said = argocd.run(argocd.script(obj["kind"]), obj, libraries=False)
    ready: Json = next((c for c in (obj.get("status") or {}).get("conditions", ()) if c["type"] == "Ready"), {})
    by_wish = ready.get("reason") == "Suspended" and found == "InProgress" and said.message.startswith("Suspended")
    assert said.status == ("Suspended" if by_wish and obj["kind"] != "LLMService" else _SAME[found])
    return found


def check_write(obj: Json) -> None:
    """What holds of any status that is written."""
    assert list(faults(SCHEMAS[obj["kind"]]["properties"]["status"], obj["status"])) == []
    assert wrong(obj) == []
    conditions = obj["status"]["conditions"]
    assert obj["status"]["observedGeneration"] == obj["metadata"]["generation"]
    assert all(c["observedGeneration"] == obj["metadata"]["generation"] for c in conditions)
    assert len({c["type"] for c in conditions}) == len(conditions)
    check_state(obj)


def check_settled(obj: Json) -> Verdict:
    """What holds when nothing more is written. A resource that is neither done nor stuck waits for something outside, or goes."""
    found = check_state(obj)
    if found in ("Current", "Failed"):
        assert list(broken(obj, final=True)) == []
    return found


class World(flow.World):
    """Looks at every status that is written."""

    def step(self) -> bool:
        roots = [*self.of("LLMEngine"), *self.of("LLMEngineBuild")]
        before = {obj["metadata"]["uid"]: copy.deepcopy(obj.get("status")) for obj in roots}
        wrote = super().step()
        for obj in [*self.of("LLMEngine"), *self.of("LLMEngineBuild")]:
            if "status" in obj and obj["status"] != before.get(obj["metadata"]["uid"]):
                check_write(obj)
        return wrote

    def verdicts(self) -> tuple[Verdict, Verdict | None]:
        """Of the engine and of its build, once nothing more is written."""
        self.settle()
        engine = self.objects["LLMEngine", "llama"]
        build = self.objects.get(("LLMEngineBuild", engine["status"].get("build", "")))
        return check_settled(engine), check_settled(build) if build is not None else None

    def go_on(self) -> None:
        """Finish whatever runs, until nothing does."""
        for _ in range(8):
            self.now += timedelta(hours=1)
            self.settle()
            running = [job for job in self.of("Job") if "status" not in job]
            if not running:
                return
            for job in running:
                self.finish(job["metadata"]["labels"]["trtllm.dev/stage"])


def at(stage: str, **spec: Any) -> World:
    """A world in which this stage runs."""
    world = World(engine_object(**spec))
    world.settle()
    for done in STAGES[: STAGES.index(stage)]:
        world.finish(done)
        world.settle()
    return world


def test_before_the_first_visit_nobody_takes_it_for_settled() -> None:
    assert check_state({**engine_object(), "status": UNSEEN}) == "InProgress"
    world = World(engine_object())
    world.step()
    assert check_state(world.objects["LLMEngine", "llama"]) == "InProgress"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_runs(stage: str) -> None:
    own = stage in ("fetch", "build", "publish")
    world = at(stage)
    assert world.verdicts() == ("InProgress", "InProgress" if own else None if stage == "resolve" else "Current")
    world.pod(world.job(stage), phase="Running")
    assert world.verdicts()[0] == "InProgress"
    world.go_on()
    assert world.verdicts() == ("Current", "Current")


def test_a_new_spec_is_in_progress_before_and_after_it_is_seen() -> None:
    world = at("verify")
    world.go_on()
    engine = world.objects["LLMEngine", "llama"]
    engine["spec"]["build"] = {"maxBatchSize": 8}
    engine["metadata"]["generation"] = 2
    assert check_state(engine) == "InProgress"
    world.step()
    assert check_state(engine) == "InProgress"
    world.go_on()
    assert world.verdicts() == ("Current", "Current")


@pytest.mark.parametrize("reason", get_args(Reason))
@pytest.mark.parametrize("stage", STAGES)
def test_each_failure_of_each_stage(stage: str, reason: str) -> None:
    world = at(stage)
    world.fail(stage, reason)
    wanted: Verdict = "Failed" if retry_of(reason) == "never" or needs_person(reason) else "InProgress"
    found = world.verdicts()
    assert found[0] == wanted
    if stage in ("fetch", "build", "publish"):
        assert found[1] == wanted
    if retry_of(reason) == "counted":
        for _ in range(2):
            world.now += timedelta(hours=1)
            world.settle()
            world.fail(stage, reason)
        assert world.verdicts()[0] == "Failed", "no attempt is left"
    if stage != "build" and reason != "InternalError":
        return  # the way back is the same for all
    engine = world.objects["LLMEngine", "llama"]
    engine["spec"]["jobs"] = {name: {"resources": {"limits": {"memory": "99Gi"}}} for name in ("fetch", "build", "verify")}
    engine["metadata"]["generation"] += 1
    world.go_on()
    assert world.verdicts()[0] == "Current", "a person has acted"


def _scheduling(message: str) -> Json:
    return {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}


def _container(reason: str, message: str) -> Json:
    return {
        "phase": "Pending",
        "containerStatuses": [{"name": "stage", "image": "i", "state": {"waiting": {"reason": reason, "message": message}}}],
    }


PODS: dict[str, tuple[Json, Verdict]] = {
    "no cpu": (_scheduling("0/1 nodes are available: 1 Insufficient cpu."), "InProgress"),
    "gpus in use": (_scheduling("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."), "InProgress"),
    "no such claim": (_scheduling('persistentvolumeclaim "models" not found'), "InProgress"),
    "unbound claim": (_scheduling("pod has unbound immediate PersistentVolumeClaims"), "InProgress"),
    "no such image": (_container("ImagePullBackOff", "not found"), "Failed"),
    "bad image name": (_container("InvalidImageName", ""), "Failed"),
    "no such secret": (_container("CreateContainerConfigError", 'secret "hub" not found'), "InProgress"),
    "no such config map": (_container("CreateContainerConfigError", 'configmap "x" not found'), "InProgress"),
    "no such device": (_container("CreateContainerError", "no runtime"), "Failed"),
    "creating": (_container("ContainerCreating", ""), "InProgress"),
}  # fmt: skip


@pytest.mark.parametrize("trouble", PODS)
@pytest.mark.parametrize("stage", STAGES)
def test_each_trouble_of_a_pod(stage: str, trouble: str) -> None:
    status, wanted = PODS[trouble]
    world = at(stage)
    world.pod(world.job(stage), **status)
    assert world.verdicts()[0] == wanted
    world.pods.clear()
    if stage in ("resolve", "build"):
        world.go_on()
        assert world.verdicts() == ("Current", "Current"), "the trouble has passed"


def _no_pod(world: World, job: Json) -> None:
    world.hints = Hints(warnings={job["metadata"]["uid"]: "exceeded quota: gpus"})


def _end(reason: str) -> Callable[[World, Json], None]:
    def end(world: World, job: Json) -> None:
        del world
        job["status"] = {
            "conditions": [{"type": "Failed", "status": "True", "reason": reason, "lastTransitionTime": "2026-01-01T12:30:00Z"}]
        }

    return end


def _lost_report(world: World, job: Json) -> None:
    del world
    job["status"] = {"conditions": [{"type": "Complete", "status": "True"}], "completionTime": "2026-01-01T12:30:00Z"}


JOBS: dict[str, tuple[Callable[[World, Json], None], Verdict]] = {
    "gets no pod": (_no_pod, "Failed"),
    "deadline": (_end("DeadlineExceeded"), "Failed"),
    "failed without a pod": (_end("BackoffLimitExceeded"), "InProgress"),
    "complete without a report": (_lost_report, "InProgress"),
}


@pytest.mark.parametrize("trouble", JOBS)
@pytest.mark.parametrize("stage", STAGES)
def test_each_trouble_of_a_job(stage: str, trouble: str) -> None:
    happen, wanted = JOBS[trouble]
    world = at(stage)
    happen(world, world.job(stage))
    assert world.verdicts()[0] == wanted


@pytest.mark.parametrize("stage", STAGES)
def test_suspended_is_neither_settled_nor_failed(stage: str) -> None:
    world = at(stage)
    world.fail(stage, "Evicted")
    engine = world.objects["LLMEngine", "llama"]
    engine["spec"]["suspend"] = True
    engine["metadata"]["generation"] = 2
    assert world.verdicts()[0] == "InProgress"
    assert world.ready()[:2] == ("False", "Suspended")
    world.now += timedelta(days=1)
    assert not world.step(), "and it stays so"


@pytest.mark.parametrize("stage", STAGES)
def test_deletion(stage: str) -> None:
    world = at(stage)
    for kind in ("LLMEngine", "LLMEngineBuild"):
        for obj in world.of(kind):
            obj["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"
            assert check_state(obj) == "Terminating"
    assert not world.step(), "what is being deleted gets no more writes"


_REFUSED: list[Json] = [
    {"runtime": {"version": "1.3.0rc29", "backend": "tensorrt"}},
    {"runtime": {"version": "0.1.0"}},
    {"runtime": {"version": "nonsense"}},
    {"parallelism": {"tensor": 3}},
    {"accelerator": {}},
    {"precision": {"dtype": "int5"}},
]


@pytest.mark.parametrize("spec", _REFUSED, ids=str)
def test_a_spec_that_can_not_be_done(spec: Json) -> None:
    world = World(engine_object(**spec))
    world.settle()
    if world.of("Job"):
        world.finish("resolve")
    assert world.verdicts() == ("Failed", None)
    ready = at("verify")
    ready.go_on()
    engine = ready.objects["LLMEngine", "llama"]
    engine["spec"] |= spec
    engine["metadata"]["generation"] = 2
    assert ready.verdicts()[0] == "Failed"


_EVENTS = ("finish", "fail", "pod", "job gone", "build gone", "claim gone", "status gone", "spec", "suspend", "time", "delete build")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_path_breaks_a_rule(data: st.DataObject) -> None:
    """`World.step` looks at each status that is written on the way."""
    world = World({**engine_object(), "status": UNSEEN})
    engine = world.objects["LLMEngine", "llama"]
    for event in data.draw(st.lists(st.sampled_from(_EVENTS), max_size=10)):
        running = [job for job in world.of("Job") if "status" not in job]
        builds, claims = world.of("LLMEngineBuild"), world.of("PersistentVolumeClaim")
        match event:
            case "finish" if running:
                world.finish(running[-1]["metadata"]["labels"]["trtllm.dev/stage"])
            case "fail" if running:
                world.fail(running[-1]["metadata"]["labels"]["trtllm.dev/stage"], data.draw(st.sampled_from(get_args(Reason))))
            case "pod" if running:
                world.pod(running[-1], **PODS[data.draw(st.sampled_from(sorted(PODS)))][0])
            case "job gone" if world.of("Job"):
                del world.objects["Job", world.of("Job")[-1]["metadata"]["name"]]
            case "build gone" if builds:
                del world.objects["LLMEngineBuild", builds[-1]["metadata"]["name"]]
            case "delete build" if builds:
                builds[-1]["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"
            case "claim gone" if claims:
                del world.objects["PersistentVolumeClaim", claims[-1]["metadata"]["name"]]
            case "status gone":
                engine["status"] = UNSEEN
            case "spec":
                engine["spec"]["build"] = {"maxBatchSize": data.draw(st.integers(1, 3))}
                engine["metadata"]["generation"] += 1
            case "suspend":
                engine["spec"]["suspend"] = not engine["spec"].get("suspend", False)
                engine["metadata"]["generation"] += 1
            case "time":
                world.now += timedelta(minutes=data.draw(st.integers(1, 60)))
            case _:
                pass
        if data.draw(st.booleans()):
            world.step()
    world.verdicts()
