"""Stage resolve: which commit, how many bytes, what model. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trtllm_operator.builder import files, model, selection
from trtllm_operator.builder.console import Advance, Progress
from trtllm_operator.builder.files import Entry
from trtllm_operator.builder.hub import Hub
from trtllm_operator.builder.report import Failure
from trtllm_operator.builder.request import Request


def run(request: Request, progress: Progress) -> dict[str, Any]:
    """Facts of the report.

    Raises:
        Failure: the source can't be used.
    """
    source = request.source()
    return _hub(source, progress) if source["kind"] == "huggingFace" else _claim(source, progress)


def _hub(source: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    hub = Hub(source)
    progress.update(0, f"asking {hub.endpoint} for {hub.where}")
    revision = hub.look_up()
    chosen = selection.select(revision.entries, source)
    selection.check(chosen, revision.entries, hub.where)
    return _facts(revision.commit, chosen, model.facts(hub.config(revision), hub.where))


def _facts(revision: str, chosen: Sequence[Entry], about: Mapping[str, Any]) -> dict[str, Any]:
    return {"revision": revision, "bytes": sum(entry.size for entry in chosen), "files": len(chosen), **about}


def _claim(source: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    root, chosen = claim_files(source)
    where = str(root)
    about = model.facts(model.read_config(root / "config.json", where), where)
    advance = Advance(progress, sum(entry.size for entry in chosen), "hashing the source", (0, 100))
    return _facts(files.tree_digest(files.hash_all(root, chosen, advance)), chosen, about)


def claim_files(source: Mapping[str, Any]) -> tuple[Path, list[Entry]]:
    """Directory on a claim, and the files in it that make up the model.

    Raises:
        Failure: InvalidModel.
    """
    root = Path(source["path"])
    if ".." in root.parts or not root.is_dir():
        raise Failure("InvalidModel", f"{root} is not a directory on the claim. Correct source.pvc.path")
    if root.resolve() != root:
        raise Failure(
            "InvalidModel",
            f"{root} is or leads through a symbolic link, which are not followed. Give the directory itself in source.pvc.path",
        )
    every = files.scan(root, skip_hidden=True)
    chosen = selection.select(every, source)
    selection.check(chosen, every, f"source.pvc.path ({root})")
    return root, chosen
