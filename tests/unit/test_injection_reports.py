"""What pods say is not trusted: whatever a termination message, a log line or a model's configuration holds, decisions go on and the API
server takes the status. The images of build and verify are the user's, and the rest comes from a model hub.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.flow import FACTS
from tests.unit.test_kstatus_service import World as ServiceWorld
from tests.unit.test_kstatus_states import STAGES, World, at
from trtllm_operator.decide.input import Hints
from trtllm_operator.observe.hints import PROGRESS, parse_progress

Json = dict[str, Any]

HOSTILE = [
    "",
    " ",
    "-",
    "--output_dir=/",
    "../../etc/passwd",
    "a/../b",
    "$(HF_TOKEN)",
    "$$(HF_TOKEN)",
    "$HF_TOKEN",
    "`id`",
    "; rm -rf /",
    "line\nbreak\r\n",
    "nul\0byte",
    "\"quote'\\",
    "\u202eright to left \U0001f600 \u0130 é",
    "x" * 10240,
]
_TIME = "2026-01-01T12:30:00Z"

_text = st.sampled_from(HOSTILE) | st.text(max_size=9)
_any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | _text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_text, inner, max_size=2),
    max_leaves=4,
)


def _facts(stage: str) -> st.SearchStrategy[Json]:
    """Good facts, of which some are replaced by anything."""
    names = sorted({*FACTS[stage], "maxSeqLen", "tokenizerPath"})
    return st.dictionaries(st.sampled_from(names), _any, max_size=3).map(lambda bad: {**FACTS[stage], **bad})


def _end(world: World, stage: str, said: Any, condition: str) -> None:
    """The stage's Job ends, and this is the termination message of its pod."""
    job = world.job(stage)
    text = said if isinstance(said, str) else json.dumps(said)
    ended = {"exitCode": 1, "message": text, "startedAt": _TIME, "finishedAt": _TIME}
    world.pod(job, phase="Failed", containerStatuses=[{"name": "stage", "state": {"terminated": ended}}])
    job["status"] = {"conditions": [{"type": condition, "status": "True", "lastTransitionTime": _TIME}], "completionTime": _TIME}


@settings(max_examples=70, deadline=None)
@given(data=st.data(), stage=st.sampled_from(STAGES), ok=st.booleans())
def test_any_report(data: st.DataObject, stage: str, ok: bool) -> None:
    world = at(stage)
    said: Any = {"ok": ok, "stage": stage, "facts": data.draw(_facts(stage) | _any), "reason": data.draw(_any), "message": data.draw(_any)}
    _end(world, stage, data.draw(st.just(said) | _any), data.draw(st.sampled_from(["Complete", "Failed"])))
    world.settle()


@settings(max_examples=30, deadline=None)
@given(stage=st.sampled_from(STAGES), reason=_text, message=_text)
@example(stage="build", reason="not a reason", message="x")
@example(stage="build", reason="Ready", message="x")
@example(stage="build", reason="A" * 300, message="x")
def test_reasons_that_nobody_knows(stage: str, reason: str, message: str) -> None:
    """A reason that the API server refuses would keep the status from ever being written."""
    world = at(stage)
    _end(world, stage, {"ok": False, "reason": reason, "message": message}, "Failed")
    world.settle()
    assert world.ready()[0] != "True"


@settings(max_examples=30, deadline=None)
@given(said=_any | st.dictionaries(st.sampled_from(["stage", "percent", "message", "eta"]), _any), stage=st.sampled_from(STAGES))
def test_any_progress(said: Any, stage: str) -> None:
    line = parse_progress(f"noise\n{PROGRESS}{json.dumps(said)}\n")
    world = at(stage)
    pod = world.pod(world.job(stage), phase="Running")
    world.hints = Hints(progress={} if line is None else {pod["metadata"]["uid"]: line})
    world.settle()
    assert world.ready()[0] == "Unknown"


@settings(max_examples=30, deadline=None)
@given(text=_text, stage=st.sampled_from(STAGES), where=st.sampled_from(["scheduling", "waiting", "warning", "terminated"]))
def test_any_message_of_kubernetes(text: str, stage: str, where: str) -> None:
    world = at(stage)
    waiting = [{"name": text, "image": text, "state": {"waiting": {"reason": "ErrImagePull", "message": text}}}]
    match where:
        case "scheduling":
            world.pod(world.job(stage), phase="Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": text * 4}])
        case "waiting":
            world.pod(world.job(stage), phase="Pending", containerStatuses=waiting)
        case "warning":
            world.hints = Hints(warnings={world.job(stage)["metadata"]["uid"]: text * 4})
        case _:
            _end(world, stage, text, "Failed")
    world.settle()
    for _, reason, message in world.events:
        assert len(message) <= 1024, reason


@settings(max_examples=30, deadline=None)
@given(text=_text, code=st.integers(0, 255), restarts=st.integers(0, 9))
def test_any_end_of_a_server(text: str, code: int, restarts: int) -> None:
    world = ServiceWorld()
    world.settle()
    world.controller(available=0, ReplicaFailure={"status": "True", "message": text}) if code == 7 else world.controller(available=0)
    ended = {"terminated": {"exitCode": code, "reason": "Error", "message": text}}
    world.pod("chat-1", containerStatuses=[{"name": "server", "ready": False, "restartCount": restarts, "state": ended}])
    assert world.verdict() != "Current"
