"""The rules in tests/support/kstatus find what they are for: each has a state that breaks it, and it alone where that is possible."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.kstatus import ON_EVERY_WRITE, RULES, Verdict, broken, verdict

Json = dict[str, Any]


def obj(conditions: dict[str, str], *, generation: int = 2, observed: int | None = 2, at: int = 2, **metadata: Any) -> Json:
    """An object with conditions of these statuses."""
    listed = [{"type": kind, "status": status, "reason": "X", "observedGeneration": at} for kind, status in conditions.items()]
    status = {"conditions": listed} | ({} if observed is None else {"observedGeneration": observed})
    return {"metadata": {"generation": generation, **metadata}, "status": status}


VERDICTS: list[tuple[Json, Verdict]] = [
    (obj({"Ready": "True"}), "Current"),
    (obj({}), "Current"),
    ({"metadata": {"generation": 1}}, "Current"),
    ({"metadata": {"generation": 1}, "status": {"observedGeneration": -1}}, "InProgress"),
    (obj({"Ready": "True"}, observed=1), "InProgress"),
    (obj({"Ready": "True"}, observed=3), "InProgress"),
    (obj({"Ready": "Unknown"}), "InProgress"),
    (obj({"Ready": "False"}), "InProgress"),
    (obj({"Ready": "True", "Reconciling": "True"}), "InProgress"),
    (obj({"Ready": "True", "Reconciling": "False", "Stalled": "False"}), "Current"),
    (obj({"Ready": "False", "Stalled": "True"}), "Failed"),
    (obj({"Ready": "False", "Stalled": "True"}, observed=1), "InProgress"),
    (obj({"Ready": "False", "Stalled": "True"}, deletionTimestamp="2026-01-01T00:00:00Z"), "Terminating"),
    (obj({"Other": "False"}), "Current"),
]


@pytest.mark.parametrize(("state", "wanted"), VERDICTS)
def test_verdict(state: Json, wanted: Verdict) -> None:
    assert verdict(state) == wanted


BREAKS: dict[str, tuple[Json, set[str]]] = {
    "FAIL0001": (obj({"Ready": "True", "Stalled": "True"}), {"FAIL0004"}),
    "FAIL0002": (obj({"Available": "True"}), set()),
    "FAIL0003": (obj({"Ready": "Unknown", "Reconciling": "True"}), set()),
    "FAIL0004": (obj({"Ready": "Unknown", "Stalled": "True"}), {"FAIL0011"}),
    "FAIL0005": (obj({"Ready": "False", "Stalled": "True", "Reconciling": "False"}), set()),
    "FAIL0006": (obj({"Ready": "False"}, observed=3), set()),
    "FAIL0007": (obj({"Ready": "True"}, observed=1), {"FAIL0009"}),
    "FAIL0008": (obj({"Ready": "True"}, at=1), {"FAIL0009"}),
    "FAIL0009": (obj({"Ready": "True"}, at=3), set()),
    "FAIL0011": (obj({"Ready": "Unknown"}), set()),
}


def test_each_rule_has_a_state_that_breaks_it() -> None:
    assert BREAKS.keys() == RULES.keys()


@pytest.mark.parametrize("name", RULES)
def test_rule(name: str) -> None:
    state, others = BREAKS[name]
    assert set(broken(state, final=True)) == {name, *others}
    assert (name in set(broken(state, final=False))) is (name in ON_EVERY_WRITE)


@pytest.mark.parametrize(
    "conditions", [{"Ready": "True", "EngineReady": "True"}, {"Ready": "False", "Stalled": "True"}, {"Ready": "False"}], ids=str
)
def test_states_that_break_none(conditions: dict[str, str]) -> None:
    assert list(broken(obj(conditions), final=True)) == []
