"""What users do. Each scenario is brought to its beginning without faults; faults come from the act on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.faults.case import SETTLE_SECONDS, Case
from tests.support.api import Document
from tests.support.samples import condition, engine, is_ready, service

ENGINE, SERVICE = "tiny", "chat"


@dataclass(frozen=True)
class Scenario:
    """`prepare` leads to `begun`, `act` to `reached`."""

    name: str
    prepare: Callable[[Case], object]
    begun: Callable[[Case], object]
    act: Callable[[Case], object]
    reached: Callable[[Case], object]
    silent: bool = False
    """Kubernetes does it all: the operator writes nothing. At most it reads, where what went is told before what it belonged to."""
    watches: tuple[Mapping[str, Any], ...] = ()
    """Rules of a plan that holds from the operator's start on: what its watches are like, whatever else goes wrong."""


def _of(case: Case, kind: str, name: str) -> Document | None:
    return case.witness.state().get((kind, name))


def _current(obj: Document | None) -> bool:
    """Ready, and for the newest spec."""
    return obj is not None and is_ready(obj) and obj["status"]["observedGeneration"] == obj["metadata"]["generation"]


def _builds(case: Case) -> dict[str, set[str]]:
    """Names of builds, with the kinds of their owners."""
    return {
        name: {owner["kind"] for owner in obj["metadata"].get("ownerReferences", ())}
        for (kind, name), obj in case.witness.state().items()
        if kind == "LLMEngineBuild"
    }


def _none(_: Case) -> bool:
    return True


def create(case: Case) -> None:
    """An engine and a service."""
    case.api.create(engine(ENGINE, case.namespace))
    case.api.create(service(SERVICE, case.namespace, serve={"options": {"print_iter_log": False}}))


def serving(case: Case) -> bool:
    """Both are ready."""
    return _current(_of(case, "LLMEngine", ENGINE)) and _current(_of(case, "LLMService", SERVICE))


def change(case: Case) -> None:
    """A build option: another engine is built, and the service rolls to it."""
    case.api.patch("LLMEngine", ENGINE, {"spec": {"build": {"maxBatchSize": 3}}}, case.namespace)


def rolled(case: Case) -> bool:
    """The new engine serves, and the old one is gone."""
    found = _of(case, "LLMEngine", ENGINE)
    if not serving(case) or found is None or found["metadata"]["generation"] < 2:
        return False
    build = found["status"]["build"]
    return set(_builds(case)) == {build} and (_of(case, "LLMService", SERVICE) or {})["status"]["current"]["build"] == build


def scale(case: Case) -> None:
    """Three pods instead of one."""
    case.api.patch("LLMService", SERVICE, {"spec": {"replicas": 3}}, case.namespace)


def scaled(case: Case) -> bool:
    """Three answer."""
    found = _of(case, "LLMService", SERVICE)
    return found is not None and _current(found) and found["status"].get("readyReplicas") == 3


def delete_engine(case: Case) -> None:
    """The engine alone."""
    case.api.delete("LLMEngine", ENGINE, case.namespace)


def served_without_engine(case: Case) -> bool:
    """The service goes on, and alone owns what it serves."""
    found = _of(case, "LLMService", SERVICE)
    return (
        _of(case, "LLMEngine", ENGINE) is None
        and list(_builds(case).values()) == [{"LLMService"}]
        and condition(found, "Available").get("status") == "True"
        and condition(found, "Ready").get("reason") == "EngineNotFound"
    )


def delete_service(case: Case) -> None:
    """The service alone."""
    case.api.delete("LLMService", SERVICE, case.namespace)


def engine_without_service(case: Case) -> bool:
    """Nothing of the service is left, and the engine is as it was."""
    kinds = {kind for kind, _ in case.witness.state()}
    gone = not kinds & {"LLMService", "Deployment", "Service", "ConfigMap", "PodDisruptionBudget", "NetworkPolicy"} - {"ConfigMap"}
    return gone and _current(_of(case, "LLMEngine", ENGINE)) and list(_builds(case).values()) == [{"LLMEngine"}]


def delete_both(case: Case) -> None:
    """The engine, then the service."""
    delete_engine(case)
    delete_service(case)


def nothing_left(case: Case) -> bool:
    """Only what Kubernetes itself puts into a namespace."""
    return {name for _, name in case.witness.state()} <= {"kube-root-ca.crt"}


def _untold(resource: str) -> dict[str, Any]:
    """The deletion is not told before everything is over, while all that goes with it is seen to go.

    At this moment a deletion can go wrong: the operator believes in what it no longer hears of, and would make again what that is missing.
    """
    return {"when": {"verb": "watch", "resource": resource}, "do": "hold", "type": "DELETED", "count": 99, "seconds": 2 * SETTLE_SECONDS}


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("create", _none, _none, create, serving),
        Scenario("change", create, serving, change, rolled),
        Scenario("scale", create, serving, scale, scaled),
        Scenario("delete-engine", create, serving, delete_engine, served_without_engine),
        Scenario("delete-service", create, serving, delete_service, engine_without_service, silent=True),
        Scenario("delete-engine-untold", create, serving, delete_engine, served_without_engine, watches=(_untold("llmengines"),)),
        Scenario("delete-service-untold", create, serving, delete_service, engine_without_service, watches=(_untold("llmservices"),)),
        Scenario("delete-both", create, serving, delete_both, nothing_left, watches=(_untold("llmservices"),)),
    )
}
DISTURBED = tuple(name for name, scenario in SCENARIOS.items() if not scenario.silent)
"""Those with requests that are sure to be made, so that faults meet some. Of the others it is checked that nothing is written."""
