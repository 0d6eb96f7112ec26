"""The floor: a client with the same library as the operator's, and nothing above it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Self, TypeVar

from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

T = TypeVar("T")
WORKERS = 8
"""As many as the operator has by default (WORKERS)."""

JSON = "application/json"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


class BareError(Exception):
    """The API server refused what the benchmark wanted, so no figure of it would mean anything."""


class Bare:
    """One connection pool. An asynchronous context manager."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig

    async def __aenter__(self) -> Self:
        configuration: Any = Configuration()
        await config.load_kube_config(config_file=str(self._kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
        configuration.client_session_kwargs = {"trust_env": False}
        self._api: Any = ApiClient(configuration=configuration)
        self._api.user_agent = "bench"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._api.close()

    async def request(self, method: str, path: str, body: Any = None, content_type: str = JSON) -> bytes:
        """One request; the answer's bytes. Raises BareError where it is refused."""
        method, url, headers, content, _ = await self._api.param_serialize(
            method, path, header_params={"Accept": JSON, "Content-Type": content_type}, body=body, auth_settings=["BearerToken"]
        )
        answer = await self._api.call_api(method, url, header_params=headers, body=content)
        data: bytes = await answer.read()
        if answer.status >= 400:
            raise BareError(f"{method} {path}: {answer.status} {data[:500].decode(errors='replace')}")
        return data

    async def json(self, method: str, path: str, body: Any = None, content_type: str = JSON) -> Any:
        """As `request`, parsed."""
        return json.loads(await self.request(method, path, body, content_type))


async def spread(work: Iterable[T], do: Callable[[T], Awaitable[object]], workers: int = WORKERS) -> None:
    """Do all of it, so many at the same time, in its order."""
    queue = iter(work)

    async def worker() -> None:
        for item in queue:
            await do(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(worker())
