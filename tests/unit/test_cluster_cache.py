"""The build cache: keys, atomic publication, locks."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from tests.cluster import cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "cache"
    monkeypatch.setenv("TRTLLM_CACHE", str(root))
    return root


def test_root_is_outside_of_the_checkout_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRTLLM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.root() == tmp_path / "trtllm-operator"


def test_key_does_not_depend_on_order_but_on_content(tmp_path: Path) -> None:
    pins = tmp_path / "go.sum"
    pins.write_text("a")
    first = cache.key({"x": 1, "pins": pins})
    assert first == cache.key({"pins": pins, "x": 1})
    pins.write_text("b")
    assert first != cache.key({"x": 1, "pins": pins})
    assert first != cache.key({"x": 2, "pins": pins})


def test_key_of_a_file_does_not_depend_on_where_it_lies(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("same")
    other.write_text("same")
    assert cache.key({"f": one}) == cache.key({"f": other})


def test_obtain_builds_once() -> None:
    calls = []

    def build(target: Path) -> None:
        calls.append(target)
        (target / "file").write_text("content")

    first, second = cache.obtain("kind", "k", build), cache.obtain("kind", "k", build)
    assert first == second
    assert (first / "file").read_text() == "content"
    assert len(calls) == 1


def test_a_failed_build_leaves_nothing_that_looks_finished(own_cache: Path) -> None:
    def fail(target: Path) -> None:
        (target / "half").write_text("half")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        cache.obtain("kind", "k", fail)
    assert list((own_cache / "kind").iterdir()) == []


def test_a_draft_of_a_killed_build_is_not_taken_over(own_cache: Path) -> None:
    stale = own_cache / "kind" / ".k.draft"
    stale.mkdir(parents=True)
    (stale / "half").write_text("half")
    made = cache.obtain("kind", "k", lambda target: (target / "whole").touch())
    assert [path.name for path in made.iterdir()] == ["whole"]


def _hold(ready: str, release: str) -> None:
    with cache.lock("name"):
        Path(ready).touch()
        deadline = time.monotonic() + 30
        while not Path(release).exists() and time.monotonic() < deadline:
            pass
        Path(release).with_suffix(".done").touch()


def test_lock_excludes_another_process(tmp_path: Path) -> None:
    ready, release = tmp_path / "ready", tmp_path / "release"
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(str(ready), str(release)))
    holder.start()
    try:
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert time.monotonic() < deadline
        release.touch()
        with cache.lock("name"):
            assert release.with_suffix(".done").exists()
    finally:
        holder.join()


def test_prune_removes_what_nobody_asked_for_in_weeks() -> None:
    old = cache.obtain("kind", "old", lambda _: None)
    new = cache.obtain("kind", "new", lambda _: None)
    month_ago = time.time() - 31 * 24 * 3600
    os.utime(old, (month_ago, month_ago))
    cache.prune("kind")
    assert not old.exists()
    assert new.exists()


def test_asking_for_an_artifact_keeps_it() -> None:
    made = cache.obtain("kind", "k", lambda _: None)
    month_ago = time.time() - 31 * 24 * 3600
    os.utime(made, (month_ago, month_ago))
    cache.obtain("kind", "k", lambda _: None)
    cache.prune("kind")
    assert made.exists()
