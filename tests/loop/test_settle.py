"""Many resources settle, then nothing is written: neither in idle time nor after a restart."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.api import Api
from tests.support.audit import Audit
from tests.support.operator_process import OperatorProcess
from tests.support.samples import is_ready, service
from tests.support.waiting import eventually, nothing_for

COUNT = 300
Start = Callable[..., OperatorProcess]


def _versions(api: Api, namespace: str) -> dict[tuple[str, str], str]:
    """What changes with each write of ours: of Deployments, whose status is the controllers' affair, the generation."""
    kinds = {"LLMService": "resourceVersion", "ConfigMap": "resourceVersion", "Deployment": "generation"}
    objects = [(kind, obj["metadata"]) for kind in kinds for obj in api.list(kind, namespace)]
    return {(kind, metadata["name"]): str(metadata[kinds[kind]]) for kind, metadata in objects if metadata["name"] != "kube-root-ca.crt"}


@pytest.mark.slow
def test_settles_idles_and_restarts_without_a_write(api: Api, namespace: str, start_stub: Start, audit: Audit) -> None:
    for number in range(COUNT):
        api.create(service(f"s{number}", namespace))
    start = audit.mark()
    operator = start_stub()
    eventually(lambda: sum(map(is_ready, api.list("LLMService", namespace))) == COUNT, what="all ready", seconds=120, every=1)
    eventually(operator.idle, what="queue empty")
    made = audit.by_operator(start)
    applies = [write for write in made if write.verb == "patch" and not write.subresource]
    assert len(applies) == 2 * COUNT, "each child is applied once"
    assert len([write for write in made if write.subresource == "status"]) <= 2 * COUNT, "one status when it starts, one when it is done"

    before = _versions(api, namespace)
    mark = audit.mark()
    nothing_for(20, lambda: audit.by_operator(mark), what="no write in idle time")

    assert len(before) == 3 * COUNT
    operator.stop()
    mark = audit.mark()
    operator.start()
    eventually(operator.idle, what="queue empty after the restart")
    passes = "trtllm_operator_reconcile_seconds_count{kind=LLMService}"
    eventually(lambda: operator.metrics().get(passes, 0) >= COUNT, what="each was looked at after the restart")
    assert audit.by_operator(mark) == []
    assert _versions(api, namespace) == before
    assert "Traceback" not in operator.log()
