"""The stand-in for kubelets, told by scripts to misbehave: pods get the statuses that kubelets, schedulers and node controllers write when things go wrong.

Wordings and conditions are those of Kubernetes 1.3x: kubelet's eviction manager and image manager, scheduler, taint eviction controller.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.api import Api, ApiRefusedError, Document
from tests.support.kubelet_standin import STAGE, KubeletStandIn, _now

Status = dict[str, Any]
Script = Callable[[Document], Status | None]
"""The status that a pod gets now; None: as usual."""

SERVER = "server"


def text_of(pod: Document) -> str:
    """The command lines of a pod, to tell pods apart by what they are asked to do."""
    return " ".join(part for container in pod["spec"]["containers"] for part in container.get("command", ()))


def build_of(pod: Document) -> str:
    """Name of the LLMEngineBuild that a pod works for or serves."""
    return str(pod["metadata"]["labels"].get("trtllm.dev/build", ""))


@dataclass
class FaultyKubelet(KubeletStandIn):
    """As KubeletStandIn, but pods of a stage (or of `server`) for which a script says something get that."""

    scripts: dict[str, list[Script]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._plain = self.api
        self.api = _Scripted(self.api, self)  # type: ignore[assignment]

    def script(self, stage: str, script: Script) -> None:
        """From now on ask this script first."""
        self.scripts.setdefault(stage, []).insert(0, script)

    def once(self, stage: str, status: Callable[[Document], Status], *, where: Callable[[Document], bool] = lambda _: True) -> None:
        """Let the first pod of a stage (for which `where` holds) come to this, when it has run."""
        victims: list[str] = []

        def script(pod: Document) -> Status | None:
            uid, phase = str(pod["metadata"]["uid"]), pod.get("status", {}).get("phase")
            if not victims and phase == "Running" and where(pod):
                victims.append(uid)
            return status(pod) if uid in victims else None

        self.script(stage, script)

    def always(
        self, stage: str, status: Callable[[Document], Status], *, where: Callable[[Document], bool] = lambda _: True
    ) -> Callable[[], None]:
        """Let all pods of a stage (for which `where` holds) come to this, until the function that this returns is called."""
        over = threading.Event()
        self.script(stage, lambda pod: status(pod) if where(pod) and not over.is_set() else None)
        return over.set

    def start_again(self, pod: Document) -> None:
        """Forget how far a pod of a service is: its container is started anew."""
        self._plain.patch("Pod", pod["metadata"]["name"], {"status": {"phase": "Pending"}}, self.namespace, "status")


class _Scripted:
    """Stands where the stand-in asks for pods: those about which a script has something to say are dealt with here."""

    def __init__(self, api: Api, kubelet: FaultyKubelet) -> None:
        self._api = api
        self._kubelet = kubelet
        self._said: dict[str, str] = {}

    def list(self, kind: str, namespace: str) -> list[Document]:
        return [pod for pod in self._api.list(kind, namespace) if not self._dealt_with(pod)]

    def _dealt_with(self, pod: Document) -> bool:
        metadata, phase = pod["metadata"], pod.get("status", {}).get("phase")
        stage = metadata.get("labels", {}).get(STAGE, SERVER)
        if phase in ("Succeeded", "Failed"):
            return False
        said: Status | None
        if "deletionTimestamp" in metadata:
            said = ended(pod, 143)  # a kubelet stops what it is told to stop
        else:
            said = next((found for script in tuple(self._kubelet.scripts.get(stage, ())) if (found := script(pod)) is not None), None)
        if said is None:
            self._said.pop(metadata["uid"], None)
            return False
        mark = json.dumps({key: value for key, value in said.items() if key != "startTime"}, sort_keys=True)
        if self._said.get(metadata["uid"]) != mark:
            try:
                self._api.patch("Pod", metadata["name"], {"status": said}, metadata["namespace"], "status")
            except ApiRefusedError as error:
                if error.status not in (404, 409):
                    raise
            self._said[metadata["uid"]] = mark
        return True

    def patch(self, *arguments: Any) -> Document:
        return self._api.patch(*arguments)

    def close(self) -> None:
        self._api.close()


def _containers(pod: Document, state: Status, **more: Any) -> list[Status]:
    usual = {"ready": False, "restartCount": 0, "imageID": ""}
    return [{"name": c["name"], "image": c["image"], **usual, "state": state, **more} for c in pod["spec"]["containers"]]


def _conditions(**states: str) -> list[Status]:
    return [{"type": kind, "status": state} for kind, state in states.items()]


def unschedulable(message: str) -> Callable[[Document], Status]:
    """No node takes the pod."""

    def status(_: Document) -> Status:
        said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        return {"phase": "Pending", "conditions": [said], "containerStatuses": None}

    return status


def waiting(reason: str, message: str) -> Callable[[Document], Status]:
    """The container can't be started: ImagePullBackOff, CreateContainerConfigError."""

    def status(pod: Document) -> Status:
        states = _containers(pod, {"waiting": {"reason": reason, "message": message}})
        return {"phase": "Pending", "conditions": _conditions(PodScheduled="True", Ready="False"), "containerStatuses": states}

    return status


