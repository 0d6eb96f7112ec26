"""Whom the disturber of the e2e tests kills."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.process import CommandError
from tests.e2e import disturb
from tests.e2e.disturb import Disturber
from tests.support.kubectl import Kubectl
from tests.support.waiting import eventually


@dataclass(frozen=True)
class Recorded(Kubectl):
    """Pods and Lease as given; notes what is deleted."""

    pods: tuple[str, ...] = ()
    holder: str | None = None
    deleted: list[str] = field(default_factory=list)

    def get(self, kind: str, name: str | None = None, *more: str) -> Any:  # noqa: ARG002  the signature of the base class
        if kind == "pods":
            return {"items": [{"metadata": {"name": pod}} for pod in self.pods]}
        assert (kind, name) == ("lease", "trtllm-operator")
        return {"spec": {"holderIdentity": self.holder}} if self.holder is not None else {}

    def __call__(self, *arguments: str, **_: Any) -> str:
        assert arguments[:2] == ("delete", "pod")
        self.deleted.append(arguments[2])
        return ""


def test_the_one_that_leads_is_killed() -> None:
    kubectl = Recorded(Path("kubectl"), pods=("a", "b", "c"), holder="b")
    disturber = Disturber(kubectl)
    for _ in range(5):
        disturber.kill()
    assert kubectl.deleted == ["b"] * 5
    assert disturber.leaders == 5


@pytest.mark.parametrize("holder", [None, "", "gone"])
def test_any_will_do_where_nobody_leads(holder: str | None) -> None:
    kubectl = Recorded(Path("kubectl"), pods=("a", "b"), holder=holder)
    disturber = Disturber(kubectl)
    for _ in range(3):
        disturber.kill()
    assert set(kubectl.deleted) <= {"a", "b"}
    assert (len(kubectl.deleted), disturber.leaders) == (3, 0)


def test_where_nobody_is_left_nobody_is_killed() -> None:
    kubectl = Recorded(Path("kubectl"), holder="a")
    disturber = Disturber(kubectl)
    disturber.kill()
    assert kubectl.deleted == []
    assert disturber.killed == []


class Slow(Recorded):
    """Answers nothing."""

    def get(self, kind: str, name: str | None = None, *more: str) -> Any:  # noqa: ARG002  the signature of the base class
        raise CommandError(("kubectl", "get", kind), 1, "the server did not answer in time")


def test_a_cluster_that_does_not_answer_once_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disturb, "PERIOD", 0.001)
    with Disturber(Slow(Path("kubectl"))) as disturber:
        eventually(lambda: disturber.missed > 2, what="tried again")
    assert disturber.killed == []
