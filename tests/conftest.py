"""For all tiers: what a worker of pytest-xdist notices only at its end is an error too.

pytest looks once more when it ends for what nobody closed or awaited. A worker has nobody left to tell by then, and how its process ends is not looked at.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Generator
from typing import Any

import pytest
from _pytest.threadexception import collect_thread_exception
from _pytest.unraisableexception import collect_unraisable

_NOTICED = "noticed"


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """In a worker: look now."""
    done = yield
    if hasattr(session.config, "workeroutput"):
        gc.collect()
        found = []
        for look in (collect_unraisable, collect_thread_exception):
            try:
                look(session.config)
            except Exception as error:  # noqa: BLE001 - warnings are errors, here of many kinds
                found.append("".join(traceback.format_exception(error)))
        session.config.workeroutput[_NOTICED] = "\n".join(found)
    return done


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Beside the workers: tell it, and have the run fail."""
    if noticed := getattr(node, "workeroutput", {}).get(_NOTICED):
        name = f"the end of worker {node.gateway.id}"
        node.config.hook.pytest_runtest_logreport(report=pytest.TestReport(name, ("", None, name), {}, "failed", noticed, "teardown"))
