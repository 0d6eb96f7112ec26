"""Runs the benchmark; see `make help`."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import machine, report
from tests.bench.compare import compare
from tests.bench.goals import Figure
from tests.bench.plan import NAMES, ON_REQUEST, SMALL, Lines, Size, alone, with_cluster
from tests.bench.rig import Rig
from tests.cluster.process import ClusterError
from tests.cluster.progress import say, step


def _measure(lines: dict[str, Lines], wanted: Callable[[str], bool], figures: list[Figure]) -> None:
    for name, line in lines.items():
        if wanted(name):
            with step(name):
                for figure in line():
                    figures.append(figure)
                    say(f"    {figure.what}: {report.number(figure.middle)} {figure.unit}".rstrip())


def _measure_all(size: Size, source: Path | None, wanted: Callable[[str], bool], figures: list[Figure]) -> None:
    _measure(alone(size), wanted, figures)
    if any(wanted(name) for name in NAMES if name not in alone(size)):
        with contextlib.ExitStack() as stack:
            with step("control plane with fsync, and one verified engine"):
                rig = stack.enter_context(Rig(source))
            _measure(with_cluster(rig, size), wanted, figures)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Measures the operator beside a bare client that does the same."
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", help=f"a line, or the beginning of its name; may be repeated: {', '.join(NAMES)}"
    )
    parser.add_argument("--small", action="store_true", help="few resources, to see that the benchmark works; the times mean nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="fill in the table, as in operator/docs/performance.md")
    parser.add_argument(
        "--source", type=Path, metavar="DIRECTORY", help="code of the operator to measure, instead of that of this checkout"
    )
    parser.add_argument("--compare", metavar="BASE", help="measure this revision and the working tree in turn instead")
    args = parser.parse_args()
    size, began, about = SMALL if args.small else Size(), time.monotonic(), machine.description()

    def wanted(name: str) -> bool:
        return any(name.startswith(prefix) for prefix in args.only) if args.only else name not in ON_REQUEST

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is stopped, and what was measured is told
    figures: list[Figure] = []
    ended = 0
    try:
        if args.compare:
            figures += compare(args.compare, size)
        else:
            _measure_all(size, args.source, wanted, figures)
    except ClusterError as error:
        say(f"bench: {error}")
        ended = 1
    except KeyboardInterrupt:
        say("bench: interrupted; this is what was measured so far")
        ended = 130
    print(report.table(figures, about))
    if args.json:
        args.json.write_text(report.document(figures, about))
    if args.markdown:
        command = " ".join(["make bench", *(f"(only {name})" for name in args.only or ())])
        report.fill(args.markdown, report.markdown(figures, about, command))
    say(f"bench: done in {time.monotonic() - began:.0f} s")
    if ended:
        return ended
    return 0 if args.compare or all(figure.met is not False for figure in figures) else 3


if __name__ == "__main__":
    sys.exit(main())
