"""The objects of an LLMService: which are applied, which go, and which builds it keeps alive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trtllm_operator.api.llmservice import LLMServiceSpec
from trtllm_operator.decide.decision import Apply, Delete, Entry
from trtllm_operator.decide.input import Obj, ServiceInput
from trtllm_operator.decide.serving_replicas import Replicas
from trtllm_operator.decide.serving_target import Target
from trtllm_operator.desired import names
from trtllm_operator.desired.autoscaler import autoscaler
from trtllm_operator.desired.deployment import Serving, Strategy, deployment
from trtllm_operator.desired.disruptionbudget import disruption_budget
from trtllm_operator.desired.networkpolicy import network_policy
from trtllm_operator.desired.options import options_config_map
from trtllm_operator.desired.owners import controlled_by, owner_reference, owner_uids, without
from trtllm_operator.desired.service import service


@dataclass(frozen=True)
class Pods:
    """How the pods are to be run; absent where there is nothing to run, or the spec asks for what the version can't do."""

    serving: Serving
    template: Mapping[str, Any]
    replicas: Replicas
    strategy: Strategy


def child(given: ServiceInput, kind: str, name: str) -> Obj | None:
    """A child of ours by kind and name."""
    return next((obj for obj in mine(given) if obj["kind"] == kind and obj["metadata"]["name"] == name), None)


def mine(given: ServiceInput) -> list[Obj]:
    """Children that this very service controls."""
    return [obj for obj in given.children if controlled_by(obj, given.service["metadata"]["uid"])]


def applies(given: ServiceInput, spec: LLMServiceSpec, pods: Pods | None) -> list[Apply]:
    """What is applied, in order: first what pods need, and the policy that protects them.

    Where there are no pods to decide about, the Deployment and what belongs to it stay untouched.
    """
    namespace, name = given.service["metadata"]["namespace"], given.service["metadata"]["name"]
    owner = owner_reference(given.service, controller=True)
    wanted: list[Apply] = []
    if spec.network_policy.enabled:
        wanted.append(Apply(network_policy(namespace, name, spec.network_policy, owner)))
    if pods is not None:
        serving = pods.serving
        if (options := options_config_map(namespace, name, spec.serve, owner)) is not None:
            wanted.append(Apply(options))
        if pods.replicas.hand_over is not None:
            wanted.append(pods.replicas.hand_over)
        obj = deployment(serving, pods.template, replicas=pods.replicas.send, mode=pods.replicas.mode, strategy=pods.strategy)
        wanted.append(Apply(obj))
    wanted.append(Apply(service(namespace, name, spec.expose.service, owner), can_wait=True))
    wanted.append(Apply(disruption_budget(namespace, name, spec.availability, owner), can_wait=True))
    # Not before the number of pods is the autoscaler's: until then the two would pull at it.
    if pods is not None and spec.autoscaling is not None and pods.replicas.mode == "autoscaled":
        wanted.append(Apply(autoscaler(namespace, name, spec.autoscaling, owner), can_wait=True))
    taken = {(obj["kind"], obj["metadata"]["name"]) for obj in given.foreign}
    return [apply for apply in wanted if (apply.obj["kind"], apply.obj["metadata"]["name"]) not in taken]


def deletes(given: ServiceInput, spec: LLMServiceSpec, pods: Pods | None, *, complete: bool) -> list[Delete]:
    """What is no longer asked for. Options of an old revision go when no pod can need them any more."""
    name = given.service["metadata"]["name"]
    gone: list[Delete] = []
    if not spec.network_policy.enabled and (policy := child(given, "NetworkPolicy", name)) is not None:
        gone.append(_deletion(policy))
    if pods is not None and spec.autoscaling is None and (scaler := child(given, "HorizontalPodAutoscaler", name)) is not None:
        gone.append(_deletion(scaler))
    if pods is not None and complete:
        used = {_options_of(pods.template), *(_options_of(pod) for pod in given.pods)}
        prefix = names.options_name(name, "")
        stale = (o for o in mine(given) if o["kind"] == "ConfigMap" and o["metadata"]["name"].startswith(prefix))
        gone += [_deletion(obj) for obj in stale if obj["metadata"]["name"] not in used]
    return gone


def _options_of(pod: Mapping[str, Any]) -> str | None:
    volumes = (pod.get("spec") or {}).get("volumes", ())
    return next((volume["configMap"].get("name") for volume in volumes if volume.get("name") == "options" and "configMap" in volume), None)


def keep_builds(given: ServiceInput, served: Iterable[Target]) -> list[Entry]:
    """Our entry among the owners of what is served, so that the garbage collector leaves it."""
    owner = owner_reference(given.service, controller=False)
    builds = {target.name: target.build for target in served}
    return [Entry(build, owner) for _, build in sorted(builds.items())]


def release_builds(given: ServiceInput, served: Iterable[Target]) -> tuple[list[Entry], list[Delete]]:
    """Leave builds that nothing of ours serves. The last owner deletes; others only take their entry away."""
    uid = given.service["metadata"]["uid"]
    running = {(pod["metadata"].get("labels") or {}).get(names.BUILD) for pod in given.pods}
    keep = {target.name for target in served}
    leave: list[Entry] = []
    gone: list[Delete] = []
    for name, build in sorted(given.builds.items()):
        owners = owner_uids(build)
        if uid not in owners or name in keep or names.label_value(name) in running or "deletionTimestamp" in build["metadata"]:
            continue
        if without(owners, uid):
            leave.append(Entry(build, owner_reference(given.service, controller=False)))
        else:
            metadata = build["metadata"]
            gone.append(_deletion(build, metadata.get("resourceVersion")))
    return leave, gone


def pending(wanted: Iterable[Apply], given: ServiceInput) -> list[str]:
    """Objects that are not yet as this pass wants them, so far as our own applies go: nothing is ready before they are there."""
    known = {(obj["kind"], obj["metadata"]["name"]): obj for obj in mine(given)}
    late = []
    for apply in wanted:
        kind, name = apply.obj["kind"], apply.obj["metadata"]["name"]
        if apply.manager != names.MANAGER:
            continue
        observed = (known.get((kind, name)) or {}).get("metadata", {}).get("annotations") or {}
        if observed.get(names.DESIRED_HASH) != apply.obj["metadata"]["annotations"][names.DESIRED_HASH]:
            late.append(f"{kind} {name}")
    return late


def _deletion(obj: Obj, resource_version: str | None = None) -> Delete:
    metadata = obj["metadata"]
    return Delete(obj["apiVersion"], obj["kind"], metadata["namespace"], metadata["name"], metadata["uid"], resource_version)
