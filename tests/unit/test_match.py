"""When is an apply not sent: only where what is there is what is wanted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtllm_operator.desired.match import difference, quantity, with_hash

json = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=8),
    lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=4), c, max_size=3),
    max_leaves=8,
)


@given(json)
def test_equal_is_no_difference(value: Any) -> None:
    assert difference(value, value) is None


@pytest.mark.parametrize(
    ("desired", "observed", "path"),
    [
        ({"cpu": "1000m"}, {"cpu": "1"}, None),
        ({"memory": "1Gi"}, {"memory": "1024Mi"}, None),
        ({"memory": "1Gi"}, {"memory": "1G"}, ".memory"),
        ({"a": 1}, {"a": 1, "b": 2}, None),
        ({"a": 1}, {}, ".a"),
        ({"a": []}, {}, None),
        ({"a": {"b": True}}, {"a": {"b": False}}, ".a.b"),
        ({"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]}, None),
        ({"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "A", "value": "2"}]}, ".env[A].value"),
        ({"args": ["a", "b"]}, {"args": ["a"]}, ".args"),
        ({"args": ["a", "b"]}, {"args": ["b", "a"]}, ".args[0]"),
    ],
)
def test_difference(desired: Any, observed: Any, path: str | None) -> None:
    assert difference(desired, observed) == path


def test_hash_leaves_owners_out() -> None:
    obj = {"metadata": {"name": "a", "ownerReferences": [{"uid": "1"}]}, "spec": {"x": 1}}
    other = {"metadata": {"name": "a", "ownerReferences": [{"uid": "2"}]}, "spec": {"x": 1}}
    assert with_hash(obj)["metadata"]["annotations"] == with_hash(other)["metadata"]["annotations"]
    assert with_hash({**obj, "spec": {"x": 2}})["metadata"]["annotations"] != with_hash(obj)["metadata"]["annotations"]


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("1k", 1000), ("1Ki", 1024), ("0.5Gi", 2**29), ("500m", "0.5")])
def test_quantity(text: str, value: Any) -> None:
    from decimal import Decimal  # noqa: PLC0415

    assert quantity(text) == Decimal(value)


def test_no_quantity() -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity("much")
