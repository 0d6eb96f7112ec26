"""Writes: server-side apply, status, deletion. Everything forced, because what we decide, we own.

Sources: https://kubernetes.io/docs/reference/using-api/server-side-apply/ and measurements on a real API server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trtllm_operator.desired.names import MANAGER
from trtllm_operator.kube.client import Client
from trtllm_operator.kube.lists import strip
from trtllm_operator.kube.resources import resource_of

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"

# No object has this resourceVersion any more. An apply with it creates an object that is not there and is refused with 409 where one
# is, so that an object of somebody else, which our watches don't show, is never taken over by accident.
_NEVER = "1"


async def apply(client: Client, obj: Mapping[str, Any], *, manager: str = MANAGER, create: bool = False) -> dict[str, Any]:
    """Server-side apply of an object by one field manager, with `create` only where it does not exist. Returns it as it is now.

    Raises:
        ConflictError: `create`, and it exists; or `metadata.uid` is that of a deleted object.
        ApiError: as `Client.json`.
    """
    metadata = dict(obj["metadata"])
    if create:
        metadata["resourceVersion"] = _NEVER
    resource = resource_of(obj["apiVersion"], obj["kind"])
    answer = await client.json(
        "PATCH",
        resource.path(metadata.get("namespace"), metadata["name"]),
        query={"fieldManager": manager, "force": "true"},
        body={**obj, "metadata": metadata},
        content_type=_APPLY,
    )
    return strip(answer)


async def apply_status(client: Client, root: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
    """Apply the whole status of a resource, as long as it is at the version of `root`.

    The uid alone does not keep it from a successor of the same name: in status writes of custom resources the API server does not look
    at it (measured).

    Raises:
        NotFoundError: it is gone. ConflictError, InvalidError: it has changed, or is another one now. ApiError: as `Client.json`.
    """
    metadata = root["metadata"]
    same = {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion") if key in metadata}
    resource = resource_of(root["apiVersion"], root["kind"])
    answer = await client.json(
        "PATCH",
        resource.path(metadata.get("namespace"), metadata["name"], "status"),
        query={"fieldManager": MANAGER, "force": "true"},
        body={
            "apiVersion": root["apiVersion"],
            "kind": root["kind"],
            "metadata": same,
            "status": status,
        },
        content_type=_APPLY,
    )
    return strip(answer)


async def replace_conditions(client: Client, root: Mapping[str, Any], conditions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Set the conditions of a resource to these, whoever owns others.

    An apply leaves alone what another manager owns, such as a condition that somebody wrote by hand.

    Raises:
        ConflictError: it has changed since `root`. ApiError: as `Client.json`.
    """
    metadata = root["metadata"]
    resource = resource_of(root["apiVersion"], root["kind"])
    answer = await client.json(
        "PATCH",
        resource.path(metadata.get("namespace"), metadata["name"], "status"),
        query={"fieldManager": MANAGER},
        body={"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": {"conditions": list(conditions)}},
        content_type=_MERGE,
    )
    return strip(answer)


async def patch_metadata(client: Client, obj: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Set parts of an object's metadata and leave the rest alone: for objects whose spec can't be applied again.

    Raises:
        ConflictError: it has changed since `obj`. NotFoundError: it is gone. ApiError: as `Client.json`.
    """
    known = obj["metadata"]
    resource = resource_of(obj["apiVersion"], obj["kind"])
    answer = await client.json(
        "PATCH",
        resource.path(known.get("namespace"), known["name"]),
        query={"fieldManager": MANAGER},
        body={"metadata": {**metadata, "uid": known["uid"], "resourceVersion": known["resourceVersion"]}},
        content_type=_MERGE,
    )
    return strip(answer)


async def delete(
    client: Client, api_version: str, kind: str, namespace: str, name: str, *, uid: str, resource_version: str | None = None
) -> dict[str, Any] | None:
    """Delete exactly this object. Returns it where it lives on for a while (finalizers), else None.

    Raises:
        NotFoundError: it is gone already. ConflictError: it is another one, or has changed. ApiError: as `Client.json`.
    """
    resource = resource_of(api_version, kind)
    preconditions = {"uid": uid}
    if resource_version is not None:
        preconditions["resourceVersion"] = resource_version
    answer = await client.json(
        "DELETE",
        resource.path(namespace, name),
        body={"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions, "propagationPolicy": "Background"},
    )
    if isinstance(answer, dict) and answer.get("kind") == kind:
        return strip(answer)
    return None
