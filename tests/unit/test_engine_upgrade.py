"""Another version of the operator brings another tools image. What is settled stays as it is; what only waits starts with the new one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support import flow
from tests.support.flow import World, engine_object


def _upgrade(monkeypatch: pytest.MonkeyPatch) -> str:
    image = "example.test/tools:2"
    monkeypatch.setattr(flow, "CONFIG", replace(flow.CONFIG, tools_image=image))
    return image


def test_a_failure_that_needs_a_person_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(engine_object())
    world.settle()
    for stage in ("resolve", "fetch"):
        world.finish(stage)
        world.settle()
    world.fail("build", "UnsupportedArchitecture")
    world.settle()
    _upgrade(monkeypatch)
    world.writes.clear()
    world.settle()
    assert world.writes == []
    assert world.ready()[:2] == ("False", "UnsupportedArchitecture")


@pytest.mark.parametrize("stages", [(), ("resolve", "fetch")], ids=["resolve", "build"])
def test_a_job_that_only_waits_is_made_again_with_the_new_image(monkeypatch: pytest.MonkeyPatch, stages: tuple[str, ...]) -> None:
    world = World(engine_object())
    world.settle()
    for stage in stages:
        world.finish(stage)
        world.settle()
    image = _upgrade(monkeypatch)
    world.settle()
    waiting = [job for job in world.of("Job") if "status" not in job]
    assert len(waiting) == 1
    spec = waiting[0]["spec"]["template"]["spec"]
    assert image in [container["image"] for container in (*spec.get("initContainers", ()), *spec["containers"])]


def test_a_job_that_runs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(engine_object())
    world.settle()
    world.pod(world.job("resolve"), phase="Running")
    _upgrade(monkeypatch)
    world.settle()
    assert [write for write in world.writes if write.startswith("delete")] == []
