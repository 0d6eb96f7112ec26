"""The proxy itself: each action does what its name says, and the journal has what passed."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.case import Ground
from tests.support.faultproxy import FaultProxy
from tests.support.faultproxy_plan import Plan, PlanError, each_request, each_write, one
from tests.support.journal import Journal, Target, points, target_of
from tests.support.waiting import eventually

PATH = "/api/v1/namespaces/default/configmaps"
CREATE = Target("create", "configmaps")


class Setting:
    """A proxy without an operator, and requests through it."""

    def __init__(self, ground: Ground, proxy: FaultProxy, kills: list[int]) -> None:
        self.ground, self.proxy, self.kills = ground, proxy, kills

    def request(self, method: str, path: str, body: Any = None, *, first_line: bool = False) -> tuple[int, dict[str, str], Any]:
        """One request; raises OSError or HTTPException where the answer does not come."""
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.port, timeout=5)
        try:
            headers = {"Authorization": f"Bearer {self.ground.control_plane.token}", "Content-Type": "application/json"}
            connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
            answer = connection.getresponse()
            data = answer.readline() if first_line else answer.read()
            return answer.status, dict(answer.headers), json.loads(data)
        finally:
            connection.close()

    def create(self, name: str) -> tuple[int, dict[str, str], Any]:
        return self.request("POST", PATH, {"metadata": {"name": name}, "data": {"a": "b"}})

    def exists(self, name: str) -> bool:
        return self.ground.api.find("ConfigMap", name) is not None


@pytest.fixture
def setting(ground: Ground, tmp_path: Path) -> Iterator[Setting]:
    kills: list[int] = []
    plane = ground.control_plane
    journal = Journal(tmp_path / "journal.jsonl")
    with FaultProxy(ground.loop, plane.url, plane.ca, journal, lambda: kills.append(1)) as proxy:
        yield Setting(ground, proxy, kills)
    journal.close()
    for item in ground.api.list("ConfigMap", "default"):
        if item["metadata"]["name"].startswith("proxy-"):
            ground.api.delete("ConfigMap", item["metadata"]["name"])


BROKEN = (OSError, http.client.HTTPException)


def test_what_no_plan_names_passes_and_is_written_down(setting: Setting) -> None:
    status, _, made = setting.create("proxy-plain")
    assert status == 201
    assert setting.exists("proxy-plain")
    lines = [json.loads(line) for line in (setting.proxy.journal.file or Path()).read_text().splitlines()]
    assert [(line["kind"], line["verb"], line["resource"]) for line in lines] == [
        ("request", "create", "configmaps"),
        ("response", "create", "configmaps"),
    ]
    assert lines[1]["status"] == 201
    assert lines[1]["resource_version"] == made["metadata"]["resourceVersion"]


@pytest.mark.parametrize("code", [401, 403, 404, 409, 429, 500, 503, 504])
def test_a_status_is_answered_without_forwarding(setting: Setting, code: int) -> None:
    setting.proxy.arm(one(CREATE, 1, f"status:{code}", retryAfter=2))
    status, headers, body = setting.create(f"proxy-{code}")
    assert (status, body["kind"], body["code"], headers["Retry-After"]) == (code, "Status", code, "2")
    assert not setting.exists(f"proxy-{code}")
    assert setting.create(f"proxy-{code}")[0] == 201


@pytest.mark.parametrize(("do", "arrives"), [("reset-before", False), ("reset-after", True), ("kill-before", False), ("kill-after", True)])
def test_whether_a_write_has_arrived(setting: Setting, do: str, arrives: bool) -> None:
    setting.proxy.arm(one(CREATE, 1, do))
    with pytest.raises(BROKEN):
        setting.create(f"proxy-{do}")
    assert setting.exists(f"proxy-{do}") == arrives
    assert len(setting.proxy.journal.writes()) == arrives
    assert len(setting.kills) == do.startswith("kill")


def test_of_a_killed_operator_nothing_is_forwarded_until_there_is_another(setting: Setting) -> None:
    setting.proxy.arm(one(CREATE, 1, "kill-before"))
    for _ in range(2):
        with pytest.raises(BROKEN):
            setting.create("proxy-dead")
    assert not setting.exists("proxy-dead")
    setting.proxy.revive()
    assert setting.create("proxy-dead")[0] == 201
    assert [entry.life for entry in setting.proxy.journal.writes()] == [2]


@pytest.mark.parametrize(("do", "code"), [("gone", 410), ("error-event", 500)])
def test_a_watch_is_ended_by_an_error_event(setting: Setting, do: str, code: int) -> None:
    setting.proxy.arm(Plan([{"when": {"verb": "watch", "resource": "configmaps"}, "do": do}]))
    _, _, event = setting.request("GET", f"{PATH}?watch=1", first_line=True)
    assert (event["type"], event["object"]["code"]) == ("ERROR", code)


def test_a_watch_falls_silent_or_breaks_off_in_an_event(setting: Setting) -> None:
    setting.create("proxy-seen")
    setting.proxy.arm(
        Plan([{"when": {"verb": "watch", "resource": "configmaps", "nth": n}, "do": do} for n, do in ((1, "silent"), (2, "truncate"))])
    )
    with pytest.raises(TimeoutError):
        setting.request("GET", f"{PATH}?watch=1", first_line=True)
    with pytest.raises((*BROKEN, ValueError)):
        setting.request("GET", f"{PATH}?watch=1")
    status, _, event = setting.request("GET", f"{PATH}?watch=1", first_line=True)
    assert (status, event["type"]) == (200, "ADDED")
    told = lambda: any(entry.kind == "event" and entry.text == "ADDED" for entry in setting.proxy.journal.since())  # noqa: E731
    eventually(told, what="the event in the journal, which is written after it was passed on")


def _watched(setting: Setting, count: int, version: str) -> list[str]:
    """The next events of a watch, as `TYPE name`."""
    connection = http.client.HTTPConnection("127.0.0.1", setting.proxy.port, timeout=20)
    try:
        headers = {"Authorization": f"Bearer {setting.ground.control_plane.token}"}
        connection.request("GET", f"{PATH}?watch=1&resourceVersion={version}", headers=headers)
        events = [json.loads(line) for _, line in zip(range(count), connection.getresponse(), strict=False)]
        return [f"{event['type']} {event['object']['metadata']['name']}" for event in events]
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("more", "seen"),
    [
        ({"count": 3}, ["ADDED proxy-short", "DELETED proxy-short", "ADDED proxy-long", "ADDED proxy-last"]),
        ({"count": 3, "net": True}, ["ADDED proxy-long", "ADDED proxy-last"]),
        ({"count": 99, "net": True, "seconds": 0.5}, ["ADDED proxy-long", "ADDED proxy-last"]),
        (
            {"type": "DELETED", "count": 99, "net": True, "seconds": 0.5},
            ["ADDED proxy-short", "DELETED proxy-short", "ADDED proxy-long", "ADDED proxy-last"],
        ),
        ({"first": 4, "count": 2, "seconds": 0.5}, ["ADDED proxy-short", "DELETED proxy-short", "ADDED proxy-long", "ADDED proxy-last"]),
    ],
)
def test_events_are_held_and_come_late_or_as_their_sum(setting: Setting, more: dict[str, Any], seen: list[str]) -> None:
    version = setting.request("GET", PATH)[2]["metadata"]["resourceVersion"]
    for name in ("proxy-short", "proxy-long", "proxy-last"):
        setting.create(name)
        if name == "proxy-short":
            setting.request("DELETE", f"{PATH}/{name}")
    setting.proxy.arm(Plan([{"when": {"verb": "watch", "resource": "configmaps"}, "do": "hold", **more}]))
    began = time.monotonic()
    assert _watched(setting, len(seen), version) == seen
    assert (time.monotonic() - began > 0.4) == ("seconds" in more), "what is not complete waits for its time"


def test_a_list_is_truncated_or_slow(setting: Setting) -> None:
    lists = {"verb": "list", "resource": "configmaps"}
    setting.proxy.arm(Plan([{"when": lists, "do": "truncate"}, {"when": {**lists, "nth": 2}, "do": "slow", "seconds": 1.0}]))
    with pytest.raises(BROKEN):
        setting.request("GET", PATH)
    done = threading.Event()

    def ask() -> None:
        setting.request("GET", PATH)
        done.set()

    thread = threading.Thread(target=ask)
    thread.start()
    assert not done.wait(0.5), "it is slow"
    assert done.wait(5)
    thread.join()


def test_a_list_is_stale(setting: Setting) -> None:
    for name in ("proxy-old", "proxy-new"):
        setting.create(name)
    setting.proxy.arm(Plan([{"when": {"verb": "list"}, "do": "stale", "back": 1}]))
    past, now = ({item["metadata"]["name"] for item in setting.request("GET", PATH)[2]["items"]} for _ in range(2))
    assert now - past == {"proxy-new"}


def test_after_a_crash_lists_are_stale_for_a_life(setting: Setting) -> None:
    for name in ("proxy-old", "proxy-new"):
        setting.create(name)
    setting.proxy.arm(one(CREATE, 1, "kill-after", back=1))
    with pytest.raises(BROKEN):
        setting.create("proxy-newest")
    setting.proxy.revive()
    past = {item["metadata"]["name"] for item in setting.request("GET", PATH)[2]["items"]}
    now = {item["metadata"]["name"] for item in setting.ground.api.list("ConfigMap", "default")}
    assert now - past == {"proxy-newest"}


def test_each_content_is_hit_once(setting: Setting) -> None:
    plan = each_write("status:500")
    setting.proxy.arm(plan)
    answers = [setting.create(name)[0] for name in ("proxy-a", "proxy-a", "proxy-b", "proxy-b")]
    assert answers == [500, 201, 500, 201]
    assert plan.hits == 2


def test_the_first_read_of_each_object_is_hit(setting: Setting) -> None:
    setting.create("proxy-a")
    setting.proxy.arm(each_request("status:500"))
    assert [setting.request("GET", f"{PATH}/proxy-a")[0] for _ in range(3)] == [500, 200, 200]
    assert setting.request("GET", PATH)[0] == 200, "a list is another matter"


def test_a_plan_can_be_told_and_read(tmp_path: Path) -> None:
    plan = one(Target("patch", "jobs", "", "x"), 3, "status:429", retryAfter=1)
    file = tmp_path / "plan.json"
    file.write_text(plan.dump())
    again = Plan.load(file)
    assert again.dump() == plan.dump()
    hits = [again.decide(Target("patch", "jobs", "ns", "x"), b"") for _ in range(4)]
    assert [str(do) for do in hits] == ["None", "None", "status:429", "None"]


@pytest.mark.parametrize(
    "wrong", [{}, {"when": {"verbs": "x"}, "do": "slow"}, {"when": {}, "do": "explode"}, {"when": {}, "do": "status:299"}]
)
def test_a_wrong_plan_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PlanError):
        Plan([wrong])


TARGETS: list[tuple[str, str, Target]] = [
    ("PATCH", "/apis/trtllm.dev/v1alpha1/namespaces/n/llmengines/e/status?force=true", Target("patch", "llmengines/status", "n", "e")),
    ("GET", "/api/v1/namespaces/n/pods?watch=true", Target("watch", "pods", "n")),
    ("GET", "/apis/batch/v1/jobs?limit=500", Target("list", "jobs")),
    ("GET", "/api/v1/namespaces/n", Target("get", "namespaces", "", "n")),
    ("DELETE", "/api/v1/namespaces/n/pods", Target("deletecollection", "pods", "n")),
    ("POST", "/apis/events.k8s.io/v1/namespaces/n/events", Target("create", "events", "n")),
    ("GET", "/version", Target("get", "/version")),
]


@pytest.mark.parametrize(("method", "path", "target"), TARGETS)
def test_paths_are_understood(method: str, path: str, target: Target) -> None:
    assert target_of(method, path) == target


def test_points_count_by_what_they_are_about() -> None:
    journal = Journal()
    add: Callable[[str, str], object] = lambda resource, name: journal.add("request", target=Target("patch", resource, "n", name))  # noqa: E731
    add("jobs", "a")
    add("jobs", "b")
    add("jobs", "a")
    assert [(target.name, nth) for target, nth in points(journal.tried())] == [("a", 1), ("b", 1), ("a", 2)]
