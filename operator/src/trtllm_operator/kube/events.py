"""Kubernetes Events on our resources, posted so that nobody is flooded.

Equal events within ten minutes are one. Beyond a burst, an object gets one event each five minutes. Both limits are those of
client-go's event correlator: https://pkg.go.dev/k8s.io/client-go/tools/record. Warnings have a budget of their own, so that a resource
whose stages come and go can still say what is wrong with it.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from trtllm_operator.decide.decision import Event
from trtllm_operator.kube.client import Client
from trtllm_operator.kube.resources import EVENT

CONTROLLER = "trtllm.dev/operator"

_SAME_SECONDS = 600.0
_BURST = 25.0
_REFILL_SECONDS = 300.0
_REMEMBERED = 4096
_NOTE = 1024  # bytes, by validation of events.k8s.io/v1
_SECONDS = 5.0


class EventPoster:
    """Posts Events and remembers what it posted."""

    def __init__(self, client: Client, instance: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`instance` names this process, usually the pod."""
        self._client = client
        self._instance = instance[:128]
        self._clock = clock
        self._posted: OrderedDict[tuple[str, str, str, str], float] = OrderedDict()
        self._tokens: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    async def post(self, root: Mapping[str, Any], event: Event) -> bool:
        """Post one event about `root`; False where it was left out as a repetition or by the limit.

        Raises:
            ApiError: as `Client.json`.
        """
        if not self._admit(root["metadata"]["uid"], event):
            return False
        await self._client.json("POST", EVENT.path(root["metadata"]["namespace"]), body=self._body(root, event), seconds=_SECONDS)
        return True

    def _body(self, root: Mapping[str, Any], event: Event) -> dict[str, Any]:
        metadata = root["metadata"]
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"generateName": f"{metadata['name'][:200]}-", "namespace": metadata["namespace"]},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "action": "Reconcile",
            "type": event.type,
            "reason": event.reason,
            "note": _cut(event.message),
            "regarding": {
                "apiVersion": root["apiVersion"],
                "kind": root["kind"],
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
        }

    def _admit(self, uid: str, event: Event) -> bool:
        now = self._clock()
        # Numbers (attempts, seconds, percent) do not make news of what is otherwise the same.
        mark = (uid, event.type, event.reason, re.sub(r"\d+", "#", event.message))
        last = self._posted.get(mark)
        if last is not None and now - last < _SAME_SECONDS:
            return False
        budget = (uid, event.type)
        tokens, since = self._tokens.get(budget, (_BURST, now))
        tokens = min(_BURST, tokens + (now - since) / _REFILL_SECONDS)
        if tokens < 1:
            return False
        self._tokens[budget] = (tokens - 1, now)
        self._tokens.move_to_end(budget)
        self._posted[mark] = now
        self._posted.move_to_end(mark)
        for memory in (self._posted, self._tokens):
            while len(memory) > _REMEMBERED:
                memory.popitem(last=False)
        return True


def _cut(text: str) -> str:
    data = text.encode()
    return text if len(data) <= _NOTE else data[: _NOTE - 3].decode(errors="ignore") + "..."
