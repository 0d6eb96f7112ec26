"""One watch stream of one kind. https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from trtllm_operator.kube import documents
from trtllm_operator.kube.client import Client
from trtllm_operator.kube.errors import GoneError, TransientError, UnreachableError
from trtllm_operator.kube.lists import strip
from trtllm_operator.kube.resources import Resource

SILENT_SECONDS = 150.0
"""The API server sends a bookmark about once a minute; without a byte for so long, nobody is there any more."""


async def watch(
    client: Client, resource: Resource, namespace: str | None, version: str, seconds: int, opened: Callable[[], None]
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Changes after `version`: ADDED, MODIFIED or DELETED and the object, or BOOKMARK. Ends after about so many seconds.

    `opened` is called once, when the API server has taken the watch; what comes first may take a minute.

    Raises:
        GoneError: the API server does not know any more what came after `version`; a list is needed.
        ApiError: as `Client.json`, also where the stream breaks off or is no watch.
    """
    query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version, "timeoutSeconds": str(seconds)}
    if resource.selector:
        query["labelSelector"] = resource.selector
    path = resource.path(namespace)
    async for line in client.lines(path, query=query, silent_seconds=SILENT_SECONDS, opened=opened):
        try:
            event = documents.loads(line)
            kind, obj = event["type"], event["object"]
        except (ValueError, KeyError, TypeError) as error:
            raise UnreachableError(f"watch of {path}: a line is no event") from error
        if kind == "ERROR":
            code, said = obj.get("code"), str(obj.get("message", ""))[:500]
            raise (GoneError if code == 410 else TransientError)(f"watch of {path}: {code}: {said}", status=int(code or 0))
        yield kind, strip(obj)
