"""Reasons: documented, and every one that the code sets is in the table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import docs
from trtllm_operator.api.reasons import REASONS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "operator" / "src" / "trtllm_operator"


@pytest.mark.parametrize("page", docs.pages(), ids=lambda path: path.stem)
def test_generated_pages_are_what_the_code_says(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == docs.pages()[page], "run `make docs`"


def test_every_reason_in_the_code_is_in_the_table() -> None:
    calls = re.compile(
        r'(?:\bproblem|\bProblem|\bRefused|\bVersionRefused|conditions\.stalled|conditions\.progressing|conditions\.idle|\.refuse)\(\s*"([A-Z]\w+)"'
    )
    used = {name for file in PACKAGE.rglob("*.py") for name in calls.findall(file.read_text(encoding="utf-8"))}
    assert len(used) > 15
    assert used <= REASONS.keys()


def test_operator_folder_never_becomes_a_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists(), "it would shadow the standard library's operator"
