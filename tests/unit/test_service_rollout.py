"""New pods before old ones, or in their place: `auto` finds out, sticks to it until done, and never stops a pod for nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.test_service_world import Json, World, build_object, unschedulable

NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."


def strategy(world: World) -> Json:
    return dict(world.deployment()["spec"]["strategy"]["rollingUpdate"])


SURGE = {"maxSurge": 1, "maxUnavailable": 0}
IN_PLACE = {"maxSurge": 0, "maxUnavailable": 1}


def node(name: str = "node-a", gpus: int = 1, product: str = "H100") -> Json:
    return {
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": product}},
        "status": {"allocatable": {"nvidia.com/gpu": str(gpus)}},
    }


def rolling(*, nodes: tuple[Json, ...] | None = None, tensor: int = 1, **spec: Any) -> World:
    """A service in the middle of a rollout: the old pod runs, the new one waits."""
    world = World(nodes=nodes, **spec)
    world.roll_out()
    world.pod("old")
    world.verified(build_object("llama-ffffffffff", tensor=tensor))
    world.settle()
    world.pod("new", node=None, phase="Pending", **unschedulable(NO_GPU))
    world.controller(updated=1, total=2, available=1)
    return world


@pytest.mark.parametrize(("asked", "used"), [("auto", SURGE), ("surge", SURGE), ("inPlace", IN_PLACE)])
def test_what_is_asked_for(asked: str, used: Json) -> None:
    world = World(rollout={"strategy": asked})
    world.roll_out()
    assert strategy(world) == used
    assert world.condition("Ready")[0] == "True"


@pytest.mark.parametrize("nodes", [None, (node(),)])
def test_auto_replaces_in_place_for_want_of_gpus_until_it_is_done(nodes: tuple[Json, ...] | None) -> None:
    world = rolling(nodes=nodes)
    world.settle()
    assert strategy(world) == IN_PLACE
    assert world.condition("Ready")[:2] == ("Unknown", "WaitingForGPU")
    world.pods = [pod for pod in world.pods if pod["metadata"]["name"] == "new"]
    world.pod("new", phase="Running")
    world.controller(updated=1, total=1, available=0)
    world.settle()
    assert strategy(world) == IN_PLACE, "it must not flip back before the rollout is done"
    assert "in place" in world.condition("Ready")[2]
    world.controller()
    world.settle()
    assert strategy(world) == SURGE
    world.controller()
    world.settle()
    assert world.condition("Ready")[0] == "True"


def test_surge_as_asked_waits_rather_than_stopping_a_pod() -> None:
    world = rolling(rollout={"strategy": "surge"})
    world.settle()
    assert strategy(world) == SURGE


def test_other_shortages_are_no_reason() -> None:
    world = rolling()
    world.pod("new", node=None, phase="Pending", **unschedulable("0/1 nodes are available: 1 Insufficient cpu."))
    world.settle()
    assert strategy(world) == SURGE


def test_nothing_is_stopped_for_a_pod_that_fits_nowhere() -> None:
    world = rolling(nodes=(node(gpus=1),), tensor=2)
    world.settle()
    assert strategy(world) == SURGE
    assert world.condition("Ready")[:2] == ("False", "InsufficientGPUs")


def test_nothing_is_stopped_where_it_would_not_set_enough_gpus_free() -> None:
    world = rolling(tensor=2)
    world.settle()
    assert strategy(world) == SURGE


def test_nothing_is_stopped_on_nodes_with_other_gpus() -> None:
    world = rolling(nodes=(node("node-a", product="A100"), node("node-b", product="H100")))
    world.settle()
    assert strategy(world) == SURGE


@pytest.mark.parametrize("gone", ["terminating", "not scheduled", "failed"])
def test_only_old_pods_that_hold_gpus_count(gone: str) -> None:
    world = rolling()
    old = next(pod for pod in world.pods if pod["metadata"]["name"] == "old")
    if gone == "terminating":
        old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    elif gone == "failed":
        old["status"]["phase"] = "Failed"
    else:
        del old["spec"]["nodeName"]
    world.settle()
    assert strategy(world) == SURGE


def test_scaling_up_without_gpus_is_no_rollout() -> None:
    world = World(replicas=1)
    world.roll_out()
    world.pod("a")
    world.change(replicas=2)
    world.settle()
    world.pod("b", node=None, phase="Pending", **unschedulable(NO_GPU))
    world.controller(updated=2, total=2, available=1)
    world.settle()
    assert strategy(world) == SURGE
    assert world.condition("Ready")[:2] == ("Unknown", "WaitingForGPU")
    assert world.condition("RolledOut")[0] == "True"
