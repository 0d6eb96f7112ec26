"""The decision for an LLMService: find what to serve, make the objects, say how it is. What serves is never touched for want of something better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from trtllm_operator.api.llmservice import LLMServiceSpec, ServedRevision
from trtllm_operator.api.versions import VersionRefused
from trtllm_operator.decide import conditions, rollout, serving_children, serving_status
from trtllm_operator.decide.conditions import Condition
from trtllm_operator.decide.decision import Decision, Event
from trtllm_operator.decide.input import Obj, ServiceInput
from trtllm_operator.decide.podstate import Problem, problem
from trtllm_operator.decide.serving_checks import View, bad_name, first_problem, refusal
from trtllm_operator.decide.serving_children import Pods
from trtllm_operator.decide.serving_pods import pods_problem
from trtllm_operator.decide.serving_replicas import replicas
from trtllm_operator.decide.serving_target import EngineState, Known, Target, engine_state, read_target
from trtllm_operator.desired.deployment import Serving, template, template_hash


def decide(given: ServiceInput) -> Decision:
    """One pass over one service."""
    if "deletionTimestamp" in given.service["metadata"]:
        return Decision()  # the garbage collector takes what it owns
    name = given.service["metadata"]["name"]
    deployment = serving_children.child(given, "Deployment", name)
    if (wrong := bad_name(name)) is not None:
        return _unreadable(given, deployment, wrong)
    try:
        spec = LLMServiceSpec.model_validate(given.service["spec"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["spec", *(str(part) for part in first["loc"])])
        return _unreadable(given, deployment, f"{where}: {first['msg']}")
    known = Known(_revision(given, "current"), _revision(given, "target"), deployment)
    engine = engine_state(given, spec, known)
    refused, pods, now = _pods(given, spec, engine, known)
    applies = serving_children.applies(given, spec, pods)
    view = View(
        given,
        spec,
        engine,
        refused,
        now,
        pods.strategy if pods else "surge",
        _trouble(given, engine, deployment, pods),
        tuple(serving_children.pending(applies, given)),
    )
    served = _served(given, engine, known, now)
    leave, gone = serving_children.release_builds(given, served) if now.complete else ([], [])
    status, events = _status(view, known, pods)
    return Decision(
        status=status,
        join=tuple(serving_children.keep_builds(given, served)),
        apply=tuple(applies),
        leave=tuple(leave),
        delete=(*serving_children.deletes(given, spec, pods, complete=now.complete), *gone),
        events=events,
    )


def _unreadable(given: ServiceInput, deployment: Obj | None, wrong: str) -> Decision:
    """A resource that can't be understood changes nothing; the status keeps what it said, but for what answers now."""
    now = rollout.observe(deployment, "", None)
    status = {**(given.service.get("status") or {}), "replicas": now.total, "readyReplicas": now.ready}
    kept = [
        Condition(c["type"], c["status"], c["reason"], c.get("message", ""))
        for c in status.get("conditions", ())
        if c["type"] not in ("Ready", "Reconciling", "Stalled", "Available")
    ]
    refused = problem("InvalidSpec", wrong)
    status, events = _finish(given, status, (*conditions.stalled(refused.reason, refused.message), serving_status.available(now), *kept))
    return Decision(status=status, events=events)


def _finish(given: ServiceInput, status: Mapping[str, Any], shown: tuple[Condition, ...]) -> tuple[dict[str, Any], tuple[Event, ...]]:
    """The status with its conditions, and the news in them."""
    observed = (given.service.get("status") or {}).get("conditions") or ()
    generation = int(given.service["metadata"].get("generation", 0))
    finished = conditions.finish(shown, observed, generation, given.now)
    return {**status, "observedGeneration": generation, "conditions": finished}, conditions.transitions(shown, observed)


def _revision(given: ServiceInput, field: str) -> ServedRevision | None:
    try:
        return ServedRevision.model_validate((given.service.get("status") or {}).get(field))
    except ValidationError:
        return None


def _pods(
    given: ServiceInput, spec: LLMServiceSpec, engine: EngineState, known: Known
) -> tuple[Problem | None, Pods | None, rollout.Rollout]:
    """How the pods are to be run, or why they can't be, and how far that is."""
    unknown = rollout.observe(known.deployment, "", spec.replicas)
    if (wrong := refusal(spec)) is not None:
        return Problem("InvalidSpec", f"{wrong}.", stalled=True), None, unknown
    if engine.target is None or engine.settings is None:
        return None, None, unknown
    serving = Serving(given.service, spec, engine.target.spec, engine.target.artifact, engine.settings)
    try:
        made = template(serving)
    except VersionRefused as error:
        return Problem(error.reason, str(error), stalled=True), None, unknown
    wanted, revision = replicas(given.service, spec, known.deployment), template_hash(made)
    before = known.current is not None and known.current.template_hash == revision
    now = rollout.observe(known.deployment, revision, wanted.send, before=before)
    resource = engine.settings.accelerator.resource_name
    how = rollout.strategy(spec.rollout.strategy, now, known.deployment, revision, given.pods, given.nodes, given.hints, resource)
    return None, Pods(serving, made, wanted, how), now


def _trouble(given: ServiceInput, engine: EngineState, deployment: Obj | None, pods: Pods | None) -> Problem | None:
    """What keeps the pods that there are from answering."""
    if deployment is None:
        return None
    revision = template_hash(pods.template if pods else deployment["spec"].get("template", {}))
    resource = engine.settings.accelerator.resource_name if engine.settings else "nvidia.com/gpu"
    return pods_problem(given.pods, revision, given.nodes, given.hints, resource)


def _served(given: ServiceInput, engine: EngineState, known: Known, now: rollout.Rollout) -> list[Target]:
    """Builds that must live: the target, and until it is rolled out, what answers."""
    current = None if now.complete or known.current is None else read_target(given.builds.get(known.current.build))
    return [target for target in (engine.target, current) if target is not None]


def _status(view: View, known: Known, pods: Pods | None) -> tuple[dict[str, Any], tuple[Event, ...]]:
    given, spec, engine, now = view.given, view.spec, view.engine, view.rollout
    found = first_problem(view)
    before = given.service.get("status") or {}
    model = pods.serving.model if pods else before.get("model") or spec.serve.served_model_name or spec.engine_ref.name
    target = serving_status.revision(engine.target, template_hash(pods.template)) if pods and engine.target else known.target
    current = target if pods and now.complete else known.current
    status = serving_status.fields(given, spec, model, now)
    for field, value in (("current", current), ("target", target)):
        if value is not None:
            status[field] = value.dump()
    shown = (*serving_status.summary(found, model, now, engine), *serving_status.details(given, spec, engine, now, found))
    return _finish(given, status, shown)
