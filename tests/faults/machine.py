"""The state machine from which hypothesis draws sequences. It knows what users want, not what the cluster is like, so a seed always gives
the same sequence; running it is another matter (machine_run).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.faults.machine_steps import (
    CHILDREN,
    ENGINE_SPECS,
    ENGINE_STALLED,
    ENGINES,
    SERVICE_SPECS,
    SERVICE_STALLED,
    SERVICES,
    STAGES,
    TOUCHES,
    WAITS,
    Step,
)

Sequence_ = tuple[Step, ...]

_STEPS = 12
_EXAMPLES = 6
"""The first that hypothesis makes for a seed are the simplest; the longest is taken."""

_ACTIONS: tuple[dict[str, Any], ...] = (
    *({"do": how, "seconds": seconds} for how in ("kill-before", "kill-after") for seconds in (0.0, 1.0)),
    {"do": "kill-after", "back": 1},
    {"do": "kill-after", "back": 6},
    *({"do": f"status:{code}"} for code in (401, 403, 404, 409, 500, 503, 504)),
    {"do": "status:429", "retryAfter": 1},
    {"do": "reset-before"},
    {"do": "reset-after"},
    {"do": "truncate"},
    {"do": "slow", "seconds": 1.0},
)
_READS: tuple[dict[str, Any], ...] = (
    *({"do": do} for do in ("truncate", "gone", "error-event", "status:410", "status:503", "reset-before")),
    {"do": "hold", "count": 6, "seconds": 2.0},
    {"do": "hold", "count": 6, "seconds": 2.0, "net": True},
    {"do": "hold", "first": 4, "count": 30, "seconds": 4.0, "net": True},
)
_WRITTEN = (
    "llmengines/status", "llmservices/status", "llmenginebuilds/status", "llmenginebuilds", "jobs", "persistentvolumeclaims", "deployments",
    "configmaps", "services", "poddisruptionbudgets", "networkpolicies",
)  # fmt: skip
_WATCHED = ("llmengines", "llmenginebuilds", "llmservices", "jobs", "pods", "deployments", "persistentvolumeclaims")

_waits = st.sampled_from(WAITS)
_engines = st.sampled_from(ENGINES)
_services = st.sampled_from(SERVICES)
_engine_specs = st.sampled_from(sorted(ENGINE_SPECS))
_service_specs = st.sampled_from(sorted(SERVICE_SPECS))


class Machine(RuleBasedStateMachine):
    """Rules; each adds its step. `drawn` gets each sequence at its end."""

    drawn: ClassVar[list[Sequence_]] = []

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.there: set[tuple[str, str]] = set()
        self.failing: set[str] = set()
        self.holding: set[str] = set()
        self.second_runs = False

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:  # else hypothesis has given this one up
            type(self).drawn.append(tuple(self.steps))

    def _add(self, wait: str, *step: Any) -> None:
        self.steps.append(step)
        if wait != "at once":
            self.steps.append(("wait", wait))

    def _pick(self, kind: str, which: int) -> str:
        names = sorted(name for known, name in self.there if known == kind)
        return names[which % len(names)]

    @initialize(spec=_engine_specs, service=_service_specs, wait=_waits)
    def begin(self, spec: str, service: str, wait: str) -> None:
        self.there |= {("LLMEngine", "tiny"), ("LLMService", "chat")}
        self._add("at once", "put", "LLMEngine", "tiny", spec)
        self._add(wait, "put", "LLMService", "chat", service)

    # Users.

    @rule(name=_engines, spec=_engine_specs, wait=_waits)
    def engine(self, name: str, spec: str, wait: str) -> None:
        self.there.add(("LLMEngine", name))
        self._add(wait, "put", "LLMEngine", name, spec)

    @rule(name=_services, spec=_service_specs, wait=_waits)
    def service(self, name: str, spec: str, wait: str) -> None:
        self.there.add(("LLMService", name))
        self._add(wait, "put", "LLMService", name, spec)

    @rule(name=_engines, there=_engine_specs, back=_engine_specs, wait=_waits)
    def there_and_back(self, name: str, there: str, back: str, wait: str) -> None:
        """O6."""
        self.there.add(("LLMEngine", name))
        for spec in (back, there, back):
            self._add(wait, "put", "LLMEngine", name, spec)

    @rule(which=st.integers(0, 3), engine=st.booleans(), wrong=st.sampled_from(sorted(ENGINE_STALLED)), wait=_waits)
    def wrong(self, which: int, engine: bool, wrong: str, wait: str) -> None:
        kind = "LLMEngine" if engine else "LLMService"
        if any(known == kind for known, _ in self.there):
            self._add(wait, "put", kind, self._pick(kind, which), wrong if engine else min(SERVICE_STALLED))

    @precondition(lambda self: self.there)
    @rule(which=st.integers(0, 7))
    def refused(self, which: int) -> None:
        kind, name = sorted(self.there)[which % len(self.there)]
        self._add("at once", "refused", kind, name)

    @precondition(lambda self: self.there)
    @rule(which=st.integers(0, 7), policy=st.sampled_from(("Background", "Foreground")), wait=_waits)
    def delete(self, which: int, policy: str, wait: str) -> None:
        kind, name = sorted(self.there)[which % len(self.there)]
        self.there.discard((kind, name))
        self._add(wait, "delete", kind, name, policy)

    @precondition(lambda self: self.there)
    @rule(which=st.integers(0, 7), engine=_engine_specs, service=_service_specs, wait=_waits)
    def replace(self, which: int, engine: str, service: str, wait: str) -> None:
        kind, name = sorted(self.there)[which % len(self.there)]
        self._add(wait, "replace", kind, name, engine if kind == "LLMEngine" else service)

    # Somebody.

    @rule(kind=st.sampled_from(CHILDREN), how=st.sampled_from(TOUCHES), which=st.integers(0, 3), wait=_waits)
    def touch(self, kind: str, how: str, which: int, wait: str) -> None:
        self._add(wait, "touch", kind, how, which)

    # Kubelets.

    @rule(stage=st.sampled_from(STAGES), reason=st.sampled_from(("Evicted", "InternalError", "NCCLInitFailed", "NoEngineProduced")))
    def fail(self, stage: str, reason: str) -> None:
        """Each stage once: what fails for good needs a person, and there is none."""
        if stage not in self.failing:
            self.failing.add(stage)
            self._add("at once", "fail", stage, reason)

    @rule(stage=st.sampled_from(STAGES), wait=_waits)
    def hold(self, stage: str, wait: str) -> None:
        held = stage in self.holding
        self.holding ^= {stage}
        self._add(wait, "release" if held else "hold", stage)

    @rule(stage=st.sampled_from(STAGES), seconds=st.sampled_from((0.0, 0.5, 2.0)))
    def delay(self, stage: str, seconds: float) -> None:
        self._add("at once", "delay", stage, seconds)

    # The operator and its API server.

    @rule(resource=st.sampled_from(_WRITTEN), nth=st.integers(1, 3), action=st.sampled_from(_ACTIONS), wait=_waits)
    def bad_write(self, resource: str, nth: int, action: dict[str, Any], wait: str) -> None:
        self._add(wait, "inject", [{"when": {"verb": "write", "resource": resource, "nth": nth}, **action}])

    @rule(resource=st.sampled_from(_WATCHED), times=st.integers(1, 3), action=st.sampled_from(_READS), restart=st.booleans(), wait=_waits)
    def bad_watch(self, resource: str, times: int, action: dict[str, Any], restart: bool, wait: str) -> None:
        """With a restart there are new watches, so it is hit."""
        self._add("at once", "inject", [{"when": {"verb": "watch", "resource": resource, "times": times}, **action}])
        if restart:
            self._add(wait, "restart", "SIGKILL", 0.0)

    @rule(how=st.sampled_from(("SIGKILL", "SIGTERM")), seconds=st.sampled_from((0.0, 0.5, 2.0)), wait=_waits)
    def restart(self, how: str, seconds: float, wait: str) -> None:
        self._add(wait, "restart", how, seconds)

    @rule(wait=_waits)
    def second(self, wait: str) -> None:
        self.second_runs = not self.second_runs
        self._add(wait, "second", self.second_runs)


def sequence(number: int, steps: int = _STEPS) -> Sequence_:
    """The sequence of a seed."""

    class Drawing(Machine):
        drawn: ClassVar[list[Sequence_]] = []

    machine = seed(number)(Drawing)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=_EXAMPLES,
            stateful_step_count=steps,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            derandomize=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return max(Drawing.drawn, key=len)


def parts(steps: Sequence[Step]) -> list[Sequence_]:
    """Shorter ones: each without one step."""
    return [(*steps[:number], *steps[number + 1 :]) for number in range(len(steps))]
