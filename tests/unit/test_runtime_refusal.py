"""Statuses that show a refusal, and the comparison that keeps equal statuses from being written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from trtllm_operator.decide import conditions
from trtllm_operator.runtime.refusal import refused_status, same_status

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def root(status: Any = None) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": "LLMService", "metadata": {"name": "s", "namespace": "ns", "uid": "u", "generation": 3}}
    return found if status is None else {**found, "status": status}


def by_type(status: dict[str, Any]) -> dict[str, Any]:
    return {c["type"]: c for c in status["conditions"]}


def test_a_refusal_goes_over_what_was_decided() -> None:
    decided = {
        "observedGeneration": 3,
        "url": "http://x",
        "conditions": conditions.finish(
            (*conditions.progressing("RollingOut", "new pods"), conditions.Condition("Available", "True", "Available")), (), 3, NOW
        ),
    }
    status, events = refused_status(root(), decided, "ApplyRefused", "no", NOW)
    found = by_type(status)
    assert status["url"] == "http://x"
    assert set(found) == {"Ready", "Stalled", "Available"}
    assert found["Ready"]["status"] == "False"
    assert [(event.type, event.reason) for event in events] == [("Warning", "ApplyRefused")]


def test_a_second_pass_with_the_same_refusal_says_and_writes_nothing() -> None:
    first, _ = refused_status(root(), None, "ApplyRefused", "no", NOW)
    again, events = refused_status(root(first), None, "ApplyRefused", "no", NOW + timedelta(hours=1))
    assert events == ()
    assert same_status(again, first)


def test_without_a_decision_the_rest_of_the_status_stays() -> None:
    before = {"url": "http://x", "conditions": [{"type": "Available", "status": "True", "reason": "Available", "message": ""}]}
    status, _ = refused_status(root(before), None, "InternalError", "bug", NOW)
    assert status["url"] == "http://x"
    assert set(by_type(status)) == {"Available", "Ready", "Stalled"}
    assert status["observedGeneration"] == 3


@pytest.mark.parametrize(
    "garbled", ["text", {"conditions": "text"}, {"conditions": [1, None, {"type": "Ready"}]}, {"conditions": None}, []]
)
def test_a_garbled_status_is_no_obstacle(garbled: Any) -> None:
    status, _ = refused_status(root(garbled), None, "InternalError", "bug", NOW)
    assert by_type(status)["Ready"]["status"] == "False"


@pytest.mark.parametrize(
    ("desired", "observed", "same"),
    [
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": None, "b": [], "c": ""}, {}, True),
        ({}, {"a": None, "b": {}}, True),
        ({}, {"a": 0, "b": False, "c": {"d": 0}}, True),
        ({}, {"a": 1}, False),
        ({}, {"a": {"b": "x"}}, False),
        ({"a": 0}, {"a": 1}, False),
        ({"a": 0}, {}, False),
        ({"a": [1]}, {"a": [1, 2]}, False),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 0}}, True),
        ({"c": [{"type": "A"}, {"type": "B"}]}, {"c": [{"type": "B"}, {"type": "A"}]}, True),
        ({"c": [{"type": "A", "x": 1}]}, {"c": [{"type": "A", "x": 2}]}, False),
        ({"l": ["a", "b"]}, {"l": ["b", "a"]}, False),
        ({"a": "x"}, None, False),
        ({}, "text", True),
    ],
)
def test_statuses_are_compared_by_meaning(desired: dict[str, Any], observed: Any, same: bool) -> None:
    assert same_status(desired, observed) is same


def test_what_may_work_the_next_time_is_under_way() -> None:
    status, events = refused_status(root(), None, "ApplyRefused", "webhook down", NOW, passes=True)
    assert {c["type"]: c["status"] for c in status["conditions"]} == {"Ready": "Unknown", "Reconciling": "True"}
    assert not [event for event in events if event.type == "Warning"]
