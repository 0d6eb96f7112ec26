"""Who says how many pods there are: every change of hands keeps every pod, and the order of the applies is what does it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.test_service_world import World, service_object
from trtllm_operator.desired import names

CPU: dict[str, Any] = {"minReplicas": 3, "maxReplicas": 9, "metrics": [{"type": "resource", "name": "cpu", "averageUtilization": 70}]}


def mode(world: World) -> str:
    return str(world.deployment()["metadata"]["annotations"][names.REPLICAS])


def number(world: World) -> int:
    return int(world.deployment()["spec"]["replicas"])


def scaled(**spec: Any) -> World:
    world = World(service_object(**spec))
    world.roll_out()
    return world


@pytest.mark.parametrize(
    ("spec", "wanted", "held"), [({"replicas": 4}, 4, "fixed"), ({}, 1, "free"), ({"autoscaling": CPU}, 3, "autoscaled")]
)
def test_start(spec: dict[str, Any], wanted: int, held: str) -> None:
    world = scaled(**spec)
    assert (number(world), mode(world)) == (wanted, held)
    assert set(world.replicas_seen) == {wanted}
    assert ("HorizontalPodAutoscaler" in world.kinds()) is ("autoscaling" in spec)


def test_fixed_to_autoscaled_hands_over_first() -> None:
    world = scaled(replicas=5)
    world.change(replicas=None, autoscaling=CPU)
    decision = world.decide()
    steps = [
        (a.obj["kind"], a.manager, a.obj["spec"].get("replicas"))
        for a in decision.apply
        if a.obj["kind"] in ("Deployment", "HorizontalPodAutoscaler")
    ]
    assert steps == [
        ("Deployment", "trtllm-operator-replicas", 5),
        ("Deployment", "trtllm-operator", None),
        ("HorizontalPodAutoscaler", "trtllm-operator", None),
    ]
    hand_over = next(a.obj for a in decision.apply if a.manager == "trtllm-operator-replicas")
    assert set(hand_over) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(hand_over["spec"]) == {"replicas"}
    assert hand_over["metadata"]["uid"] == world.deployment()["metadata"]["uid"]
    world.settle()
    assert (number(world), mode(world)) == (5, "autoscaled")
    assert world.replicas_owners == {"trtllm-operator-replicas"}
    assert min(world.replicas_seen) == 5
    world.scale(7)
    world.controller()
    world.settle()
    assert number(world) == 7
    assert world.replicas_owners == {"kube-controller-manager"}


def test_without_the_hand_over_pods_would_be_lost() -> None:
    world = scaled(replicas=5)
    world.change(replicas=None, autoscaling=CPU)
    for apply in world.decide().apply:
        if apply.manager != names.REPLICAS_MANAGER:
            world._apply(apply)
    assert number(world) == 1


@pytest.mark.parametrize("written", [1, 2])
def test_hand_over_that_is_cut_short_goes_on(written: int) -> None:
    world = scaled(replicas=5)
    world.change(replicas=None, autoscaling=CPU)
    deployments = [a for a in world.decide().apply if a.obj["kind"] == "Deployment"]
    for apply in deployments[:written]:  # the operator dies after this many writes
        world._apply(apply)
    assert number(world) == 5
    world.settle()
    assert (number(world), mode(world)) == (5, "autoscaled")
    assert min(world.replicas_seen) == 5
    assert "HorizontalPodAutoscaler" in world.kinds()


@pytest.mark.parametrize(("current", "after"), [(0, 3), (1, 3), (3, 3), (8, 8), (20, 20)])
def test_autoscaler_gets_its_minimum_and_never_less_than_there_is(current: int, after: int) -> None:
    world = scaled(replicas=current)
    world.change(replicas=None, autoscaling=CPU)
    world.settle()
    assert number(world) == after


def test_autoscaled_to_fixed() -> None:
    world = scaled(autoscaling=CPU)
    world.scale(7)
    world.controller()
    world.settle()
    world.change(autoscaling=None, replicas=6)
    world.settle()
    assert (number(world), mode(world)) == (6, "fixed")
    assert "HorizontalPodAutoscaler" not in world.kinds()
    assert "trtllm-operator" in world.replicas_owners
    world.change(autoscaling=CPU, replicas=None)  # and back, with a field manager that was there before
    world.settle()
    assert (number(world), mode(world)) == (6, "autoscaled")


def test_autoscaled_to_neither_keeps_the_number() -> None:
    world = scaled(autoscaling=CPU)
    world.scale(7)
    world.controller()
    world.change(autoscaling=None)
    assert all(apply.manager != names.REPLICAS_MANAGER for apply in world.decide().apply), "the number was never ours"
    world.roll_out()
    assert (number(world), mode(world)) == (7, "free")
    assert "HorizontalPodAutoscaler" not in world.kinds()
    assert world.condition("ScalingActive")[1] == "ScalingFixed"


def test_fixed_to_neither_keeps_the_number_and_leaves_it_to_others() -> None:
    world = scaled(replicas=4)
    world.change(replicas=None)
    world.roll_out()
    assert (number(world), mode(world)) == (4, "free")
    world.scale(2)
    world.controller()
    world.settle()
    assert number(world) == 2
    assert world.condition("Ready")[0] == "True"


def test_fixed_number_changed_by_hand_is_set_back() -> None:
    world = scaled(replicas=4)
    world.scale(2)
    world.settle()
    assert number(world) == 4


def test_number_of_the_autoscaler_survives_other_changes() -> None:
    world = scaled(autoscaling=CPU)
    world.scale(8)
    world.controller()
    world.change(serve={"maxBatchSize": 4})
    world.roll_out()
    assert number(world) == 8
    assert world.condition("Ready")[0] == "True"


def test_annotation_that_somebody_removed_loses_no_pod() -> None:
    world = scaled(autoscaling=CPU)
    world.scale(8)
    world.controller()
    del world.deployment()["metadata"]["annotations"][names.REPLICAS]
    world.settle()
    assert (number(world), mode(world)) == (8, "autoscaled")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (None, ("Unknown", "ScalingUnknown")),
        ({"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound", "message": ""}, ("True", "ScalingActive")),
        (
            {"type": "ScalingActive", "status": "False", "reason": "FailedGetResourceMetric", "message": "no metrics server"},
            ("False", "ScalingInactive"),
        ),
    ],
)
def test_what_the_autoscaler_says(said: dict[str, Any] | None, shown: tuple[str, str]) -> None:
    world = scaled(autoscaling=CPU)
    if said is not None:
        world.objects["HorizontalPodAutoscaler", "chat"]["status"] = {"conditions": [said]}
        world.settle()
    assert world.condition("ScalingActive")[:2] == shown
    assert ("no metrics server" in world.condition("ScalingActive")[2]) is (shown[1] == "ScalingInactive")
    assert world.condition("Ready")[0] == "True"  # it answers; that it does not scale is told beside that
