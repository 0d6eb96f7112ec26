"""The stand-in for kubelets with servers that start slowly or whose image can't be pulled, as a test says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.api import ApiRefusedError
from tests.support.kubelet_standin import STAGE, KubeletStandIn

Mode = Literal["ready", "starting", "no image"]


@dataclass
class ServersStandIn(KubeletStandIn):
    """As KubeletStandIn. What is ready stays ready, and what does not start as it is until servers shall be ready."""

    servers: Mode = "ready"
    _shown: dict[str, Mode] = field(default_factory=dict, init=False)

    def _look(self) -> None:
        super()._look()
        for pod in self.api.list("Pod", self.namespace):
            starts = pod["metadata"].get("labels", {}).get(STAGE) is None
            if starts and self.servers == "ready" and self._shown.get(pod["metadata"]["uid"]) != "ready":
                try:
                    self._report(pod, "Running", {"running": {"startedAt": pod["metadata"]["creationTimestamp"]}}, ready=True)
                except ApiRefusedError as error:
                    if error.status not in (404, 409):  # it was deleted meanwhile
                        raise

    def _report(
        self, pod: dict[str, Any], phase: str, state: dict[str, Any], *, ready: bool, conditions: Sequence[dict[str, Any]] = (), **more: Any
    ) -> None:
        uid = pod["metadata"]["uid"]
        if pod["metadata"].get("labels", {}).get(STAGE) is not None:
            super()._report(pod, phase, state, ready=ready, conditions=conditions, **more)
            return
        mode = self.servers
        shown = self._shown.get(uid)
        if shown == "ready" or (shown is not None and mode != "ready"):
            return
        if mode == "no image":
            phase, state = "Pending", {"waiting": {"reason": "ImagePullBackOff", "message": "manifest unknown"}}
        super()._report(pod, phase, state, ready=mode == "ready", conditions=conditions, **more)
        self._shown[uid] = mode
