"""GPUs of a node that has none."""

from __future__ import annotations

import json

import pytest

from tests.cluster.gpus import Gpus


def test_labels_are_those_of_gpu_feature_discovery() -> None:
    assert Gpus(4, "NVIDIA-L40S", "8.9", 46068).labels() == {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": "NVIDIA-L40S",
        "nvidia.com/gpu.count": "4",
        "nvidia.com/gpu.memory": "46068",
        "nvidia.com/gpu.compute.major": "8",
        "nvidia.com/gpu.compute.minor": "9",
    }


def test_no_gpus_removes_labels_and_resource() -> None:
    none = Gpus(0)
    assert set(none.labels().values()) == {None}
    status = json.loads(none.status_patch())["status"]
    assert status == {"capacity": {"nvidia.com/gpu": None}, "allocatable": {"nvidia.com/gpu": None}}


def test_status_holds_the_amount_as_a_quantity() -> None:
    assert json.loads(Gpus(2).status_patch())["status"]["allocatable"] == {"nvidia.com/gpu": "2"}


def test_taint_only_where_wanted() -> None:
    assert json.loads(Gpus(2).node_patch())["spec"]["taints"] == []
    assert json.loads(Gpus(2, taint=True).node_patch())["spec"]["taints"][0]["key"] == "nvidia.com/gpu"


@pytest.mark.parametrize("wrong", ["9", "9.", "sm_90", "9.0a"])
def test_compute_capability_must_be_major_minor(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"MAJOR\.MINOR"):
        Gpus(compute_capability=wrong)


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Gpus(-1)
