"""The status of an LLMService: its conditions, and what answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtllm_operator.api.llmservice import LLMServiceSpec, ServedRevision
from trtllm_operator.decide import conditions
from trtllm_operator.decide.conditions import Condition
from trtllm_operator.decide.input import Obj, ServiceInput
from trtllm_operator.decide.podstate import Problem, problem
from trtllm_operator.decide.rollout import Rollout
from trtllm_operator.decide.serving_target import EngineState, Target
from trtllm_operator.desired import names
from trtllm_operator.desired.service import url


def summary(found: Problem | None, model: str | None, rollout: Rollout, state: EngineState) -> tuple[Condition, ...]:
    """Ready, with Reconciling or Stalled where they are true."""
    if found is not None:
        return (conditions.stalled if found.stalled else conditions.progressing)(found.reason, found.message)
    build = state.target.name if state.target else "?"
    if rollout.wanted == 0:
        return conditions.ready(f"scaled to zero: no replicas are wanted; raise spec.replicas to serve {model} ({build})")
    return conditions.ready(f"{model} is served from LLMEngineBuild {build}")


def details(
    given: ServiceInput, spec: LLMServiceSpec, state: EngineState, rollout: Rollout, found: Problem | None
) -> tuple[Condition, ...]:
    """The conditions beside Ready. They are positive, and each is always there."""
    return (state.condition, available(rollout), _rolled_out(rollout, state, found), _scaling(given, spec), _exposed(given, spec))


def available(rollout: Rollout) -> Condition:
    """Does anything answer now, of whatever revision?"""
    if rollout.ready:
        return Condition("Available", "True", "Available", f"{rollout.ready} of {rollout.total} pods answer")
    if rollout.seen and rollout.wanted == 0:
        return Condition("Available", "False", "ScaledToZero", "no replicas are wanted")
    return Condition("Available", "False", "Unavailable", "no pod answers")


def _rolled_out(rollout: Rollout, state: EngineState, found: Problem | None) -> Condition:
    """True stays true while a pod is replaced or added later; that is what Available and Ready speak of."""
    if state.target is None:
        return Condition("RolledOut", "Unknown", state.condition.reason, "there is nothing to roll out yet")
    if rollout.complete or (rollout.replaced and rollout.before):
        return Condition("RolledOut", "True", "RolledOut", f"all pods run LLMEngineBuild {state.target.name}")
    if found is not None and found.stalled:
        return Condition("RolledOut", "False", found.reason, found.message)
    return Condition("RolledOut", "Unknown", "RollingOut", f"pods are changed to LLMEngineBuild {state.target.name}")


def _scaling(given: ServiceInput, spec: LLMServiceSpec) -> Condition:
    if spec.autoscaling is None:
        return Condition("ScalingActive", "False", "ScalingFixed", "replicas are fixed; no autoscaler is asked for")
    name = given.service["metadata"]["name"]
    scaler = _child(given, "HorizontalPodAutoscaler", name)
    said: Mapping[str, Any] = next(
        (c for c in ((scaler or {}).get("status") or {}).get("conditions", ()) if c.get("type") == "ScalingActive"), {}
    )
    if said.get("status") == "True":
        return Condition("ScalingActive", "True", "ScalingActive", f"HorizontalPodAutoscaler {name} scales the Deployment")
    if said.get("status") == "False":
        why = problem("ScalingInactive", f"HorizontalPodAutoscaler {name}: {said.get('reason')}: {said.get('message', '')}")
        return Condition("ScalingActive", "False", why.reason, why.message)
    return Condition("ScalingActive", "Unknown", "ScalingUnknown", f"HorizontalPodAutoscaler {name} has not reported yet")


def _exposed(given: ServiceInput, spec: LLMServiceSpec) -> Condition:
    metadata = given.service["metadata"]
    found = _child(given, "Service", metadata["name"])
    wanted = spec.expose.service
    ports = [port.get("port") for port in ((found or {}).get("spec") or {}).get("ports", ())]
    if found is None or ports != [wanted.port] or found["spec"].get("type") != wanted.type:
        return Condition("Exposed", "Unknown", "NotExposed", f"Service {metadata['name']} is not there yet, or not yet as asked for")
    return Condition("Exposed", "True", "Exposed", f"Service {metadata['name']} listens on port {wanted.port} ({wanted.type})")


def _child(given: ServiceInput, kind: str, name: str) -> Obj | None:
    return next((obj for obj in given.children if obj["kind"] == kind and obj["metadata"]["name"] == name), None)


def revision(target: Target, template_hash: str) -> ServedRevision:
    """What a target is, for the status."""
    return ServedRevision(
        engine_key=target.artifact.key,
        build=target.name,
        revision=target.spec.source.revision,
        digest=target.artifact.digest or None,
        template_hash=template_hash,
    )


def fields(given: ServiceInput, spec: LLMServiceSpec, model: str, rollout: Rollout) -> dict[str, Any]:
    """What people and the scale subresource read."""
    metadata = given.service["metadata"]
    selector = sorted(names.service_selector(metadata["name"]).items())
    return {
        "url": url(metadata["namespace"], metadata["name"], spec.expose.service.port),
        "model": model,
        "replicas": rollout.total,
        "readyReplicas": rollout.ready,
        "selector": ",".join(f"{key}={value}" for key, value in selector),
    }
