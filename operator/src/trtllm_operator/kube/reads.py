"""Extra reads about pods and Jobs that have not finished: the end of a log, the newest warning."""

from __future__ import annotations

from typing import Any

from trtllm_operator.kube.client import Client
from trtllm_operator.kube.resources import CORE_EVENT, POD

_SECONDS = 5.0
_LOG_BYTES = 262144  # counted from the first of the lines, so too low a limit would cut the newest


async def log_tail(client: Client, namespace: str, pod: str, container: str, lines: int) -> str:
    """The last lines of a container's log. Raises as `Client.json`; InvalidError while the container has not started."""
    query = {"container": container, "tailLines": str(lines), "limitBytes": str(_LOG_BYTES)}
    return await client.text(POD.path(namespace, pod, "log"), query=query, seconds=_SECONDS)


async def newest_warning(client: Client, namespace: str, uid: str) -> str | None:
    """Message of the newest Warning event about an object, or None. Raises as `Client.json`."""
    query = {"fieldSelector": f"involvedObject.uid={uid},type=Warning", "limit": "100"}
    page = await client.json("GET", CORE_EVENT.path(namespace), query=query, seconds=_SECONDS)
    events = [item for item in page.get("items") or () if item.get("message")]
    if not events:
        return None
    return str(max(events, key=_when)["message"])[:1024]


def _when(event: dict[str, Any]) -> str:
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
        or ""
    )
