"""End states made comparable: what differs by chance from run to run is replaced by what it stands for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.support.journal_witness import Seen

Json = dict[str, Any]
Flat = dict[str, Any]
"""Path -> value. The first part of a path is the object."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_DROPPED = {
    "resourceVersion",
    "managedFields",
    "creationTimestamp",
    "selfLink",
    "gpuSeconds",  # whole seconds of a clock
    "clusterIP",
    "clusterIPs",
    "clusterIPAllocations",
    "nodePort",
    "podIP",
    "podIPs",
    # Digests of what has uids and the namespace in it. What they are digests of is compared itself.
    "trtllm.dev/desired-hash",
    "trtllm.dev/input",
}


def comparable(objects: Mapping[tuple[str, str], Json], namespace: str, history: Iterable[Seen] = ()) -> Flat:
    """Every field of every object by path.

    uids become kind and name, the namespace and times become words, suffixes that the API server draws become `*`; a number tells
    apart what is equal by name after that. `history` names uids of objects that are gone.
    """
    names = {seen.uid: f"{seen.kind}/{_folded(seen.obj)}" for seen in history}
    names |= {str(obj["metadata"]["uid"]): f"{kind}/{_folded(obj)}" for (kind, _), obj in objects.items()}
    drawn = {obj["metadata"]["name"]: _folded(obj) for obj in objects.values() if _folded(obj) != obj["metadata"]["name"]}
    words = {**{uid: f"uid:{name}" for uid, name in names.items()}, **drawn, namespace: "NAMESPACE"}
    pattern = re.compile("|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)))

    def plain(text: str) -> str:
        return _TIME.sub("TIME", pattern.sub(lambda match: words[match.group()], text))

    flat: Flat = {}
    taken: dict[str, int] = {}
    for (kind, _), obj in sorted(objects.items()):
        key = f"{kind}/{_folded(obj)}"
        taken[key] = taken.get(key, 0) + 1
        prefix = key if taken[key] == 1 else f"{key}#{taken[key]}"
        flat |= {f"{prefix}{path}": plain(value) if isinstance(value, str) else value for path, value in _leaves(obj, "", plain)}
    return flat


def _folded(obj: Json) -> str:
    drawn = obj["metadata"].get("generateName")
    return f"{drawn}*" if drawn else str(obj["metadata"]["name"])


def _leaves(value: Any, path: str, plain: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in sorted(value.items()):
            if key not in _DROPPED and not (key == "input" and ".stages[" in path):
                yield from _leaves(inner, f"{path}.{plain(key)}", plain)
    elif isinstance(value, list) and value:
        for number, inner in enumerate(_ordered(value, plain)):
            yield from _leaves(inner, f"{path}[{number}]", plain)
    else:
        yield path, value


def _ordered(items: list[Any], plain: Any) -> list[Any]:
    """Lists that are maps to the API server have no order of their own: owners, conditions, stages."""
    for key in ("uid", "type", "name"):
        if all(isinstance(item, dict) and isinstance(item.get(key), str) for item in items):
            return sorted(items, key=lambda item: plain(item[key]))
    return items


def by_chance(one: Flat, other: Flat) -> set[str]:
    """Paths that differ between two undisturbed runs, which no comparison can go by."""
    return {path for path in one.keys() | other.keys() if one.get(path) != other.get(path)}


def differences(wanted: Flat, found: Flat, masked: set[str]) -> list[str]:
    """What is not as in the undisturbed run. Of an object that is missing, or there for no reason, only that."""
    absent = object()
    lines: dict[str, None] = {}
    whole = {_head(path) for path in wanted} ^ {_head(path) for path in found}
    for path in sorted(wanted.keys() | found.keys()):
        want, have = wanted.get(path, absent), found.get(path, absent)
        if path in masked or want == have:
            continue
        if _head(path) in whole:
            lines[f"{_head(path)}: {'missing' if have is absent else 'not there without the fault'}"] = None
            continue
        said = [("nothing" if value is absent else repr(value)) for value in (want, have)]
        lines[f"{path}: {said[0]} without the fault, {said[1]} with it"] = None
    return list(lines)


def _head(path: str) -> str:
    """The object of a path: names of objects may have dots, but every path has one of these right after it."""
    return re.split(r"\.(?=apiVersion|kind|metadata|spec|status|data|immutable|binaryData)", path, maxsplit=1)[0]
