"""Steps of a sequence, and what each does. A sequence is data: every part of it can be run, also what shrinking leaves of it."""

from __future__ import annotations

import contextlib
import signal
from typing import Any

from tests.faults.case import Case
from tests.support.api import ApiRefusedError, Document
from tests.support.faultproxy_plan import Plan
from tests.support.kubelet_standin import Failure
from tests.support.samples import engine, service
from tests.support.waiting import eventually
from trtllm_operator.desired import names
from trtllm_operator.kube.resources import BY_KIND

Step = tuple[Any, ...]
"""Name of a rule, and its arguments."""

ENGINES, SERVICES = ("tiny", "other"), ("chat", "talk")
ENGINE_SPECS: dict[str, Document] = {
    "plain": {},
    "batch": {"build": {"maxBatchSize": 3}},
    "unverified": {"verify": {"smoke": False}},
    "checkpoint": {"runtime": {"version": "1.2.1", "backend": "pytorch"}},
    "another model": {"source": {"huggingFace": {"repo": "tiny/other"}}},
}
ENGINE_STALLED: dict[str, Document] = {
    "old version": {"runtime": {"version": "0.1.0"}},
    "uneven": {"parallelism": {"tensor": 5}},
}
SERVICE_SPECS: dict[str, Document] = {
    "one": {"replicas": 1},
    "two": {"replicas": 2},
    "options": {"replicas": 1, "serve": {"options": {"print_iter_log": False}}},
    "other options": {"replicas": 1, "serve": {"options": {"print_iter_log": True}}},
    "batch": {"replicas": 1, "serve": {"maxBatchSize": 2}},
    "open": {"replicas": 1, "networkPolicy": {"enabled": False}},
    "other engine": {"replicas": 1, "engineRef": {"name": "other"}},
}
SERVICE_STALLED: dict[str, Document] = {"twice": {"replicas": 1, "serve": {"options": {"max_batch_size": 2}}}}
REFUSED: dict[str, Document] = {
    "LLMEngine": {"parallelism": {"tensor": 0}},
    "LLMService": {"replicas": 1, "serve": {"maxBatchSize": 0}},
}
CHILDREN = (
    "Deployment", "ConfigMap", "Service", "PodDisruptionBudget", "NetworkPolicy", "Job", "PersistentVolumeClaim", "LLMEngineBuild",
)  # fmt: skip
TOUCHES = ("edit", "delete", "unlabel", "disown")
STAGES = ("resolve", "fetch", "build", "publish", "verify")
WAITS = ("at once", "soon", "quiet")

_EDITS: dict[str, Document] = {
    "Deployment": {"spec": {"replicas": 4, "template": {"spec": {"terminationGracePeriodSeconds": 1}}}},
    "ConfigMap": {"metadata": {"labels": {names.COMPONENT: "somebody"}}},  # the rest of it is immutable
    "Service": {"spec": {"selector": {names.SERVICE: "somebody"}}},
    "PodDisruptionBudget": {"spec": {"maxUnavailable": 7}},
    "NetworkPolicy": {"spec": {"ingress": []}},
    "Job": {"metadata": {"labels": {names.COMPONENT: "somebody"}}},
    "PersistentVolumeClaim": {"metadata": {"labels": {names.COMPONENT: "somebody"}}},
    "LLMEngineBuild": {"metadata": {"labels": {names.COMPONENT: "somebody"}}},
}
_SOON_SECONDS, _QUIET_SECONDS, _LONGEST_SECONDS, _CHILD_SECONDS = 0.4, 0.7, 6.0, 2.0


def wanted(kind: str, name: str, namespace: str, variant: str) -> Document:
    """The resource that a variant stands for."""
    if kind == "LLMEngine":
        return engine(name, namespace, **(ENGINE_SPECS | ENGINE_STALLED)[variant])
    return service(name, namespace, **(SERVICE_SPECS | SERVICE_STALLED)[variant])


def stalls(kind: str, variant: str) -> bool:
    """Whether this is what the operator can't do."""
    return variant in (ENGINE_STALLED if kind == "LLMEngine" else SERVICE_STALLED)


