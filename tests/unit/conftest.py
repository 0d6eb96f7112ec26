"""Property tests on a shared machine: time limits of single examples would only measure the neighbours.

And a record of every reason that the code sets while the tests of this folder run, which its last test looks at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.reached import Reached

if not os.environ.get("CI"):  # there hypothesis has a profile of its own, which also repeats the same examples
    settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
    settings.load_profile("shared")

HERE = Path(__file__).parent
LAST = "test_reasons_reached.py"


@pytest.fixture(scope="session", autouse=True)
def reached() -> Iterator[Reached]:
    """What has been told so far. `REACHED=file` writes it there as a table, for people who read the messages."""
    found = Reached()
    with pytest.MonkeyPatch.context() as patch:
        found.install(patch)
        yield found
    if file := os.environ.get("REACHED"):
        found.write(Path(file))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What looks at the whole run comes last, and only where the run is whole."""
    last = [item for item in items if item.path == HERE / LAST]
    if not last:
        return
    items[:] = [item for item in items if item not in last]
    files = {item.path for item in items}
    whole = all(path in files for path in HERE.glob("test_*.py") if path.name != LAST and "def test_" in path.read_text())
    chosen = config.option.keyword or config.option.markexpr or any("::" in str(argument) for argument in config.args)
    if whole and not chosen:
        items += last
    else:
        config.hook.pytest_deselected(items=last)
