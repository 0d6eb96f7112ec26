"""The chain that decides Ready of an LLMService: small pure checks, the first that finds something speaks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from trtllm_operator.api.base import seconds
from trtllm_operator.api.llmservice import LLMServiceSpec
from trtllm_operator.decide.input import ServiceInput
from trtllm_operator.decide.podstate import Problem, problem
from trtllm_operator.decide.rollout import Rollout
from trtllm_operator.decide.serving_target import EngineState
from trtllm_operator.desired.autoscaler import LONGEST_STABILIZATION
from trtllm_operator.desired.deployment import Strategy
from trtllm_operator.desired.options import conflict, excess


@dataclass(frozen=True)
class View:
    """What the checks look at."""

    given: ServiceInput
    spec: LLMServiceSpec
    engine: EngineState
    refused: Problem | None
    """Why the pods can't be made as the spec says."""
    rollout: Rollout
    strategy: Strategy
    pods: Problem | None
    """The first pod that has a problem."""
    pending: tuple[str, ...]
    """Objects that are about to be applied."""

    @property
    def name(self) -> str:
        return str(self.given.service["metadata"]["name"])


# A Service's name is a DNS label that begins with a letter (RFC 1035).
_DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


def bad_name(name: str) -> str | None:
    """What is wrong with the name of the LLMService, after which its Service is named."""
    if _DNS_LABEL.fullmatch(name):
        return None
    return f"metadata.name {name!r} can't name a Service: use at most 63 lower-case letters, digits and '-', beginning with a letter"


def refusal(spec: LLMServiceSpec) -> str | None:
    """What the schema can't say, and the API server would refuse later or trtllm-serve would overrule; None where all is well."""
    window = spec.autoscaling.scale_down_stabilization if spec.autoscaling else None
    if window is not None and seconds(window) > LONGEST_STABILIZATION:
        return f"autoscaling.scaleDownStabilization {window} is more than a HorizontalPodAutoscaler takes: use at most 1h"
    options = spec.serve.options or {}
    return excess(options) or conflict(options)


def _conflict(view: View) -> Problem | None:
    if not view.given.foreign:
        return None
    taken = sorted(f"{obj['kind']} {obj['metadata']['name']}" for obj in view.given.foreign)
    return problem("NameConflict", f"{', '.join(taken)} exists already and belongs to somebody else; it is left alone", stalled=True)


def _refused(view: View) -> Problem | None:
    return view.refused


def _rejected(view: View) -> Problem | None:
    if view.rollout.rejected is None:
        return None
    return problem("PodRejected", f"Deployment {view.name} gets no pod: {view.rollout.rejected}", stalled=True)


def _deadline(view: View) -> Problem | None:
    if view.rollout.failed is None:
        return None
    why = f"; {view.pods.reason}: {view.pods.message}" if view.pods else ""
    return problem("ProgressDeadlineExceeded", f"Deployment {view.name}: {view.rollout.failed.rstrip('.')}{why}", stalled=True)


def _pods_stalled(view: View) -> Problem | None:
    return view.pods if view.pods is not None and view.pods.stalled and not view.rollout.complete else None


def _engine(view: View) -> Problem | None:
    return view.engine.problem


def _rolling_out(view: View) -> Problem | None:
    rollout = view.rollout
    if rollout.complete or (rollout.replaced and rollout.before):
        return None
    if view.pods is not None:
        return view.pods
    target = view.engine.target.name if view.engine.target else "?"
    if not rollout.seen:
        return Problem("RollingOut", f"Deployment {view.name} is being changed to LLMEngineBuild {target}.")
    in_place = view.strategy == "inPlace" and view.spec.rollout.strategy == "auto"
    how = " They are replaced in place, because no GPUs are free for one more." if in_place else ""
    counts = f"{rollout.updated} of {rollout.wanted} pods run LLMEngineBuild {target}, {rollout.available} pods are available"
    return Problem("RollingOut", f"{counts}.{how}")


def _unavailable(view: View) -> Problem | None:
    rollout = view.rollout
    if rollout.complete:
        return None
    if view.pods is not None:
        return view.pods
    return Problem(
        "ReplicasUnavailable", f"{rollout.available} of {rollout.wanted} pods are available; the others are starting or stopping."
    )


def _pending(view: View) -> Problem | None:
    return Problem("Progressing", f"Being applied: {', '.join(view.pending)}.") if view.pending else None


CHAIN: tuple[Callable[[View], Problem | None], ...] = (
    _conflict,
    _refused,
    _rejected,
    _deadline,
    _pods_stalled,
    _engine,
    _rolling_out,
    _unavailable,
    _pending,
)


def first_problem(view: View) -> Problem | None:
    """Why the service is not ready; None where it is."""
    return next((found for check in CHAIN if (found := check(view)) is not None), None)
