"""Ten services while a thousand others fail all the time: an admission policy refuses their Deployments."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from tests.bench.bare import MERGE, Bare
from tests.bench.goals import Figure, percentile
from tests.bench.load import reaction
from tests.bench.population import Population, create
from tests.bench.rig import Rig
from tests.support.operator_process import OperatorProcess
from tests.support.waiting import eventually

LINE = "neighbour"
GOAL = 2.0
_EACH = 10
_PER_SECOND = 5.0
_LABEL = "bench.example/refused"
_POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
_BINDINGS = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
_NAME = "bench-refuses-deployments"
_POLICY: dict[str, Any] = {
    "metadata": {"name": _NAME},
    "spec": {
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {_LABEL: "true"}},
            "resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}],
        },
        "validations": [{"expression": "false", "message": "refused by the benchmark"}],
    },
}
_BINDING: dict[str, Any] = {"metadata": {"name": _NAME}, "spec": {"policyName": _NAME, "validationActions": ["Deny"]}}


async def _refuse(bare: Bare, population: Population) -> None:
    for group in population.groups:
        await bare.request("PATCH", f"/api/v1/namespaces/{group.namespace}", {"metadata": {"labels": {_LABEL: "true"}}}, MERGE)
    await bare.request("POST", _POLICIES, _POLICY)
    await bare.request("POST", _BINDINGS, _BINDING)


async def _allow(bare: Bare) -> None:
    for path in (_BINDINGS, _POLICIES):
        await bare.request("DELETE", f"{path}/{_NAME}", {"kind": "DeleteOptions", "apiVersion": "v1"})


def _rounds(rig: Rig, population: Population, repetitions: int) -> list[float]:
    """p99 of ten services, so many times."""
    items = population.names
    found = []
    for number in range(repetitions):
        seen = reaction(rig, population, _PER_SECOND, items[number * _EACH : (number + 1) * _EACH])
        found.append(percentile(seen.reacted, 99))
    return found


def _errors(operator: OperatorProcess) -> float:
    return sum(value for name, value in operator.metrics().items() if name.startswith("trtllm_operator_reconcile_errors_total"))


def _not_ready(operator: OperatorProcess) -> float:
    return operator.metrics().get("trtllm_operator_resources{kind=LLMService,ready=False}", 0)


def lines(rig: Rig, *, failing: int, repetitions: int) -> Iterator[Figure]:
    """The ratio of both p99, pair by pair."""
    first, second = (rig.prepare(_EACH * repetitions, letter=letter) for letter in "ac")
    others = rig.prepare(failing)
    with rig.operator():
        alone = _rounds(rig, first, repetitions)
    rig.run(lambda bare: _refuse(bare, others))
    with rig.operator() as operator:
        rig.run(lambda bare: create(bare, others))
        eventually(lambda: _not_ready(operator) >= failing, what="all others fail", seconds=300, every=0.5)
        errors, began = _errors(operator), time.monotonic()
        crowded = _rounds(rig, second, repetitions)
        rate = (_errors(operator) - errors) / (time.monotonic() - began)
    rig.run(_allow)
    rig.clear(first, second, others)
    values = tuple(crowd / quiet for crowd, quiet in zip(crowded, alone, strict=True))
    details = {"alone_p99_seconds": alone, "crowded_p99_seconds": crowded, "failures_per_second": rate}
    yield Figure(LINE, f"p99 of {_EACH} resources while {failing} others fail / alone", values, goal=GOAL, details=details)