def ended(pod: Document, code: int, *, reason: str = "Error", message: str = "", disruption: str | None = None, **more: Any) -> Status:
    """The pod is over. `disruption`: Kubernetes took it away, for this reason."""
    end = {"exitCode": code, "reason": reason, "message": message, "startedAt": _now(), "finishedAt": _now()}
    known = next(
        (c["state"]["terminated"] for c in pod.get("status", {}).get("containerStatuses") or () if "terminated" in c["state"]), end
    )
    end |= {key: known[key] for key in ("startedAt", "finishedAt")}
    conditions = _conditions(PodScheduled="True", Ready="False", ContainersReady="False")
    if disruption is not None:
        conditions.append({"type": "DisruptionTarget", "status": "True", "reason": disruption, "message": f"taken away: {disruption}"})
    phase = "Succeeded" if code == 0 else "Failed"
    return {"phase": phase, "conditions": conditions, "containerStatuses": _containers(pod, {"terminated": end}), **more}


def said(pod: Document, reason: str, message: str) -> Status:
    """The stage program ended with a report of a failure."""
    stage = pod["metadata"]["labels"][STAGE]
    return ended(pod, 1, message=json.dumps({"ok": False, "stage": stage, "reason": reason, "message": message}))


def evicted(pod: Document) -> Status:
    """The kubelet's eviction manager."""
    return ended(pod, 137, disruption="TerminationByKubelet", reason="Error") | {
        "reason": "Evicted",
        "message": "The node was low on resource: memory.",
    }


def preempted(pod: Document) -> Status:
    """The scheduler needs the room for a pod of higher priority."""
    return ended(pod, 137, disruption="PreemptionByScheduler")


def out_of_memory(pod: Document) -> Status:
    """The kernel killed the container at its memory limit."""
    return ended(pod, 137, reason="OOMKilled")


def node_lost(pod: Document) -> Status:
    """The kubelet does not answer any more: the node controller says so, and nothing else is known."""
    lost = {"type": "Ready", "status": "False", "reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}
    running = _containers(pod, {"running": {"startedAt": "2026-01-01T00:00:00Z"}})
    conditions = [*_conditions(PodScheduled="True"), lost]
    return {"phase": "Running", "reason": "NodeLost", "message": lost["message"], "conditions": conditions, "containerStatuses": running}


def not_ready(pod: Document) -> Status:
    """A server that runs and does not pass its readiness probe."""
    running = _containers(pod, {"running": {"startedAt": "2026-01-01T00:00:00Z"}})
    return {
        "phase": "Running",
        "conditions": _conditions(PodScheduled="True", Ready="False", ContainersReady="False"),
        "containerStatuses": running,
    }


def crashing(code: int, message: str, *, restarts: int = 3) -> Callable[[Document], Status]:
    """A server that ends again and again."""

    def status(pod: Document) -> Status:
        end = {
            "exitCode": code,
            "reason": "Error",
            "message": message,
            "startedAt": "2026-01-01T00:00:00Z",
            "finishedAt": "2026-01-01T00:00:01Z",
        }
        back_off = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}}
        states = _containers(pod, back_off, restartCount=restarts, lastState={"terminated": end})
        return not_ready(pod) | {"containerStatuses": states}

    return status
