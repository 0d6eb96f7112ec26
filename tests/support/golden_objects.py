"""Objects of a real API server as files: what differs from run to run is replaced by what looks like it and never changes."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

Json = dict[str, Any]

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_DRAWN = "[bcdfghjklmnpqrstvwxz2456789]"  # the alphabet of names that Kubernetes draws or hashes
_JOB_POD = re.compile(rf"(-(?:resolve|fetch|build|publish|verify)-\d+)-{_DRAWN}{{5}}\b")
_SERVER_POD = re.compile(rf"-{_DRAWN}{{8,10}}-{_DRAWN}{{5}}\b")


def masked(obj: Json, namespace: str) -> Json:
    """As the API server gave it, without managedFields; uids are numbered, and times, versions and drawn names are always the same."""
    plain = copy.deepcopy(obj)
    plain["metadata"].pop("managedFields", None)
    plain["metadata"]["resourceVersion"] = "1000"
    for stage in (plain.get("status") or {}).get("stages", ()):
        if "gpuSeconds" in stage:
            stage["gpuSeconds"] = 60
    text = json.dumps(plain).replace(namespace, "default")
    text = _TIME.sub("2026-01-01T00:00:00Z", text)
    text = _SERVER_POD.sub("-5c7d9f8b6-x2x4x", _JOB_POD.sub(r"\1-x2x4x", text))
    numbers: dict[str, int] = {}
    text = _UUID.sub(lambda found: f"00000000-0000-4000-8000-{numbers.setdefault(found.group(), len(numbers) + 1):012d}", text)
    made: Json = json.loads(text)
    return made
