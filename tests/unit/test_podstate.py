"""Why a stage's pod failed, where nobody but Kubernetes says anything about it."""

from __future__ import annotations

from typing import Any

import pytest

from trtllm_operator.decide.podstate import failure


def pod(*, limit: str | None = "24Mi", **ended: Any) -> dict[str, Any]:
    limits = {"memory": limit} if limit else {}
    return {
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "stage", "resources": {"limits": limits}}]},
        "status": {"phase": "Failed", "containerStatuses": [{"name": "stage", "state": {"terminated": ended}}]},
    }


@pytest.mark.parametrize("reason", ["OOMKilled", "Error"])
def test_the_kernel_kills_at_the_memory_limit(reason: str) -> None:
    """The runtime does not always know why it ended; once more would cost the hours of a build, and end the same way."""
    found = failure(pod(exitCode=137, reason=reason))
    assert found.reason == "HostOutOfMemory"
    assert "24Mi" in found.message


@pytest.mark.parametrize(
    "told",
    [
        pod(exitCode=137, reason="Error", limit=None),
        pod(exitCode=137, reason="ContainerStatusUnknown"),
        pod(exitCode=1, reason="Error"),
    ],
    ids=["no limit", "the node was lost", "another code"],
)
def test_other_ends_are_not_taken_for_it(told: dict[str, Any]) -> None:
    assert failure(told).reason == "InternalError"


def test_a_disruption_is_none() -> None:
    taken = pod(exitCode=137, reason="Error")
    taken["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": "m"}]
    assert failure(taken).reason == "Evicted"
