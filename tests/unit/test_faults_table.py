"""Every numbered fault has a test, or a reason for having none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import faults_table


def test_every_fault_is_tested_or_excused() -> None:
    assert list(faults_table.FAULTS) == list(range(1, 47))
    assert not faults_table.problems(faults_table.covered())


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Fault 21. Then more.", [21]),
        ("Faults 36 and 37.", [36, 37]),
        ("Watches. Faults 11, 12, 13 and 16.", [11, 12, 13, 16]),
        ("Faults 5 to 8 and 10.", [5, 6, 7, 8, 10]),
        ("Fault 18: SIGSTOP. Faults 1 and 2 at once.", [1, 2, 18]),
        ("Fault injection is no number, and 7 faults 8 are none.", []),
    ],
)
def test_numbers_are_read_from_docstrings(text: str, numbers: list[int]) -> None:
    assert faults_table.numbers(text) == numbers


def test_what_a_file_says_holds_for_its_tests_that_say_nothing(tmp_path: Path) -> None:
    file = tmp_path / "loop" / "sub" / "test_x.py"
    file.parent.mkdir(parents=True)
    file.write_text('"""Fault 3."""\ndef test_a():\n    pass\n\nclass TestB:\n    def test_c(self):\n        """Fault 4."""\n')
    assert faults_table.covered(tmp_path) == {3: ["tests/loop/sub/test_x.py::test_a"], 4: ["tests/loop/sub/test_x.py::TestB::test_c"]}


def test_what_is_missing_doubled_or_unknown_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = {number: ["tests/x.py::y"] for number in faults_table.FAULTS}
    monkeypatch.setattr(faults_table, "NOT_TESTED", {3: "because"})
    found = faults_table.problems({**{n: t for n, t in everything.items() if n != 7}, 99: ["tests/z.py::z"]})
    assert [line.split(" (")[0].split(" has a reason")[0] for line in found] == [
        "fault 7",
        "fault 3",
        "there is no fault 99: tests/z.py::z",
    ]
