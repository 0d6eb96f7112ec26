"""What looks at each written status finds what it is for."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.support.kstatus_writes import expected, wrong, wrong_change

Json = dict[str, Any]
NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"


def condition(kind: str, status: str, reason: str, **more: Any) -> Json:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "m",
        "observedGeneration": 2,
        "lastTransitionTime": NOW,
    } | more


def obj(*conditions: Json, kind: str = "LLMEngine", observed: int = 2, **status: Any) -> Json:
    return {
        "kind": kind,
        "metadata": {"generation": 2},
        "status": {"observedGeneration": observed, "conditions": list(conditions), **status},
    }


READY = condition("Ready", "True", "Ready")
ENGINE = obj(READY, build="b", artifact={"build": "b"})
SERVICE = obj(READY, kind="LLMService", current={"build": "b"}, target={"build": "b"}, url="u", replicas=1, readyReplicas=1)
STALLED = obj(condition("Ready", "False", "BuildFailed"), condition("Stalled", "True", "BuildFailed"))
WAITING = obj(condition("Ready", "Unknown", "Building"), condition("Reconciling", "True", "Building"))
SUSPENDED = obj(condition("Ready", "False", "Suspended"))


@pytest.mark.parametrize(
    ("state", "meant"),
    [
        (ENGINE, "Current"),
        (SERVICE, "Current"),
        (STALLED, "Failed"),
        (WAITING, "InProgress"),
        (SUSPENDED, "InProgress"),
        (obj(READY, observed=1), "InProgress"),
        ({**ENGINE, "metadata": {"generation": 2, "deletionTimestamp": NOW}}, "Terminating"),
    ],
)
def test_the_class_that_is_meant(state: Json, meant: str) -> None:
    assert expected(state) == meant


@pytest.mark.parametrize("state", [ENGINE, SERVICE, STALLED, WAITING, SUSPENDED])
def test_good_writes(state: Json) -> None:
    assert wrong(state) == []


def changed(state: Json, number: int, **change: Any) -> Json:
    made = copy.deepcopy(state)
    made["status"]["conditions"][number] |= change
    return made


BAD: list[tuple[Json, str]] = [
    (obj(condition("Ready", "False", "BuildFailed")), "kstatus says InProgress, and Failed is meant"),
    (obj(condition("Ready", "True", "Building")), "kstatus says Current, and InProgress is meant"),
    (obj(READY, condition("Reconciling", "True", "Building")), "FAIL0001"),
    (changed(STALLED, 1, reason="Nonsense"), "Stalled has the reason Nonsense, which is not documented"),
    (obj(READY, condition("Stalled", "False", "Ready"), build="b", artifact={"build": "b"}), "Stalled is there though it is False"),
    (changed(ENGINE, 0, observedGeneration=1), "Ready speaks of generation 1, and the status of 2"),
    (changed(ENGINE, 0, lastTransitionTime=""), "Ready has the time ''"),
    (changed(ENGINE, 0, message="two\nlines"), "the message of Ready has more than one line"),
    (changed(ENGINE, 0, message=""), "Ready has no message"),
    (obj(READY), "Current without an artifact"),
    (obj(READY, build="b", artifact={"build": "a"}), "Current with the artifact of another build"),
    ({**SERVICE, "status": {**SERVICE["status"], "target": {}}}, "Current, but what answers is not what is wanted"),
    ({**SERVICE, "status": {**SERVICE["status"], "readyReplicas": 0}}, "Current with 0 of 1 pods"),
]


@pytest.mark.parametrize(("state", "said"), BAD, ids=[said for _, said in BAD])
def test_bad_writes(state: Json, said: str) -> None:
    assert said in wrong(state)


def test_changes() -> None:
    assert list(wrong_change(WAITING, ENGINE)) == []
    assert list(wrong_change(ENGINE, changed(ENGINE, 0, message="other"))) == []
    assert list(wrong_change(ENGINE, changed(ENGINE, 0, lastTransitionTime=LATER))) == [
        "Ready stays True, and its lastTransitionTime changes"
    ]
    assert list(wrong_change(ENGINE, obj(observed=1))) == ["observedGeneration goes from 2 back to 1"]
