"""A stand-in for kubelets, for control planes without nodes: nothing runs, but pods get the status that a kubelet would write.

Pods of stages end with the report that the stage program would leave (operator/docs/stage-program.md); pods of services become ready.
Everything else is done by Kubernetes' own controllers: Jobs count their pods, Deployments roll.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from tests.support.api import Api, ApiRefusedError
from tests.support.flow import FACTS

STAGE = "trtllm.dev/stage"
_POLL_SECONDS = 0.1


EVICTED = "Evicted"


@dataclass
class Failure:
    """How a stage ends badly, and how often. For the reason Evicted the node takes the pod away, and the stage program says nothing."""

    reason: str
    message: str
    times: int = 1


@dataclass
class KubeletStandIn:
    """Looks after the pods of one namespace, in a thread. A context manager."""

    api: Api
    namespace: str
    facts: dict[str, dict[str, Any]] = field(default_factory=lambda: {stage: dict(facts) for stage, facts in FACTS.items()})
    hold: set[str] = field(default_factory=set)
    """Stages whose pods run until they are taken out of here."""
    delay: dict[str, float] = field(default_factory=dict)
    """Seconds that the pods of a stage run."""
    failures: dict[str, Failure] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)
    """Pods that ended, by stage."""
    _began: dict[str, float] = field(default_factory=dict, init=False)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="kubelet stand-in", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stop.wait(_POLL_SECONDS):
                with contextlib.suppress(OSError):  # the API server is away
                    self._look()
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            self._error = error
        finally:
            self.api.close()

    def _look(self) -> None:
        for pod in self.api.list("Pod", self.namespace):
            stage = pod["metadata"].get("labels", {}).get(STAGE)
            phase = pod.get("status", {}).get("phase")
            try:
                if "deletionTimestamp" in pod["metadata"]:
                    if phase in ("Pending", "Running"):
                        self._kill(pod)
                elif stage is None:
                    if phase == "Pending":
                        self._report(pod, "Running", {"running": {"startedAt": _now()}}, ready=True)
                elif phase == "Pending":
                    self._report(pod, "Running", {"running": {"startedAt": _now()}}, ready=True)
                elif phase == "Running" and stage not in self.hold and self._has_run(pod, self.delay.get(stage, 0.0)):
                    self._end(pod, stage)
            except ApiRefusedError as error:
                if error.status not in (404, 409):  # it was deleted meanwhile
                    raise

    def _kill(self, pod: dict[str, Any]) -> None:
        """As a kubelet does with a pod that is deleted: Jobs wait for its end before they let it go."""
        end = {"exitCode": 143, "reason": "Error", "startedAt": _now(), "finishedAt": _now()}
        self._report(pod, "Failed", {"terminated": end}, ready=False)

    def _has_run(self, pod: dict[str, Any], seconds: float) -> bool:
        began = self._began.setdefault(str(pod["metadata"]["uid"]), time.monotonic())
        return time.monotonic() - began >= seconds

    def _end(self, pod: dict[str, Any], stage: str) -> None:
        failure = self.failures.get(stage)
        if failure is not None and failure.times > 0:
            failure.times -= 1
            if failure.reason == EVICTED:
                self._evict(pod, failure.message)
                self.ended[stage] += 1
                return
            said: dict[str, Any] = {"ok": False, "stage": stage, "reason": failure.reason, "message": failure.message}
        else:
            said = {"ok": True, "stage": stage, "facts": self.facts[stage]}
        code = 0 if said["ok"] else 1
        reason = "Completed" if said["ok"] else "Error"
        end = {"exitCode": code, "reason": reason, "message": json.dumps(said), "startedAt": _now(), "finishedAt": _now()}
        self._report(pod, "Succeeded" if said["ok"] else "Failed", {"terminated": end}, ready=False)
        self.ended[stage] += 1

    def _evict(self, pod: dict[str, Any], message: str) -> None:
        """As a kubelet under pressure does, see its eviction manager: pod status, and the condition that Jobs' failure policies look at."""
        taken = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": message}
        end = {"exitCode": 137, "reason": "Error", "startedAt": _now(), "finishedAt": _now()}
        self._report(pod, "Failed", {"terminated": end}, ready=False, conditions=[{**taken, "lastTransitionTime": _now()}], reason=EVICTED)

    def _report(
        self, pod: dict[str, Any], phase: str, state: dict[str, Any], *, ready: bool, conditions: Sequence[dict[str, Any]] = (), **more: Any
    ) -> None:
        containers = [
            {
                "name": c["name"],
                "image": c["image"],
                "imageID": "stand-in",
                "ready": ready,
                "started": True,
                "restartCount": 0,
                "state": state,
            }
            for c in pod["spec"]["containers"]
        ]
        usual = [
            {"type": kind, "status": "True" if ready or kind == "PodScheduled" else "False", "lastTransitionTime": _now()}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ]
        status = {"phase": phase, "startTime": _now(), "conditions": [*usual, *conditions], "containerStatuses": containers, **more}
        self.api.patch("Pod", pod["metadata"]["name"], {"status": status}, self.namespace, "status")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
