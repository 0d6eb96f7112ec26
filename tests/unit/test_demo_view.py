"""What the demo shows of an engine and a service."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from tests.demo import view

ENGINE: dict[str, Any] = {
    "status": {
        "progress": {"stage": "build", "percent": 42, "message": "rank 1 of 2"},
        "stages": [
            {"name": "resolve", "state": "Succeeded", "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:05Z"},
            {"name": "fetch", "state": "Failed", "message": "[Errno 111] Connection refused"},
            {"name": "build", "state": "Running"},
        ],
    }
}
SERVICE: dict[str, Any] = {
    "status": {"replicas": 2, "readyReplicas": 1, "conditions": [{"type": "Ready", "status": "Unknown", "message": "waiting"}]}
}


def test_rows() -> None:
    rows = view.rows(ENGINE, SERVICE)
    assert rows[0] == ("resolve", "Succeeded", "100 %", "5 s", "")
    assert rows[2] == ("build", "Running", "42 %", "", "rank 1 of 2")
    assert rows[3][1] == "Pending"
    assert rows[-1] == ("serve", "Pending", "1/2", "", "waiting")


def test_before_the_first_visit() -> None:
    assert [row[1] for row in view.rows({}, {})] == ["Pending"] * 6


def test_messages_are_shown_as_they_are() -> None:
    out = io.StringIO()
    Console(file=out, width=120).print(view._table(view.rows(ENGINE, SERVICE)))
    assert "[Errno 111] Connection refused" in out.getvalue()


def test_plain_lines_tell_news_only(capsys: Any) -> None:
    shown: dict[str, tuple[str, ...]] = {}
    view._lines(view.rows(ENGINE, SERVICE), shown)
    first = capsys.readouterr().out
    assert "[Errno 111]" in first
    assert "publish" not in first
    view._lines(view.rows(ENGINE, SERVICE), shown)
    assert capsys.readouterr().out == ""
