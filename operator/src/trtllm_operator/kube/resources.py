"""The kinds that the operator touches, and their paths in the API. Nothing else makes paths."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from trtllm_operator.api import llmengine, llmenginebuild, llmservice
from trtllm_operator.api.common import API_VERSION
from trtllm_operator.desired.names import MANAGED_BY, MANAGER

OWN_SELECTOR = f"{MANAGED_BY}={MANAGER}"
"""What we made carries this label, so that watches cost nothing for what others made."""


@dataclass(frozen=True)
class Resource:
    """One kind as the API server serves it."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True
    selector: str | None = None
    """Label selector of lists and watches."""

    @property
    def group(self) -> str:
        """API group; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Path of an object, or of the collection; without a namespace, of the collection in all namespaces."""
        parts = [f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"]
        if namespace and self.namespaced:
            parts.append(f"namespaces/{quote(namespace, safe='')}")
        parts.append(self.plural)
        if name is not None:
            parts.append(quote(name, safe=""))
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)


ROOTS = (
    Resource(API_VERSION, llmengine.Kind.kind, llmengine.Kind.plural),
    Resource(API_VERSION, llmenginebuild.Kind.kind, llmenginebuild.Kind.plural),
    Resource(API_VERSION, llmservice.Kind.kind, llmservice.Kind.plural),
)
"""Kinds with a reconciler."""

CHILDREN = tuple(
    Resource(api_version, kind, plural, selector=OWN_SELECTOR)
    for api_version, kind, plural in (
        ("batch/v1", "Job", "jobs"),
        ("v1", "Pod", "pods"),
        ("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
        ("apps/v1", "Deployment", "deployments"),
        ("v1", "Service", "services"),
        ("v1", "ConfigMap", "configmaps"),
        ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
        ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
        ("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    )
)
"""Kinds that the operator makes, and the pods that come from them."""

NODE = Resource("v1", "Node", "nodes", namespaced=False)
LEASE = Resource("coordination.k8s.io/v1", "Lease", "leases")
EVENT = Resource("events.k8s.io/v1", "Event", "events")
CORE_EVENT = Resource("v1", "Event", "events")
"""The same objects in the older API group, which alone can select by the uid of what an event is about."""

POD = next(resource for resource in CHILDREN if resource.kind == "Pod")

BY_KIND = {resource.kind: resource for resource in (*ROOTS, *CHILDREN, NODE)}


def resource_of(api_version: str, kind: str) -> Resource:
    """The resource of an object that a decision names.

    Raises:
        ValueError: the operator does not touch this kind, so it has no rights on it either.
    """
    found = BY_KIND.get(kind)
    if found is None or found.api_version != api_version:
        raise ValueError(f"{api_version} {kind} is not among the kinds that the operator touches; add it to kube.resources")
    return found
