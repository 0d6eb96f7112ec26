"""Requests to the API server in plain JSON. The transport is the official client's low level; only this file knows it."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from trtllm_operator.kube import documents
from trtllm_operator.kube.errors import NotLeadingError, UnreachableError, classify

Observer = Callable[[str, str, float], None]
"""Called once for each request: verb, status code (`0`: no answer), seconds."""

_TIMEOUT_SECONDS = 30.0
_CONNECT_SECONDS = 5.0


def _fenced(may_write: Callable[[], bool]) -> type[aiohttp.ClientRequest]:
    """Requests whose body, and with it their first byte, is sent only if `may_write` still says so.

    Between `Client.json` and the socket lie a connection to be made and turns of the event loop, and a process can be stopped in there.
    aiohttp holds the headers back until the body comes, and every write of ours has one.
    """

    class Request(aiohttp.ClientRequest):
        async def write_bytes(self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None) -> None:
            if may_write():
                await super().write_bytes(writer, conn, content_length)
            elif conn.protocol is not None:
                conn.protocol.set_exception(_not_leading(self.method, self.url.path))

    return Request


def _not_leading(method: str, path: str) -> NotLeadingError:
    return NotLeadingError(f"{method} {path}: not sent, because this operator does not lead")


def in_cluster() -> bool:
    """Whether the pod's service account is to be used: in a pod, unless somebody names a kubeconfig."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and not os.environ.get("KUBECONFIG")


async def load_configuration() -> Any:
    """Where the API server is and who we are: KUBECONFIG, the pod's service account, or ~/.kube/config.

    Raises:
        kubernetes.aio.config.ConfigException: none of them can be used.
    """
    configuration = Configuration()
    if in_cluster():
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return configuration


class Client:
    """One connection pool to one API server."""

    def __init__(
        self,
        configuration: Any,
        *,
        user_agent: str = "trtllm-operator",
        observer: Observer | None = None,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        """`may_write` is asked before each request that changes something is made, and again right before it is sent."""
        configuration.client_session_kwargs = {
            "trust_env": False,  # a proxy belongs into the kubeconfig, as for kubectl
            "request_class": _fenced(may_write),
        }
        self._api: Any = ApiClient(configuration=configuration)
        self._api.user_agent = user_agent
        self._observer = observer
        self._may_write = may_write

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        seconds: float = _TIMEOUT_SECONDS,
    ) -> Any:
        """One request; the answer's document.

        Raises:
            NotLeadingError: it would change something, and `may_write` says no.
            ApiError: by `kube.errors`; `UnreachableError` where no answer came within `seconds`.
        """
        if method != "GET" and not self._may_write():
            raise _not_leading(method, path)
        data = await self._send(method, path, query, body, content_type, seconds)
        try:
            return documents.loads(data)
        except ValueError as error:
            raise UnreachableError(f"{method} {path}: the answer is no JSON, so it is none of the API server's") from error

    async def text(self, path: str, *, query: Mapping[str, str] | None = None, seconds: float = _TIMEOUT_SECONDS) -> str:
        """GET of something that is no JSON, such as a log. Raises as `json` does."""
        data = await self._send("GET", path, query, None, "application/json", seconds)
        return data.decode("utf-8", errors="replace")

    async def lines(
        self, path: str, *, query: Mapping[str, str], silent_seconds: float, opened: Callable[[], None]
    ) -> AsyncIterator[bytes]:
        """GET of something that goes on: its lines, each when it is whole. `opened` is called when the answer begins.

        Raises:
            ApiError: by `kube.errors`; `UnreachableError` where the stream breaks off, or where nothing comes for `silent_seconds`.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=silent_seconds)
        rest = b""
        try:
            response = (await self._request("GET", path, query, None, "application/json", timeout)).response
            async with response:
                if response.status >= 400:
                    body = (await response.read()).decode("utf-8", errors="replace")
                    raise classify("GET", path, response.status, response.headers, body)
                opened()
                async for chunk in response.content.iter_any():
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        yield line
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(f"GET {path}: the stream broke off: {error!r}") from error
        if rest.strip():
            raise UnreachableError(f"GET {path}: the stream broke off in a line")

    async def _request(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Any, content_type: str, limits: aiohttp.ClientTimeout
    ) -> Any:
        # Without the body: it is plain JSON already, and the official client would copy it, value by value, to make sure.
        method, url, headers, _, _ = await self._api.param_serialize(
            method,
            f"{path}?{urlencode(query)}" if query else path,
            header_params={"Accept": "application/json, */*", "Content-Type": content_type},
            auth_settings=["BearerToken"],
        )
        return await self._api.call_api(method, url, header_params=headers, body=body, _request_timeout=limits)

    async def _send(self, method: str, path: str, query: Mapping[str, str] | None, body: Any, content_type: str, seconds: float) -> bytes:
        started = time.monotonic()
        code = "0"
        try:
            timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_SECONDS)
            response = await self._request(method, path, query, body, content_type, timeout)
            data: bytes = await response.read()
            code = str(response.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(f"{method} {path}: no answer from the API server: {error!r}") from error
        finally:
            if self._observer is not None:
                self._observer(method, code, time.monotonic() - started)
        if response.status >= 400:
            raise classify(method, path, response.status, response.headers, data.decode("utf-8", errors="replace"))
        return data
