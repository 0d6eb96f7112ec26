"""JSON of the API server, whatever users put into it.

The API server takes JSON of up to 10000 levels (Go's encoding/json), and a free field of a resource may have them. Python's parser gives up
at its recursion limit of 1000: a list with one such object in it would be lost as a whole, and so would the watch that tells of it.
orjson reads what is not deep: it has the keys of all documents once, and what is kept of them takes three quarters of the memory.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

DEEPEST = 100
"""Levels that are kept of a document that is too deep for the parser. Nothing that the operator works with has half as many."""

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{\]}]', re.DOTALL)


def loads(data: bytes) -> Any:
    """The document; where it is too deep to be parsed, without what is deeper than `DEEPEST`.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass  # too deep, or one of the few things that the standard library takes and orjson does not
    try:
        return json.loads(data)
    except RecursionError:
        return json.loads(cut(data))


def parsable(line: bytes) -> bytes:
    """For a parser of somebody else: the same, or cut where it is too deep."""
    if line.count(b"{") + line.count(b"[") <= DEEPEST:
        return line
    try:
        json.loads(line)
    except RecursionError:
        return cut(line)
    except ValueError:
        pass  # whoever parses it says so
    return line


def cut(data: bytes) -> bytes:
    """The text of a document with null in the place of everything deeper than `DEEPEST`. Without recursion."""
    parts: list[bytes] = []
    depth = kept = 0
    for token in _TOKEN.finditer(data):
        match data[token.start() : token.start() + 1]:
            case b"{" | b"[":
                depth += 1
                if depth == DEEPEST + 1:
                    parts += (data[kept : token.start()], b"null")
            case b"}" | b"]":
                if depth == DEEPEST + 1:
                    kept = token.end()
                depth -= 1
            case _:
                pass  # text, in which brackets mean nothing
    if depth <= DEEPEST:
        parts.append(data[kept:])
    return b"".join(parts)
