"""The table for people, the same as Markdown for operator/docs/performance.md, and everything as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.goals import Figure

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
_VERDICT = {True: "met", False: "missed", None: ""}


def number(value: float) -> str:
    """Three digits that say something."""
    if value == int(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _row(figure: Figure) -> tuple[str, ...]:
    unit = f" {figure.unit}" if figure.unit else ""
    goal = "" if figure.goal is None else f"{'>=' if figure.least else '<='} {number(figure.goal)}{unit}"
    worst = number(figure.worst) + unit if len(figure.values) > 1 else ""
    return (figure.line, figure.what, goal, number(figure.middle) + unit, worst, _VERDICT[figure.met])


_HEAD = ("line", "figure", "goal", "median", "worst", "")


def table(figures: Sequence[Figure], machine: dict[str, Any]) -> str:
    """For a terminal."""
    rows = [_HEAD, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*text, "", *_notes(figures), about(machine)])


def markdown(figures: Sequence[Figure], machine: dict[str, Any], command: str) -> str:
    """What stands between the markers in operator/docs/performance.md, the markers included."""
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (_HEAD, *(_row(figure) for figure in figures))]
    rows.insert(1, "|" + "---|" * len(_HEAD))
    lines = [BEGIN, "", f"`{command}`, {about(machine)}", "", *rows, "", *_notes(figures), "", END]
    return "\n".join(lines) + "\n"


def fill(file: Path, text: str) -> None:
    """Put what `markdown` made into a page that has the markers, or make a page of it."""
    page = file.read_text() if file.exists() else ""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    file.write_text(f"{before}{text.rstrip()}{after}" if begin and end else text)


def about(machine: dict[str, Any]) -> str:
    """The machine and the date in one line."""
    return (
        f"{machine['date']}, revision {machine['revision']}, {machine['cores']} cores ({machine['processor']}), "
        f"{machine['memory_gb']} GB, Python {machine['python']}, load before the start {machine['load_before']}"
    )


def document(figures: Sequence[Figure], machine: dict[str, Any]) -> str:
    """JSON."""
    return json.dumps({"machine": machine, "figures": [figure.dump() for figure in figures]}, indent=1) + "\n"


def _notes(figures: Sequence[Figure]) -> list[str]:
    return [f"For comparison with `{figure.what}`: {peers}." for figure in figures if (peers := figure.details.get("peers"))]