class Hands:
    """Does steps to a case. What is not there (any more) is not touched.

    Attributes:
        mistreated: names of builds and claims that a step has deleted or taken from their owners; what that costs is not the operator's doing.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.mistreated: set[str] = set()

    def do(self, step: Step) -> None:
        """One step, and the wait that it ends with."""
        name, *arguments = step
        getattr(self, f"_{name}")(*arguments)

    # Users.

    def _put(self, kind: str, name: str, variant: str) -> None:
        self.put(wanted(kind, name, self.case.namespace, variant))

    def put(self, obj: Document) -> None:
        """Make a resource, or give it this spec and no other."""
        api, namespace, name = self.case.api, self.case.namespace, obj["metadata"]["name"]

        def written() -> bool:
            try:
                found = api.find(obj["kind"], name, namespace)
                if found is None:
                    api.create(obj)
                elif "deletionTimestamp" in found["metadata"]:
                    return False
                else:
                    api.request("PUT", BY_KIND[obj["kind"]].path(namespace, name), {**found, "spec": obj["spec"]})
            except ApiRefusedError as error:
                if error.status != 409:  # changed meanwhile, or made
                    raise
                return False
            return True

        eventually(written, what=f"{name} written")

    def _delete(self, kind: str, name: str, policy: str) -> None:
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy}
        with _absent():
            self.case.api.request("DELETE", BY_KIND[kind].path(self.case.namespace, name), body)

    def _replace(self, kind: str, name: str, variant: str) -> None:
        """Deleted, and made again at once (fault 38)."""
        self._delete(kind, name, "Background")
        self._put(kind, name, variant)

    def _refused(self, kind: str, name: str) -> None:
        """O7: what the schema forbids is refused, with the field's name."""
        try:
            self.case.api.patch(kind, name, {"spec": REFUSED[kind]}, self.case.namespace)
        except ApiRefusedError as error:
            assert error.status in (404, 422), error  # noqa: PT017 - which of the two depends on whether it is there
            return
        raise AssertionError(f"O7: {kind} {name} took {REFUSED[kind]}")

    # Somebody.

    def _touch(self, kind: str, how: str, which: int) -> None:
        case = self.case

        def there() -> list[str]:
            return sorted(name for (known, name), obj in case.witness.state().items() if known == kind and _ours(obj))

        with contextlib.suppress(AssertionError):
            eventually(there, what=kind, seconds=_CHILD_SECONDS)
        if not (found := there()):
            return
        name = found[which % len(found)]
        with _absent():
            self._touch_one(kind, how, name)

    def _touch_one(self, kind: str, how: str, name: str) -> None:
        api, namespace = self.case.api, self.case.namespace
        obj = api.get(kind, name, namespace)
        if not _ours(obj) or not obj["metadata"].get("ownerReferences"):
            return  # without both it would be somebody else's, and left alone
        if kind in ("PersistentVolumeClaim", "LLMEngineBuild") and how in ("delete", "disown"):
            if kind == "PersistentVolumeClaim" and _mounted(name, self.case):
                return  # it would hang until its pods go, which is what the operator does not do to what serves
            self.mistreated.add(name)
        match how:
            case "edit":
                api.patch(kind, name, _EDITS[kind], namespace)
            case "delete":
                api.delete(kind, name, namespace)
            case "unlabel":
                api.patch(kind, name, {"metadata": {"labels": {names.MANAGED_BY: None}}}, namespace)
            case _:
                api.patch(kind, name, {"metadata": {"ownerReferences": None}}, namespace)

    # Kubelets.

    def _fail(self, stage: str, reason: str) -> None:
        self.case.kubelet.failures[stage] = Failure(reason, "as the sequence wants it")

    def _hold(self, stage: str) -> None:
        self.case.kubelet.hold.add(stage)

    def _release(self, stage: str) -> None:
        self.case.kubelet.hold.discard(stage)

    def _delay(self, stage: str, seconds: float) -> None:
        self.case.kubelet.delay[stage] = seconds

    # The operator and its API server.

    def _inject(self, rules: list[dict[str, Any]]) -> None:
        self.case.arm(Plan(rules))

    def _restart(self, how: str, seconds: float) -> None:
        self.case.restart(signal.Signals[how], seconds)

    def _second(self, runs: bool) -> None:
        (self.case.start_second if runs else self.case.stop_second)()

    def _wait(self, how: str) -> None:
        case = self.case
        if how == "soon":
            case.look_on(_SOON_SECONDS)
        elif how == "quiet":
            with contextlib.suppress(AssertionError):
                case.wait(lambda: case.quiet_seconds() > _QUIET_SECONDS, what="quiet", seconds=_LONGEST_SECONDS)
        case.tend()


@contextlib.contextmanager
def _absent() -> Any:
    """What is gone, or has changed meanwhile, or can't be changed so, is left as it is."""
    try:
        yield
    except ApiRefusedError as error:
        if error.status not in (404, 409, 422):
            raise


def _ours(obj: Document) -> bool:
    return obj["metadata"].get("labels", {}).get(names.MANAGED_BY) == names.MANAGER and "deletionTimestamp" not in obj["metadata"]


def _mounted(claim: str, case: Case) -> bool:
    volumes = [volume for (kind, _), obj in case.witness.state().items() if kind == "Pod" for volume in obj["spec"].get("volumes", ())]
    return any((volume.get("persistentVolumeClaim") or {}).get("claimName") == claim for volume in volumes)
