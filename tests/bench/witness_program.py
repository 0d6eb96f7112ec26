"""A process of its own that watches kinds and notes when each event came. It hardly parses, so that it costs the same for whoever writes.

One JSON object a line on stdin, and one as its answer on stdout. First the list of url, token and file of the authority; then
{"watch": {"Deployment": "/apis/..."}, "owners": false}, {"all": true} for a report, {"all": false, "names": ["s1"]} for counts.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
import time
from collections.abc import Iterable
from typing import Any

import aiohttp

_OWNER = re.compile(rb'"kind":"LLMService","name":"([^"]+)"')
_TYPE = b'{"type":"ADDED"'


class Witness:
    """Arrival times on the machine's monotonic clock."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._times: dict[str, list[float]] = {}
        self._added: dict[str, list[float]] = {}
        self._first: dict[str, float] = {}
        self._watches: list[asyncio.Task[None]] = []

    async def begin(self, session: aiohttp.ClientSession, paths: dict[str, str], *, owners: bool) -> None:
        """Watch from now on; what was seen before is forgotten."""
        await self.end()
        self._times, self._added, self._first = {}, {}, {}
        for kind, path in paths.items():
            async with session.get(f"{self._url}{path}", params={"limit": "1"}) as answer:
                version = (await answer.json())["metadata"]["resourceVersion"]
            self._times[kind], self._added[kind] = [], []
            query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "3600"}
            self._watches.append(asyncio.create_task(self._watch(session, kind, path, query, owners=owners)))

    async def end(self) -> None:
        """Close the watches."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        self._watches.clear()

    async def _watch(self, session: aiohttp.ClientSession, kind: str, path: str, query: dict[str, str], *, owners: bool) -> None:
        times, added, rest = self._times[kind], self._added[kind], b""
        async with session.get(f"{self._url}{path}", params=query) as answer:
            async for chunk in answer.content.iter_any():
                now = time.monotonic()
                *lines, rest = (rest + chunk).split(b"\n")
                times += [now] * len(lines)
                added += [now for line in lines if line.startswith(_TYPE)]
                if owners:
                    for line in lines:
                        for name in _OWNER.findall(line):
                            self._first.setdefault(name.decode(), now)

    def counts(self, names: Iterable[str]) -> dict[str, Any]:
        """How many events came since `begin`, and how many of these services have a child."""
        return {"events": sum(map(len, self._times.values())), "seen": sum(name in self._first for name in names)}

    def report(self) -> dict[str, Any]:
        """What was seen since `begin`."""
        return {"times": self._times, "added": self._added, "first": self._first}


async def _main(url: str, token: str, ca: str) -> None:
    witness = Witness(url)
    loop = asyncio.get_running_loop()
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=ca), limit=0)
    headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            asked = json.loads(line)
            answer: dict[str, Any] = {}
            if "watch" in asked:
                await witness.begin(session, asked["watch"], owners=asked["owners"])
            else:
                answer = witness.report() if asked["all"] else witness.counts(asked.get("names", ()))
            print(json.dumps(answer), flush=True)
        await witness.end()


if __name__ == "__main__":
    asyncio.run(_main(*json.loads(sys.stdin.readline())))
