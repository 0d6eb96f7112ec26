"""The store: the newest version wins, whatever overtakes what."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trtllm_operator.observe import index
from trtllm_operator.observe.refs import Ref, ref_of
from trtllm_operator.observe.store import Store


def obj(name: str = "a", version: int = 1, uid: str = "u1", kind: str = "ConfigMap", namespace: str = "ns", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": str(version), **more.pop("metadata", {})}
    return {"kind": kind, "metadata": metadata, **more}


def test_older_and_equal_versions_are_no_news() -> None:
    store = Store(index.terms)
    assert store.put(obj(version=5)).changed
    assert not store.put(obj(version=5)).changed
    assert not store.put(obj(version=4)).changed
    put = store.put(obj(version=6))
    assert put.changed
    assert put.before == obj(version=5)


def test_what_was_deleted_stays_deleted() -> None:
    store = Store(index.terms)
    store.put(obj(version=5))
    assert store.remove(ref_of(obj()), "u1") == obj(version=5)
    assert not store.put(obj(version=6)).changed, "a late answer must not bring it back"
    assert store.put(obj(version=7, uid="u2")).changed, "a successor is another object"


def test_a_late_deletion_does_not_take_the_successor() -> None:
    store = Store(index.terms)
    store.put(obj(version=5, uid="u2"))
    assert store.remove(ref_of(obj()), "u1") is None
    assert store.get(ref_of(obj())) is not None


def test_a_list_tells_what_is_new_and_what_is_gone() -> None:
    store = Store(index.terms)
    store.put(obj("stays", 1, "u1"))
    store.put(obj("changes", 2, "u2"))
    store.put(obj("vanishes", 3, "u3"))
    store.put(obj("elsewhere", 3, "u4", namespace="other"))
    told = store.replace("ConfigMap", [obj("stays", 1, "u1"), obj("changes", 7, "u2"), obj("comes", 8, "u5")], "10", "ns")
    assert sorted(o["metadata"]["name"] for o, _ in told.touched) == ["changes", "comes"]
    assert [o["metadata"]["name"] for o in told.vanished] == ["vanishes"]
    assert store.get(Ref("ConfigMap", "other", "elsewhere")) is not None


def test_what_is_newer_than_a_list_survives_it() -> None:
    store = Store(index.terms)
    store.put(obj("written", 12, "u1"))
    assert store.replace("ConfigMap", [], "10").vanished == []
    assert store.replace("ConfigMap", [obj("written", 11, "u1")], "11").touched == []
    assert [o["metadata"]["name"] for o in store.replace("ConfigMap", [], "12").vanished] == ["written"]


def test_indexes_follow_changes() -> None:
    store = Store(index.terms)
    owned = {
        "ownerReferences": [{"kind": "LLMService", "name": "s", "uid": "root", "controller": True}],
        "labels": {"trtllm.dev/service": "s"},
    }
    store.put(obj(metadata=owned))
    assert len(store.find(index.owned_by("root"))) == 1
    assert len(store.find(index.labelled("trtllm.dev/service", "ns", "s"))) == 1
    store.put(obj(version=2))
    assert store.find(index.owned_by("root")) == []
    assert store.find(index.labelled("trtllm.dev/service", "ns", "s")) == []
    store.remove(ref_of(obj()), "u1")
    assert store.find(index.in_namespace("ConfigMap", "ns")) == []
    assert len(store) == 0


def test_a_garbled_object_is_indexed_all_the_same() -> None:
    store = Store(index.terms)
    specs: list[Any] = [{}, {"source": 7}, {"source": {"repo": 3}}, [], None, {"engineRef": "x"}]
    for number, spec in enumerate(specs):
        for kind in ("LLMEngineBuild", "LLMService", "LLMEngine"):
            assert store.put(obj(f"n{number}", kind=kind, uid=f"{kind}{number}", spec=spec)).changed


@given(st.permutations([("put", 1, "u1"), ("put", 2, "u1"), ("gone", 3, "u1"), ("put", 4, "u2"), ("put", 5, "u2")]))
def test_any_order_of_news_ends_the_same(news: list[tuple[str, int, str]]) -> None:
    store = Store(index.terms)
    for what, version, uid in news:
        if what == "put":
            store.put(obj(version=version, uid=uid))
        else:
            store.remove(ref_of(obj()), uid)
    found = store.get(ref_of(obj()))
    assert found is not None
    assert found["metadata"]["resourceVersion"] == "5"


def test_what_a_watch_with_a_selector_calls_deleted_may_come_back() -> None:
    """Its label was taken away, and is there again: the same object, of a later version than that at which it went out of view."""
    store = Store(index.terms)
    store.put(obj(version=5))
    assert store.remove(ref_of(obj()), "u1", 7) == obj(version=5)
    assert not store.put(obj(version=6)).changed, "an answer that is older than that"
    assert store.put(obj(version=8)).changed
    assert store.remove(ref_of(obj()), "u1", 7) is None, "told late"
    assert store.get(ref_of(obj())) == obj(version=8)
    store.remove(ref_of(obj()), "u1")
    assert not store.put(obj(version=9)).changed, "our own deletion is for ever"
    store.remove(ref_of(obj()), "u1", 7)
    assert not store.put(obj(version=10)).changed


def test_what_is_missing_in_a_list_with_a_selector_may_come_back() -> None:
    store = Store(index.terms)
    store.put(obj(version=5))
    assert store.replace("ConfigMap", [], "8").vanished == [obj(version=5)]
    assert not store.put(obj(version=8)).changed
    assert store.put(obj(version=9)).changed
