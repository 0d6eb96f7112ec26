"""Engine directories: what a complete one holds, and what it says about itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trtllm_operator.builder.report import Failure


def rank_file(rank: int) -> str:
    """Name of a rank's engine, as trtllm-build writes it."""
    return f"rank{rank}.engine"


def _incomplete(what: str) -> Failure:
    return Failure(
        "NoEngineProduced",
        f"trtllm-build ended without error, but {what}. It is tried again; if it stays so, the image may be broken",
        step="build",
    )


def check(directory: Path, ranks: int, version: str | None) -> dict[str, Any]:
    """Check that an engine is complete and is the one that was asked for.

    Args:
        directory: of the engine.
        ranks: how many it must have.
        version: of TensorRT-LLM that must have built it.

    Returns:
        Its configuration.

    Raises:
        Failure: NoEngineProduced.
    """
    names = ["config.json", *(rank_file(rank) for rank in range(ranks))]
    for name in names:
        path = directory / name
        if path.is_symlink() or not path.is_file():
            raise _incomplete(f"{name} is missing")
        if path.stat().st_size == 0:
            raise _incomplete(f"{name} is empty")
    try:
        config = json.loads((directory / "config.json").read_bytes())
        said = str(config["version"])
        world = int(config["pretrained_config"]["mapping"]["world_size"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _incomplete(f"config.json of the engine can't be understood ({error!r})") from error
    if version is not None and said.split("+", 1)[0] != version.split("+", 1)[0]:
        raise _incomplete(f"config.json of the engine names version {said}, and {version} was asked for")
    if world != ranks:
        raise _incomplete(f"config.json of the engine names {world} ranks, and {ranks} were asked for")
    return dict(config)


def limits(config: dict[str, Any]) -> dict[str, int]:
    """The limits that an engine was built with, as facts of a report."""
    build = config.get("build_config")
    fields = {"maxSeqLen": "max_seq_len", "maxBatchSize": "max_batch_size"}
    if not isinstance(build, dict):
        return {}
    return {fact: build[name] for fact, name in fields.items() if isinstance(build.get(name), int) and not isinstance(build[name], bool)}
