"""Which reasons the operator's code has really set, with their messages: noted where statuses and Events are made, for a whole test session.

What a test writes by hand does not count: only calls from the operator's own modules do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from trtllm_operator.api.reasons import REASONS
from trtllm_operator.decide import conditions
from trtllm_operator.decide.decision import Decision

_OURS = "trtllm_operator."


@dataclass(frozen=True, order=True)
class Said:
    """One thing that was told to people."""

    reason: str
    where: str
    """`Ready=False`, `stage`, `event`."""
    message: str


@dataclass
class Reached:
    """Everything that was told so far."""

    said: set[Said] = field(default_factory=set)

    def reasons(self) -> set[str]:
        """All reasons that were set."""
        return {one.reason for one in self.said}

    def wrong(self) -> list[str]:
        """Reasons of the table that nothing has set, and those that are not in it."""
        never = sorted(REASONS.keys() - self.reasons())
        strange = sorted(self.reasons() - REASONS.keys())
        return [
            *(f"{reason}: no test makes the code set it; write one, or take it out of the table" for reason in never),
            *(f"{reason}: is set, and is not in the table" for reason in strange),
        ]

    def add(self, reason: str | None, where: str, message: str | None) -> None:
        if reason:
            self.said.add(Said(reason, where, message or ""))

    def conditions(self, found: Iterable[Mapping[str, Any]]) -> None:
        for one in found:
            self.add(one.get("reason"), f"{one.get('type')}={one.get('status')}", one.get("message"))

    def status(self, status: Mapping[str, Any] | None) -> None:
        for stage in (status or {}).get("stages", ()):
            self.add(stage.get("reason"), f"stage {stage.get('name')}", stage.get("message"))

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """From now on note what is decided."""
        finish: Callable[..., list[dict[str, Any]]] = conditions.finish
        init = Decision.__init__

        @wraps(finish)
        def noted_finish(*args: Any, **more: Any) -> list[dict[str, Any]]:
            found = finish(*args, **more)
            if _called_by_us():
                self.conditions(found)
            return found

        @wraps(init)
        def noted_init(decision: Decision, *args: Any, **more: Any) -> None:
            init(decision, *args, **more)
            if _called_by_us():
                self.status(decision.status)
                for event in decision.events:
                    self.add(event.reason, f"event {event.type}", event.message)

        patch.setattr(conditions, "finish", noted_finish)
        patch.setattr(Decision, "__init__", noted_init)

    def write(self, file: Path) -> None:
        """A table to read: every message once for each place in which it was told."""
        lines = [f"{one.reason}\t{one.where}\t{one.message!r}" for one in sorted(self.said)]
        file.write_text("\n".join(lines) + "\n")


def _called_by_us() -> bool:
    """Whether the caller of the wrapper belongs to the operator."""
    return str(sys._getframe(2).f_globals.get("__name__", "")).startswith(_OURS)
