"""Two revisions of the operator in turn, in one run: the other one from a worktree of its own."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.goals import Figure, ratio
from tests.bench.line_restart import restart
from tests.bench.line_settle import settle
from tests.bench.plan import Size
from tests.bench.rig import REPOSITORY, Rig, Settled
from tests.cluster.process import ClusterError
from tests.cluster.progress import say


@contextlib.contextmanager
def _worktree(revision: str) -> Iterator[Path]:
    """The operator's code as of a revision. Raises ClusterError where there is none."""
    with tempfile.TemporaryDirectory(prefix="trtllm-bench-base-") as directory:
        tree = Path(directory) / "base"
        done = subprocess.run(
            ["git", "worktree", "add", "--detach", str(tree), revision], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ClusterError(f"no worktree of {revision}: {done.stderr.strip()}; give a commit, a branch or a tag of this repository")
        try:
            yield tree / "operator" / "src"
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=REPOSITORY, capture_output=True, check=False)


def compare(base: str, size: Size) -> list[Figure]:
    """Settling and restarting: the working tree's figures by those of `base`, pair by pair."""
    count = size.settle[0]
    settled: dict[str, list[Settled]] = {"base": [], "here": []}
    started: dict[str, list[float]] = {"base": [], "here": []}
    with _worktree(base) as source, Rig() as rig:
        for number in range(1, size.repetitions + 1):
            for name, code in (("base", source), ("here", None)):
                population = rig.prepare(count)
                settled[name].append(settle(rig, population, code))
                started[name].append(restart(rig, population, code)[0])
                rig.clear(population)
                say(
                    f"    {number} of {size.repetitions}, {name}: settled in {settled[name][-1].seconds:.2f} s, started in {started[name][-1]:.2f} s"
                )
    here, there = settled["here"], settled["base"]
    return [
        ratio("compare", f"{count} services until settled / {base}", [run.seconds for run in here], [run.seconds for run in there], None),
        ratio("compare", f"CPU of the operator for that / {base}", [run.cpu for run in here], [run.cpu for run in there], None),
        ratio("compare", f"RSS after that / {base}", [run.rss for run in here], [run.rss for run in there], None),
        ratio("compare", f"start until all is verified, {count} services / {base}", started["here"], started["base"], None),
    ]
