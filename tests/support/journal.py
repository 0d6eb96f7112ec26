"""What went through the fault proxy: each request, its answer, each event of a watch. Kept in memory and as one JSON line each in a file."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

Json = dict[str, Any]
WRITES = ("create", "update", "patch", "delete", "deletecollection")
EVENTS = "events"
_EMPTY = ("", None)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True)
class Target:
    """What a request is about, in Kubernetes' terms. `resource` is plural, with the subresource: `llmengines/status`."""

    verb: str
    resource: str
    namespace: str = ""
    name: str = ""

    @property
    def writes(self) -> bool:
        """Whether it changes something."""
        return self.verb in WRITES

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f" {self.name}" if self.name else "")


def target_of(method: str, path_and_query: str) -> Target:
    """Read a path of the Kubernetes API; what is none (`/version`, discovery) has the path as its resource."""
    split = urlsplit(path_and_query)
    query = parse_qs(split.query)
    parts = [unquote(part) for part in split.path.split("/") if part]
    if parts[:1] == ["api"] and len(parts) > 2:
        rest = parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 3:
        rest = parts[3:]
    else:
        return Target(method.lower(), split.path)
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    name = rest[1] if len(rest) > 1 else ""
    resource = "/".join([rest[0], *rest[2:]])
    if method == "GET":
        watching = query.get("watch", [""])[0] in ("1", "true")
        verb = "watch" if watching else ("get" if name else "list")
    else:
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete" if name else "deletecollection"}.get(method, method)
    return Target(verb, resource, namespace, name)


def signature(target: Target, body: bytes) -> str:
    """Equal for equal wishes: the same write of the same content, whatever the time is that it tells."""
    return f"{target} {hashlib.sha256(_TIME.sub('TIME', body.decode(errors='replace')).encode()).hexdigest()[:12]}"


@dataclass
class Entry:
    """One line. `life` counts the starts of the operator; `status` is 0 while there is no answer, `fault` what the proxy did to it."""

    kind: Literal["request", "response", "event", "note"]
    number: int
    seconds: float
    life: int
    verb: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    agent: str = ""
    status: int = 0
    resource_version: str = ""
    fault: str = ""
    forwarded: bool = True
    """Whether the API server got it."""
    text: str = ""
    answer: Json | None = field(default=None, repr=False)
    """The object that a write left, without managedFields."""

    @property
    def target(self) -> Target:
        return Target(self.verb, self.resource, self.namespace, self.name)

    @property
    def writes(self) -> bool:
        return self.verb in WRITES


class Journal:
    """Safe to write and to read from several threads."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self._out = file.open("a", buffering=1) if file is not None else None
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._began = time.monotonic()
        self._number = 0
        self._last_write = self._began
        self.life = 1

    def close(self) -> None:
        """No line comes any more; what there is stays readable."""
        with self._lock:
            if self._out is not None:
                self._out.close()
                self._out = None

    def number(self) -> int:
        """A new number; a request and its answer share one."""
        with self._lock:
            self._number += 1
            return self._number

    def add(
        self, kind: Literal["request", "response", "event", "note"], number: int = 0, *, target: Target | None = None, **known: Any
    ) -> Entry:
        """Write one line."""
        about = (target.verb, target.resource, target.namespace, target.name) if target is not None else ()
        entry = Entry(kind, number, round(time.monotonic() - self._began, 4), self.life, *about, **known)
        with self._lock:
            self._entries.append(entry)
            if kind == "request" and entry.writes:
                self._last_write = time.monotonic()
            if self._out is not None:
                self._out.write(json.dumps({name: value for name, value in vars(entry).items() if value not in _EMPTY}) + "\n")
        return entry

    def quiet_seconds(self) -> float:
        """How long the operator has not tried to write anything."""
        return time.monotonic() - self._last_write

    def mark(self) -> int:
        """A position, for `since`."""
        with self._lock:
            return len(self._entries)

    def since(self, mark: int = 0) -> list[Entry]:
        """Lines after a position."""
        with self._lock:
            return self._entries[mark:]

    def writes(self, mark: int = 0) -> list[Entry]:
        """Answers to writes that the API server got, also to those whose answer the operator never saw. In order of the answers."""
        return [entry for entry in self.since(mark) if entry.kind == "response" and entry.writes and entry.forwarded]

    def tried(self, mark: int = 0) -> list[Entry]:
        """Writes that the operator sent, in order."""
        return [entry for entry in self.since(mark) if entry.kind == "request" and entry.writes]

    def read(self, mark: int = 0) -> list[Entry]:
        """Reads of objects by name that the operator sent, in order."""
        return [entry for entry in self.since(mark) if entry.kind == "request" and entry.verb == "get"]

    def tail(self, count: int = 25) -> str:
        """The last writes, for a message."""
        shown = [e for e in self.since() if e.kind in ("response", "note") and (e.writes or e.kind == "note")][-count:]
        return "\n".join(f"  {e.seconds:8.3f} life {e.life} {e.target} -> {e.status} {e.fault} {e.text}" for e in shown)


def points(entries: list[Entry]) -> Iterator[tuple[Target, int]]:
    """Each request by what it is about and which of those about it, from 1. Events have names of chance, so they are counted together."""
    seen: dict[Target, int] = {}
    for entry in entries:
        target = Target(entry.verb, entry.resource, "", "" if entry.resource == EVENTS else entry.name)
        seen[target] = seen.get(target, 0) + 1
        yield target, seen[target]
