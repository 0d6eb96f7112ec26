"""The table of all 46 numbered faults, made from the docstrings of the tests: `Fault 21.`, `Faults 36 and 37.`

The numbers and what they mean stand here; which test covers which stands in the tests alone.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
TIERS = ("unit", "crd", "loop", "faults", "e2e")

FAULTS = {
    1: "SIGKILL before each write of each scenario",
    2: "SIGKILL after each write, before its answer",
    3: "SIGTERM in the middle of a reconcile",
    4: "API server away for 5 s, 60 s, 5 min; restarted while objects were deleted",
    5: "500, 503, 504 for a list, a watch, a write",
    6: "429 with Retry-After",
    7: "409 for every first write",
    8: "401 for a while; a lasting 403 for one verb on one resource",
    9: "404: CRDs not installed yet, or removed",
    10: "connection reset after a write was carried out",
    11: "410 Gone; what was deleted in the gap",
    12: "watches that end all the time, or say nothing",
    13: "truncated events; an ERROR event that is no 410",
    14: "a list of an older state after a restart",
    15: "events that are never told (made and unmade between two looks)",
    16: "a slow API server",
    17: "an admission webhook that is down, failurePolicy Fail",
    18: "two operators at the same time; the leader stopped past its lease, then continued",
    19: "clocks five minutes apart, one that jumps",
    20: "event loop blocked, no file descriptors left, killed for memory",
    21: "100 updates a second of one resource",
    22: "poisoned objects: malformed annotations, edited status, names and labels at their limits, 1.4 MB",
    23: "pod of a build evicted, preempted, its node lost",
    24: "out of memory (137), a GPU that fails",
    25: "an error of the user: bad checkpoint, unsupported architecture",
    26: "deadline exceeded; image that can't be pulled; no GPU",
    27: "volume full, read-only, not bound, wrong access mode",
    28: "builder killed at each file: a half-written engine",
    29: "builder that exits 0 without an engine, a foreign manifest, a flipped bit",
    30: "two engines that ask for the same key",
    31: "Job or pod deleted by hand; a finished Job removed by its TTL",
    32: "children edited or deleted by hand; owner or label removed",
    33: "an object of somebody else has the name of a child",
    34: "server that crashes after it was ready, flaps, or does not load the new engine",
    35: "Secret, claim or ConfigMap missing, made later, rotated",
    36: "deleted in the middle of a build: background, foreground, orphan",
    37: "deleted while the operator is down; a finalizer removed by hand",
    38: "deleted and made again under the same name before the operator looks",
    39: "spec changed in the middle of a build, and back",
    40: "invalid edit of what serves",
    41: "CRDs upgraded under stored objects",
    42: "operator upgraded and downgraded with settled resources",
    43: "namespace deleted in the middle of a build",
    44: "quota, LimitRange, Pod Security, a policy that denies or rewrites",
    45: "the operator's own service account, namespace or CRDs deleted",
    46: "operator scaled to 0 while faults occur",
}

NOT_TESTED: dict[int, str] = {}
"""Why a fault has no test. A fault that has one must not be in here."""

NOTES = {
    4: "The five minutes take part where SOAK is set.",
    37: "The operator has no finalizer of its own: nothing outside the cluster has to be cleaned.",
    41: "There is one version of the API, so nothing is converted.",
    42: "Versions differ in these tests as they do for what they make: by the tools image that each brings along.",
    45: "With its namespace goes the operator itself, which is fault 46.",
    46: "There is no annotation to pause the operator; `spec.suspend` of an engine starts nothing new.",
}
"""What the tests of a fault leave out, or what makes it easy here."""

_MENTION = re.compile(r"\bFaults? (\d+(?: to \d+)?(?:(?:, and |, | and )\d+(?: to \d+)?)*)\b")


def numbers(docstring: str) -> list[int]:
    """Faults that a docstring names: `Fault 3.`, `Faults 1 and 2.`, `Faults 11, 12 and 16.`, `Fault 18: why`"""
    found = set()
    for mention in _MENTION.findall(docstring):
        for first, last in re.findall(r"(\d+)(?: to (\d+))?", mention):
            found |= set(range(int(first), int(last or first) + 1))
    return sorted(found)


def _tests(path: Path) -> Iterator[tuple[str, str]]:
    """Name and docstring of each test of a file (`Class::name` in a class), and of the file itself, with an empty name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield "", ast.get_docstring(tree) or ""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            inner = [n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name.startswith("test_")]
            yield from ((f"{node.name}::{n.name}", ast.get_docstring(n) or "") for n in inner)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name, ast.get_docstring(node) or ""


def covered(tests: Path = TESTS) -> dict[int, list[str]]:
    """Node ids of the tests of each fault. What a file's own docstring names holds for those of its tests that name none."""
    found: dict[int, list[str]] = {}
    for tier in TIERS:
        for path in sorted((tests / tier).rglob("test_*.py")):
            of_file: list[int] = []
            for name, docstring in _tests(path):
                named = numbers(docstring)
                if not name:
                    of_file = named
                    continue
                for number in named or of_file:
                    found.setdefault(number, []).append(f"tests/{path.relative_to(tests).as_posix()}::{name}")
    return found


def problems(found: dict[int, list[str]]) -> list[str]:
    """Faults that are neither tested nor excused, that are both, and numbers that do not exist."""
    wrong = [
        f"fault {number} ({FAULTS[number]}) has neither a test nor a reason" for number in FAULTS if number not in {*found, *NOT_TESTED}
    ]
    wrong += [f"fault {number} has a reason for having no test, and a test: {found[number][0]}" for number in NOT_TESTED if number in found]
    wrong += [f"there is no fault {number}: {tests[0]}" for number, tests in found.items() if number not in FAULTS]
    return wrong


def markdown() -> str:
    """The page operator/docs/faults.md."""
    found = covered()
    rows = []
    for number, fault in FAULTS.items():
        tests = "<br>".join(f"`{test}`" for test in found.get(number, ())) or f"none: {NOT_TESTED.get(number, '')}"
        note = f" {NOTES[number]}" if number in NOTES else ""
        rows.append(f"| {number} | {fault}.{note} | {tests} |")
    return f"""# Faults

What goes wrong in clusters, and the tests that show what the operator does then. Made from the docstrings of the tests (`make docs`).
Tiers: `tests/loop` and `tests/faults` run the operator on a real API server with Kubernetes' own controllers and a stand-in for kubelets;
`tests/e2e` runs all of Kubernetes with a simulator in TensorRT-LLM's place; `tests/unit` needs no cluster. Run one with `.venv/bin/python -m pytest NAME`.

| | fault | tests |
|---|---|---|
{chr(10).join(rows)}
"""
