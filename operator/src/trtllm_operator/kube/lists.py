"""Paged lists. Objects leave here without managedFields, which are half their bytes and nobody's concern."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trtllm_operator.kube.client import Client
from trtllm_operator.kube.errors import GoneError
from trtllm_operator.kube.resources import Resource

PAGE = 500
_RESTARTS = 3


@dataclass(frozen=True)
class Listing:
    """All objects of one kind at one moment."""

    resource_version: str
    items: list[dict[str, Any]] = field(default_factory=list)


def strip(obj: dict[str, Any]) -> dict[str, Any]:
    """The object without managedFields. The given one is not changed."""
    metadata = obj.get("metadata")
    if isinstance(metadata, dict) and "managedFields" in metadata:
        metadata = metadata.copy()
        del metadata["managedFields"]
        return {**obj, "metadata": metadata}
    return obj


async def list_all(client: Client, resource: Resource, namespace: str | None = None) -> Listing:
    """List a kind, in one namespace or all, as of one resourceVersion.

    Raises:
        ApiError: as `Client.json`. `NotFoundError`: the CRD is not installed.
    """
    for _ in range(_RESTARTS):
        try:
            return await _pages(client, resource, namespace)
        except GoneError:
            continue  # the continue token grew too old between two pages
    return await _pages(client, resource, namespace)


async def _pages(client: Client, resource: Resource, namespace: str | None) -> Listing:
    query = {"limit": str(PAGE)}
    if resource.selector:
        query["labelSelector"] = resource.selector
    items: list[dict[str, Any]] = []
    while True:
        page = await client.json("GET", resource.path(namespace), query=query)
        # Items of built-in lists do not say what they are.
        items += ({"apiVersion": resource.api_version, "kind": resource.kind, **strip(item)} for item in page.get("items") or ())
        metadata = page["metadata"]
        if not (token := metadata.get("continue")):
            return Listing(str(metadata.get("resourceVersion", "")), items)
        query["continue"] = token


async def get(client: Client, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
    """Read one object. Raises `NotFoundError` where there is none."""
    return strip(await client.json("GET", resource.path(namespace, name)))
