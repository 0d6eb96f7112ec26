"""What tools ask of a resource, whatever state it is in: that what a user applied stays as it was, and that `kubectl get` has something to show."""

from __future__ import annotations

import copy
from typing import Any

from tests.support.api import APPLY, Api, Document
from trtllm_operator.kube.resources import BY_KIND

ARGOCD = "argocd-controller"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"

# What an apply may change without changing the object.
_BOOKKEEPING = ("managedFields", "resourceVersion")


def drift(api: Api, manifest: Document) -> list[str]:
    """What a server-side apply of the manifest by Argo CD would change. Nothing is changed: it is a dry run."""
    path = BY_KIND[manifest["kind"]].path(manifest["metadata"]["namespace"], manifest["metadata"]["name"])
    for _ in range(5):
        live = api.request("GET", path)
        would = api.request("PATCH", path, manifest, content_type=APPLY, fieldManager=ARGOCD, force="true", dryRun="All")
        if api.request("GET", path)["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]:
            lost = [f"lost: {line}" for line in _missing(manifest, live, "")]
            return [*differences(_plain(live), _plain(would), ""), *lost]
    raise AssertionError(f"{path} changes all the time")


def _plain(obj: Document) -> Document:
    plain = copy.deepcopy(obj)
    for field in _BOOKKEEPING:
        plain["metadata"].pop(field, None)
    return plain


def differences(before: Any, after: Any, path: str) -> list[str]:
    """Each field that differs, with both values."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted(before.keys() | after.keys())
        return [line for key in keys for line in differences(before.get(key), after.get(key), f"{path}.{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [line for number, pair in enumerate(zip(before, after, strict=True)) for line in differences(*pair, f"{path}[{number}]")]
    return [] if before == after else [f"{path}: {before!r} -> {after!r}"]


def _missing(wanted: Any, live: Any, path: str) -> list[str]:
    """What the manifest says and the live object does not say in the same words: quantities and durations are text."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        return [line for key, value in wanted.items() for line in _missing(value, live.get(key), f"{path}.{key}")]
    if isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        return [line for number, pair in enumerate(zip(wanted, live, strict=True)) for line in _missing(*pair, f"{path}[{number}]")]
    return [] if wanted == live and type(wanted) is type(live) else [f"{path}: {wanted!r} is {live!r}"]


def applied_twice(api: Api, manifest: Document) -> list[str]:
    """Apply the manifest as Argo CD; the second time must not even make a new version of the object."""
    first, second = api.apply(manifest, ARGOCD), api.apply(manifest, ARGOCD)
    versions = [obj["metadata"]["resourceVersion"] for obj in (first, second)]
    return [] if versions[0] == versions[1] else differences(first, second, "") or ["a new version without a difference"]


def columns(api: Api, kind: str, name: str, namespace: str) -> dict[str, Any]:
    """What `kubectl get --output=wide` shows: column -> cell. None is shown as nothing."""
    table = api.request("GET", BY_KIND[kind].path(namespace, name), accept=TABLE)
    headings = [column["name"] for column in table["columnDefinitions"]]
    return dict(zip(headings, table["rows"][0]["cells"], strict=True))
