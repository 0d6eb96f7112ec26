"""Durations that a spec may hold and Kubernetes would refuse in what is made from it: they are brought within its bounds."""

from __future__ import annotations

import pytest

from tests.support.flow import engine_object
from tests.unit.test_injection_rendering import pod_templates, render
from tests.unit.test_injection_schema import refusals
from tests.unit.test_service_world import service_object

LONGEST = 2**31 - 1
"""Of most seconds in the API of pods and Deployments."""


@pytest.mark.parametrize("duration", ["0s", "0h0m0s", "1s", "999999999999999s", "99999999999999h"])
def test_any_duration_makes_valid_objects(duration: str) -> None:
    job = {"activeDeadline": duration}
    engine = engine_object(jobs={"fetch": job, "build": job, "verify": job}, accelerator={"computeCapability": "9.0"})
    service = service_object(
        rollout={"progressDeadline": duration}, availability={"startupTimeout": duration, "terminationGracePeriod": duration}
    )
    assert refusals(engine) == refusals(service) == []
    made = render(engine, service)
    templates = list(pod_templates(made))
    assert len(templates) == 6
    for obj, template in templates:
        spec = template["spec"]
        if obj["kind"] == "Job":
            assert 1 <= spec["activeDeadlineSeconds"] <= LONGEST
            continue
        [container] = spec["containers"]
        assert 1 <= container["startupProbe"]["failureThreshold"] <= LONGEST
        assert container["lifecycle"]["preStop"]["sleep"]["seconds"] <= spec["terminationGracePeriodSeconds"] <= LONGEST
        assert obj["spec"]["minReadySeconds"] < obj["spec"]["progressDeadlineSeconds"] <= LONGEST
