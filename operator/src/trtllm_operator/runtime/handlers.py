"""kopf's part: tell what happened. Each handler is O(1), raises nothing and writes nothing.

kopf does not tell of deletions that fell between a list and the one before it, and it lists anew whenever a watch expires. Its session
is ours, so that we see each of its lists and can make one of our own after it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

import aiohttp
import kopf
from yarl import URL

from trtllm_operator.kube.client import in_cluster
from trtllm_operator.kube.resources import Resource
from trtllm_operator.runtime.answers import Answer

Deliver = Callable[[str | None, dict[str, Any]], None]
"""Called with the type of each event and its object."""

Began = Callable[[str], None]
"""Called with a kind when a watch of it begins after a list of kopf's."""

_QUICK_SECONDS = 30.0
_LONGEST_SECONDS = 10.0


class Handlers:
    """Handlers for a set of kinds, on a registry of their own."""

    def __init__(self, resources: Iterable[Resource], deliver: Deliver, began: Began, ending: Callable[[], None]) -> None:
        """`ending` is called when kopf goes to its end, for whatever reason; that end may take its time."""
        self._deliver = deliver
        self._began = began
        self._ending = ending
        self._kinds = {f"/{resource.plural}": resource.kind for resource in resources}
        self._listed: set[str] = set()
        self._heard = dict.fromkeys(self._kinds.values(), time.monotonic())
        self._streams: dict[str, aiohttp.ClientResponse] = {}
        self._last_login = 0.0
        self._delay = 0.0
        self.registry = kopf.OperatorRegistry()
        kopf.on.login(registry=self.registry)(self.on_login)
        kopf.on.cleanup(registry=self.registry)(self.on_cleanup)
        for resource in resources:
            kopf.on.event(resource.group, resource.version, resource.plural, registry=self.registry)(self.on_event)

    async def on_event(self, event: Any, **_: Any) -> None:
        """One event of a watch."""
        self._deliver(event["type"], event["object"])

    async def on_cleanup(self, **_: Any) -> None:
        """The watches are over."""
        self._ending()

    def silent(self) -> dict[str, float]:
        """Kinds without an open watch, and for how many seconds, as far as this is called often."""
        now = time.monotonic()
        for kind, stream in self._streams.items():
            if not stream.closed:
                self._heard[kind] = now
        return {kind: now - heard for kind, heard in self._heard.items() if heard < now}

    async def on_login(self, settings: kopf.OperatorSettings, **kwargs: Any) -> kopf.AiohttpSession | None:
        """A session by the same credentials as `kube.client`. Called again when they are refused, so a rotated token is read anew."""
        now = time.monotonic()
        self._delay = min(_LONGEST_SECONDS, self._delay * 2 or 0.5) if self._last_login and now - self._last_login < _QUICK_SECONDS else 0.0
        await asyncio.sleep(self._delay)  # the token that is there is refused: give somebody time to bring another
        self._last_login = time.monotonic()
        info = (kopf.login_with_service_account if in_cluster() else kopf.login_with_kubeconfig)(settings=settings, **kwargs)
        if info is None:
            return None
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(self._on_request)
        trace.on_request_end.append(self._on_answer)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers={**info.as_http_headers(), "User-Agent": "trtllm-operator-watch"},
            proxy=info.proxy_url,
            response_class=Answer,
            trace_configs=[trace],
        )
        return kopf.AiohttpSession(server=info.server, default_namespace=info.default_namespace, aiohttp_session=session)

    async def _on_request(self, _session: Any, _context: Any, params: aiohttp.TraceRequestStartParams) -> None:
        kind = self._kind(params.url)
        if kind is None or params.method != "GET":
            return
        if "watch" not in params.url.query:
            self._listed.add(kind)
            return
        if kind in self._listed:
            self._listed.discard(kind)
            self._began(kind)

    async def _on_answer(self, _session: Any, _context: Any, params: aiohttp.TraceRequestEndParams) -> None:
        kind = self._kind(params.url)
        if kind is not None and "watch" in params.url.query and params.response.status == 200:
            self._streams[kind] = params.response

    def _kind(self, url: URL) -> str | None:
        return self._kinds.get(url.path[url.path.rfind("/") :])
