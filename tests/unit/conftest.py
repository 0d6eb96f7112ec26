"""Property tests on a shared machine: time limits of single examples would only measure the neighbours.

And a record of every reason that the code sets while the tests of this folder run, which is looked at after the last of them.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.reached import Reached, Said

if not os.environ.get("CI"):  # there hypothesis has a profile of its own, which also repeats the same examples
    settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
    settings.load_profile("shared")

HERE = Path(__file__).parent
_SAID = pytest.StashKey[set[Said]]()
_WHOLE = pytest.StashKey[bool]()
_TOLD = "reached"


@pytest.fixture(scope="session", autouse=True)
def reached(pytestconfig: pytest.Config) -> Iterator[None]:
    """Notes what is told from now on."""
    found = Reached()
    with pytest.MonkeyPatch.context() as patch:
        found.install(patch)
        yield
    pytestconfig.stash[_SAID] = found.said


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Who runs a part of the tests reaches a part of the reasons."""
    files = {item.path for item in items}
    whole = all(path in files for path in HERE.glob("test_*.py") if "def test_" in path.read_text())
    chosen = config.option.keyword or config.option.markexpr or any("::" in str(argument) for argument in config.args)
    config.stash[_WHOLE] = whole and not chosen


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist has ended: take what it has told."""
    if told := getattr(node, "workeroutput", {}).get(_TOLD):
        node.config.stash[_WHOLE], said = told
        node.config.stash.setdefault(_SAID, set()).update(Said(*one) for one in said)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """After all tests: every reason of the table was set, and no other. `REACHED=file` writes there what was told, for people who read it."""
    done = yield
    config = session.config
    if (said := config.stash.get(_SAID, None)) is None:
        return done
    whole, found = config.stash[_WHOLE], Reached(said)
    if hasattr(config, "workeroutput"):
        config.workeroutput[_TOLD] = whole, [astuple(one) for one in said]
        return done
    if file := os.environ.get("REACHED"):
        found.write(Path(file))
    if whole and (wrong := found.wrong()):
        name = "the reasons that all tests have reached"
        config.hook.pytest_runtest_logreport(report=pytest.TestReport(name, ("", None, name), {}, "failed", "\n".join(wrong), "call"))
    return done
