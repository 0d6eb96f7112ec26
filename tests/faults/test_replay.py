"""One run of one scenario under a plan that somebody gives: `make test-faults SCENARIO=create PLAN='[...]'`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.case import Ground
from tests.faults.run import Reference, report, run_all, verdict
from tests.support.faultproxy_plan import Plan


@pytest.mark.skipif(not os.environ.get("FAULTS_PLAN"), reason="no plan is given: FAULTS_SCENARIO and FAULTS_PLAN (JSON, or a file with it)")
def test_replay(ground: Ground, reference: Callable[[str], Reference]) -> None:
    given = os.environ["FAULTS_PLAN"]
    rules = json.loads(given) if given.lstrip().startswith("[") else json.loads(Path(given).read_text())
    times = int(os.environ.get("FAULTS_TIMES", "1"))
    known = reference(os.environ.get("FAULTS_SCENARIO", "create"))
    runs = run_all(ground, [(known, Plan(rules)) for _ in range(times)])
    report("replay", runs)
    verdict(runs)
