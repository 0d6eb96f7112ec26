"""Events of a watch that are kept back, and what they amount to when they are let go."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.support.faultproxy_plan import Do


class Held:
    """The state of one watch under `hold`. Lives in an event loop."""

    def __init__(self, do: Do) -> None:
        self._do = do
        self._seen = 0
        self._kept: list[bytes] = []
        self.due: float | None = None
        """When what is kept must go, by the loop's clock; None: nothing is kept."""

    def take(self, line: bytes) -> list[bytes]:
        """An event has come; returns those that may pass now."""
        if self._do.type and not self._seen and json.loads(line)["type"] != self._do.type:
            return [line]
        self._seen += 1
        first, last = self._do.first, self._do.first + self._do.count - 1
        if not first <= self._seen <= last:
            return [line]
        self._kept.append(line)
        if self.due is None:
            self.due = asyncio.get_running_loop().time() + self._do.seconds
        return self.release() if self._seen == last else []

    def release(self) -> list[bytes]:
        """Let go what is kept; from now on everything passes."""
        kept, self._kept, self.due = self._kept, [], None
        self._seen = self._do.first + self._do.count
        return net(kept) if self._do.net else kept


def net(lines: list[bytes]) -> list[bytes]:
    """The last event of each object, in order; of an object that came and went, nothing. That is what a list would tell afterwards."""
    last: dict[str, tuple[int, bytes]] = {}
    born: set[str] = set()
    for number, line in enumerate(lines):
        event: dict[str, Any] = json.loads(line)
        metadata = event["object"].get("metadata") or {}
        key = str(metadata.get("name", number))
        if event["type"] == "ADDED" and key not in last:
            born.add(key)
        last[key] = (number, line)
    passing = sorted(item for key, item in last.items() if not (key in born and json.loads(item[1])["type"] == "DELETED"))
    return [line for _, line in passing]
