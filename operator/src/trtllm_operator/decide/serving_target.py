"""What an LLMService should serve: the verified artifact of its LLMEngine, or, while there is none, what it serves already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from trtllm_operator.api.common import Artifact
from trtllm_operator.api.llmengine import LLMEngineSpec
from trtllm_operator.api.llmenginebuild import LLMEngineBuildSpec
from trtllm_operator.api.llmservice import LLMServiceSpec, ServedRevision
from trtllm_operator.decide.conditions import Condition
from trtllm_operator.decide.input import Obj, ServiceInput
from trtllm_operator.decide.podstate import Problem, problem
from trtllm_operator.desired import names
from trtllm_operator.desired.deployment import EngineSettings


@dataclass(frozen=True)
class Target:
    """An artifact that may be served: published (its build says so) and verified (its engine says or said so)."""

    build: Obj
    spec: LLMEngineBuildSpec
    artifact: Artifact

    @property
    def name(self) -> str:
        return self.artifact.build


@dataclass(frozen=True)
class EngineState:
    """What the LLMEngine means for the service."""

    condition: Condition
    """EngineReady."""
    target: Target | None = None
    settings: EngineSettings | None = None
    problem: Problem | None = None
    """Why the target is not what the spec asks for, or why there is none."""


@dataclass(frozen=True)
class Known:
    """What earlier passes left: the status, and the Deployment with its annotations."""

    current: ServedRevision | None
    target: ServedRevision | None
    deployment: Obj | None


def engine_state(given: ServiceInput, spec: LLMServiceSpec, known: Known) -> EngineState:
    """The artifact to serve and what to say about the LLMEngine."""
    name = spec.engine_ref.name
    condition, found = _of_engine(given, name)
    if isinstance(found, Target):
        return EngineState(condition, found, _settings(given, spec, found, known))
    target = next(_served(given, known), None)
    if target is None:
        return EngineState(condition, problem=found)
    goes_on = f"LLMEngineBuild {target.name} goes on serving"
    settings = _recorded(known) or _settings(given, spec, target, known)
    return EngineState(condition, target, settings, Problem(found.reason, f"{found.message} {goes_on}.", found.stalled))


def read_target(build: Obj | None) -> Target | None:
    """A build that is published; None where it is missing, not done, on its way out, or can't be read."""
    if build is None or "deletionTimestamp" in build["metadata"]:
        return None
    try:
        artifact = Artifact.model_validate((build.get("status") or {}).get("artifact"))
        return Target(build, LLMEngineBuildSpec.model_validate(build["spec"]), artifact)
    except ValidationError:
        return None


def _of_engine(given: ServiceInput, name: str) -> tuple[Condition, Target | Problem]:
    def no(status: str, found: Problem) -> tuple[Condition, Problem]:
        return Condition("EngineReady", "False" if status == "False" else "Unknown", found.reason, found.message), found

    engine = given.engine
    if engine is None:
        return no("False", problem("EngineNotFound", f"LLMEngine {name} does not exist"))
    status = engine.get("status") or {}
    if not status.get("artifact"):
        return no(*_unready(engine, name))
    try:
        artifact = Artifact.model_validate(status["artifact"])
    except ValidationError:
        return no("Unknown", problem("WaitingForEngine", f"the artifact in the status of LLMEngine {name} can't be read"))
    target = read_target(given.builds.get(artifact.build))
    if target is None:
        return no("Unknown", problem("WaitingForBuild", f"LLMEngineBuild {artifact.build} of LLMEngine {name} is not there or not done"))
    if target.artifact.digest != artifact.digest:
        what = f"LLMEngineBuild {artifact.build} was made again and LLMEngine {name} has not verified it yet"
        return no("Unknown", problem("WaitingForEngine", what))
    return Condition("EngineReady", "True", "EngineReady", f"LLMEngine {name} has the verified artifact {artifact.build}"), target


def _unready(engine: Obj, name: str) -> tuple[str, Problem]:
    """The engine's progress stays out of the message: it would make a status write of each step of a download."""
    generation = engine["metadata"].get("generation", 0)
    observed = {c.get("type"): c for c in (engine.get("status") or {}).get("conditions", ())}
    stalled, ready = observed.get("Stalled", {}), observed.get("Ready", {})
    if stalled.get("status") == "True" and stalled.get("observedGeneration", 0) >= generation:
        what = f"LLMEngine {name} has no artifact: {stalled.get('reason')}: {stalled.get('message', '')}"
        return "False", problem("EngineFailed", what, stalled=True)
    now = f" ({ready['reason']})" if ready.get("reason") else ""
    return "Unknown", problem("WaitingForEngine", f"LLMEngine {name} has no verified artifact yet{now}")


def _served(given: ServiceInput, known: Known) -> Iterator[Target]:
    """What was chosen before, newest first. Each was verified when it was chosen; a digest that has changed since is not."""
    for revision in (known.target, known.current):
        target = read_target(given.builds.get(revision.build)) if revision is not None else None
        if revision is not None and target is not None and revision.digest in (None, target.artifact.digest):
            yield target
    # A status that was lost is no reason to forget what runs.
    labels, annotations = _marks(known)
    target = read_target(given.builds.get(labels.get(names.BUILD, "")))
    if target is not None and annotations.get(names.ARTIFACT_DIGEST) == target.artifact.digest:
        yield target


def _marks(known: Known) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Labels and annotations of the pods that the Deployment asks for."""
    template: Any = ((known.deployment or {}).get("spec") or {}).get("template") or {}
    metadata = template.get("metadata") or {}
    return metadata.get("labels") or {}, metadata.get("annotations") or {}


def _recorded(known: Known) -> EngineSettings | None:
    text = ((known.deployment or {}).get("metadata", {}).get("annotations") or {}).get(names.ENGINE_SETTINGS)
    try:
        return EngineSettings.model_validate_json(text) if isinstance(text, str) else None
    except ValidationError:
        return None


def _settings(given: ServiceInput, spec: LLMServiceSpec, target: Target, known: Known) -> EngineSettings:
    """From the engine, unless its spec speaks of a build that is still to come: then as recorded for the build that serves."""
    name, engine = spec.engine_ref.name, given.engine
    recorded = _recorded(known)
    same_build = _marks(known)[0].get(names.BUILD) == names.label_value(target.name)
    if recorded is not None and same_build and recorded.name == name and not (engine and _settled(engine, target)):
        return recorded
    if engine is None:
        return recorded or EngineSettings(name=name)
    try:
        return EngineSettings.of(name, LLMEngineSpec.model_validate(engine["spec"]))
    except ValidationError:
        return recorded or EngineSettings(name=name)


def _settled(engine: Obj, target: Target) -> bool:
    status = engine.get("status") or {}
    return status.get("build") == target.name and status.get("observedGeneration", 0) >= engine["metadata"].get("generation", 0)
