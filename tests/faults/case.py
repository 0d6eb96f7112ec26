"""One run of a scenario in a namespace of its own: operator behind a fault proxy, kubelet stand-in, witness. Restarts what a plan has killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.cluster.controlplane import ControlPlane
from tests.faults.forkserver import ForkServer
from tests.support.api import Api
from tests.support.faultproxy import FaultProxy
from tests.support.faultproxy_loop import LoopThread
from tests.support.faultproxy_plan import Plan
from tests.support.journal import Journal
from tests.support.journal_witness import Witness
from tests.support.kubelet_standin_witness import WatchingKubeletStandIn
from tests.support.waiting import eventually, nothing_for

T = TypeVar("T")

SETTLE_SECONDS = 90.0
QUIET_SECONDS = 2.0
"""O3: so long nothing may be written once all is as it should be."""
_OTHERS_QUIET_SECONDS = 0.8


def collected(objects: Iterable[dict[str, Any]]) -> bool:
    """Whether the garbage collector is done: each object that has owners has one that lives."""
    everything = list(objects)
    alive = {obj["metadata"]["uid"] for obj in everything}
    owners = [{owner["uid"] for owner in obj["metadata"].get("ownerReferences", ())} for obj in everything]
    return all(uids & alive for uids in owners if uids)


@dataclass(frozen=True)
class Ground:
    """What the cases of one session share."""

    control_plane: ControlPlane
    api: Api
    loop: LoopThread
    operators: ForkServer
    directory: Path


class Case:
    """A context manager: everything runs, but for the operator."""

    def __init__(self, ground: Ground, namespace: str, **environment: str) -> None:
        self.ground = ground
        self.api = ground.api
        self.namespace = namespace
        self.directory = ground.directory / namespace
        self._environment = environment
        self._stack = ExitStack()
        self._pid = 0
        self._second = 0
        self._ended = 0.0
        self.restarts = 0

    def __enter__(self) -> Self:
        plane = self.ground.control_plane
        self.directory.mkdir(parents=True)
        self.api.with_account(self.api.namespace(self.namespace))
        self.journal = Journal(self.directory / "journal.jsonl")
        with ExitStack() as stack:
            stack.callback(self.journal.close)
            stack.callback(self.api.close)
            self.witness = stack.enter_context(Witness(self.ground.loop, plane.url, plane.token, plane.ca, self.namespace))
            self.proxy = stack.enter_context(FaultProxy(self.ground.loop, plane.url, plane.ca, self.journal, self._kill))
            # A second operator is no plan's business. What it does goes into the same journal.
            self._second_proxy = stack.enter_context(FaultProxy(self.ground.loop, plane.url, plane.ca, self.journal, lambda: None))
            self.kubelet = stack.enter_context(WatchingKubeletStandIn(self.api, self.namespace, witness=self.witness))
            stack.callback(self.stop)
            stack.callback(self.stop_second)
            self._stack = stack.pop_all()
        self._kubeconfig = self.proxy.kubeconfig(self.directory / "kubeconfig", plane.token)
        return self

    def __exit__(self, *error: object) -> None:
        # The namespace stays, and goes with the control plane: to take each apart would be a large part of all the work.
        self._stack.close()
        self.api.close()

    # The operator.

    def start(self) -> None:
        """Start the operator."""
        self._pid = self._start(self._kubeconfig)

    def start_second(self) -> None:
        """Start one more, that works at the same time. Where it runs already, nothing happens."""
        if not self._second:
            self._second = self._start(self._second_proxy.kubeconfig(self.directory / "kubeconfig-2", self.ground.control_plane.token))

    def stop_second(self) -> None:
        """Kill the second one, if it runs."""
        if self._second:
            os.kill(self._second, signal.SIGKILL)
            self.ground.operators.wait(self._second)
            self._second = 0

    def _start(self, kubeconfig: Path) -> int:
        variables = {
            "KUBECONFIG": str(kubeconfig),
            "TOOLS_IMAGE": "trtllm-operator/tools:test",
            "WATCH_NAMESPACE": self.namespace,
            "METRICS_PORT": "0",  # any that is free: nobody asks them, and what is free now may be taken in a moment
            "PROBES_PORT": "0",
            "LEADER_ELECTION": "false",
            **self._environment,
        }
        return self.ground.operators.start(variables, self.directory / "operator.log")

    @property
    def running(self) -> bool:
        """Whether the operator runs, as far as it is our doing."""
        return bool(self._pid) and not self.proxy.killed.is_set()

    def _kill(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the operator and wait for its end."""
        if self._pid:
            os.kill(self._pid, how)
            self.ground.operators.wait(self._pid)
            self._pid = 0

    def restart(self, how: signal.Signals, seconds: float) -> None:
        """End the operator, and start it again after `seconds`. Nothing happens where a plan has ended it already."""
        if not self._pid or self.proxy.killed.is_set():
            return
        self.proxy.down(seconds)
        self.stop(how)
        self._ended = time.monotonic()

    def tend(self) -> None:
        """Start the operator again if a plan has killed it. Raises AssertionError (O8) where it has ended by itself."""
        if self.proxy.killed.is_set():
            if self._pid:
                self.ground.operators.wait(self._pid)
                self._pid, self._ended = 0, time.monotonic()
            if time.monotonic() - self._ended < self.proxy.down_seconds:
                return
            self.restarts += 1
            self.proxy.revive()
            self.start()
        elif self._pid and self.ground.operators.ended(self._pid) and not self.proxy.killed.is_set():
            self._pid = 0
            raise AssertionError(f"O8: the operator has ended by itself:\n{self.log()[-4000:]}")

    def log(self) -> str:
        """What the operator has logged, over all of its lives."""
        file = self.directory / "operator.log"
        return file.read_text(errors="replace") if file.exists() else ""

    # Waiting.

    def wait(self, look: Callable[[], T], *, what: str, seconds: float = SETTLE_SECONDS) -> T:
        """As `eventually`, and meanwhile the operator is looked after."""

        def tended() -> T:
            self.tend()
            return look()

        return eventually(tended, what=what, seconds=seconds, every=0.15)

    def look_on(self, seconds: float) -> None:
        """Let things go on for a while, and look after the operator."""
        nothing_for(seconds, self.tend, what="the operator is looked after", every=0.1)

    def quiet_seconds(self) -> float:
        """How long nobody has written anything, or tried to."""
        return min(self.witness.quiet_seconds(), self.journal.quiet_seconds())

    def settle(self, goal: Callable[[], Any], *, what: str, quiet: float = QUIET_SECONDS, seconds: float = SETTLE_SECONDS) -> None:
        """Wait until the goal is reached and nothing is written any more (O3). Raises AssertionError."""
        began = time.monotonic()
        last, mark = began, self.journal.mark()

        def still() -> bool:
            nonlocal last, mark
            if not (goal() and collected(self.witness.state().values())):
                last = time.monotonic()
                return False
            if self.journal.tried(mark):
                last, mark = time.monotonic(), self.journal.mark()
            return time.monotonic() - last >= quiet and self.witness.quiet_seconds() >= _OTHERS_QUIET_SECONDS

        try:
            self.wait(still, what=f"{what}, then quiet", seconds=seconds)
        except AssertionError as error:
            reached = "the goal is reached but writes go on" if goal() else "the goal is not reached"
            text = f"O3: {reached} ({error})\nlast writes:\n{self.journal.tail()}\n{self._statuses()}\nlog:\n{self.log()[-1500:]}"
            raise AssertionError(text) from error

    def arm(self, plan: Plan) -> None:
        """From now on the proxy does what a plan says."""
        (self.directory / "plan.json").write_text(plan.dump())
        self.proxy.arm(plan)

    def _statuses(self) -> str:
        roots = ("LLMEngine", "LLMEngineBuild", "LLMService")
        found = [(key, (obj.get("status") or {}).get("conditions")) for key, obj in self.witness.state().items() if key[0] in roots]
        return "\n".join(f"{kind} {name}: {conditions}" for (kind, name), conditions in found)
