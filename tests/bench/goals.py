"""Lines of the table: what is measured, what it should be, what it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One figure, measured several times or counted once. Without a goal it is for comparison."""

    line: str
    what: str
    values: tuple[float, ...]
    unit: str = ""
    goal: float | None = None
    """An upper bound, or a lower one where `least` is set."""
    least: bool = False
    """More is better."""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def middle(self) -> float:
        """Median."""
        return median(self.values)

    @property
    def worst(self) -> float:
        """Largest, or smallest where more is better."""
        return min(self.values) if self.least else max(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the median meets the goal; None where there is none."""
        if self.goal is None:
            return None
        return self.middle >= self.goal if self.least else self.middle <= self.goal

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "median": self.middle, "worst": self.worst, "met": self.met}


def ratio(line: str, what: str, ours: Sequence[float], floor: Sequence[float], goal: float | None, **details: Any) -> Figure:
    """Pairs measured in turn: what the operator took by what the floor took."""
    values = tuple(mine / other for mine, other in zip(ours, floor, strict=True))
    return Figure(line, what, values, goal=goal, details={"operator": list(ours), "floor": list(floor), **details})


def at_least(line: str, what: str, ours: Sequence[float], floor: Sequence[float], goal: float | None) -> Figure:
    """Seconds of pairs measured in turn, as a share of the floor's throughput."""
    values = tuple(other / mine for mine, other in zip(ours, floor, strict=True))
    return Figure(line, what, values, goal=goal, least=True, details={"operator": list(ours), "floor": list(floor)})


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(len(ordered) * percent / 100)) - 1]
