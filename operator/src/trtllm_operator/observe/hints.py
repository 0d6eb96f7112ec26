"""What extra reads told about pods and Jobs. Only a hint: it may lag or be missing, and decisions hold without it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from trtllm_operator.decide.input import Hints

PROGRESS = "trtllm-progress "
"""What a progress line of the stage program begins with (operator/docs/stage-program.md)."""

_TEXT = 1024


class HintBook:
    """Newest hints by uid."""

    def __init__(self) -> None:
        self._progress: dict[str, dict[str, Any]] = {}
        self._warnings: dict[str, str] = {}

    def set_progress(self, uid: str, progress: dict[str, Any]) -> bool:
        """Note a pod's progress; whether it is news."""
        news = self._progress.get(uid) != progress
        self._progress[uid] = progress
        return news

    def set_warning(self, uid: str, message: str | None) -> bool:
        """Note the newest warning about a Job or pod, or that there is none; whether it is news."""
        news = self._warnings.get(uid) != message
        if message is None:
            self._warnings.pop(uid, None)
        else:
            self._warnings[uid] = message
        return news

    def keep(self, uids: Iterable[str]) -> None:
        """Forget everything about others than these."""
        alive = set(uids)
        for book in (self._progress, self._warnings):
            for uid in [uid for uid in book if uid not in alive]:
                del book[uid]

    def about(self, uids: Iterable[str]) -> Hints:
        """Hints about these objects."""
        wanted = tuple(uids)
        return Hints(
            progress={uid: self._progress[uid] for uid in wanted if uid in self._progress},
            warnings={uid: self._warnings[uid] for uid in wanted if uid in self._warnings},
        )


def parse_progress(log: str) -> dict[str, Any] | None:
    """The newest progress line in a log. What a program wrote is not trusted: only known fields of known types, and bounded."""
    for line in reversed(log.splitlines()):
        _, found, text = line.rpartition(PROGRESS)
        if not found:
            continue
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            continue  # cut off at the edge of what was read, or too deep to be ours
        if isinstance(said, Mapping) and isinstance(said.get("stage"), str):
            return _progress(said)
    return None


def _progress(said: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {"stage": str(said["stage"])[:_TEXT], "percent": 0}
    percent = _number(said.get("percent"))
    if percent is not None:
        result["percent"] = max(0, min(100, int(percent)))
    if isinstance(message := said.get("message"), str):
        result["message"] = message[:_TEXT]
    eta = _number(said.get("eta"))
    if eta is not None and 0 <= eta < 10**7:
        result["eta"] = int(eta)
    return result


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):  # noqa: PLR0124 - NaN
        return None
    return float(value)
