"""Answers of the API server to kopf, which parses them itself: each line of a watch, and each list, made such that it can be parsed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from trtllm_operator.kube import documents


class Answer(aiohttp.ClientResponse):
    """A response whose JSON is never too deep (see `kube.documents`)."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        """As the base class; the content of a watch is read through a filter."""
        answer = await super().start(connection)
        if "watch" in self.url.query:
            self.content = _Lines(self.content)  # type: ignore[assignment]
        return answer

    async def json(self, **_: Any) -> Any:
        """The document."""
        return documents.loads(await self.read())


class _Lines:
    """Content of a watch. All but the reading by chunks, which is what kopf does, is the base's."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Whole lines."""
        rest: list[bytes] = []
        async for chunk in self._content.iter_chunked(size):
            head, end, tail = chunk.rpartition(b"\n")
            if not end:
                rest.append(chunk)
                continue
            lines = b"".join([*rest, head]).split(b"\n")
            rest = [tail]
            yield b"".join(documents.parsable(line) + b"\n" for line in lines)
        if last := b"".join(rest):
            yield documents.parsable(last)
