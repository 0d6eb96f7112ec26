"""One rig for all counts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bench.rig import Rig


@pytest.fixture(scope="session")
def rig() -> Iterator[Rig]:
    with Rig() as running:
        yield running
