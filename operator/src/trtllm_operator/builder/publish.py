"""Stage publish: check and hash the files, put them in their place, write the manifest last. Needs no GPU."""

from __future__ import annotations

import fnmatch
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtllm_operator.builder import engine, files, lock, manifest, model
from trtllm_operator.builder.build import COMPLETE
from trtllm_operator.builder.console import Advance, Progress
from trtllm_operator.builder.files import Entry, Hashed
from trtllm_operator.builder.manifest import Manifest
from trtllm_operator.builder.report import Failure
from trtllm_operator.builder.request import Request

# What a server needs beside an engine: trtllm-build writes none of it.
TOKENIZER = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "config.json", "generation_config.json", "chat_template*"),
    *("vocab*", "merges*", "*.model", "tekken.json"),
)


def run(request: Request, progress: Progress) -> dict[str, Any]:
    """Facts of the report.

    Raises:
        Failure: there is nothing complete to publish.
    """
    recipe, directory, key = request.text("recipe"), request.path("directory"), request.text("key")
    if not key.isalnum():  # it becomes part of a file's name
        raise Failure("InternalError", f"--request: {key!a} is not a key")
    with lock.held(directory, progress):
        if recipe == "TensorRTEngine":
            return _engine(request, directory, key, progress)
        return _checkpoint(request, recipe, directory, key, progress)


def _report(recipe: str, said: Manifest, digest: str, places: Mapping[str, str]) -> dict[str, Any]:
    limits = {name: said.facts[name] for name in ("maxSeqLen", "maxBatchSize") if name in said.facts}
    return {"kind": recipe, **places, "bytes": said.size, "files": len(said.files), "digest": digest, **limits}


def _engine(request: Request, directory: Path, key: str, progress: Progress) -> dict[str, Any]:
    places = {"path": f"{directory.name}/artifact/engine", "tokenizerPath": f"{directory.name}/artifact/tokenizer"}
    path, attempts = directory / manifest.NAME, request.path("attempts")
    found = manifest.read(path)
    if found is not None:
        manifest.require_key(directory, found[0], key)
        advance = Advance(progress, found[0].size, "comparing with the manifest", (0, 99))
        if (wrong := manifest.content_difference(directory, found[0], advance)) is not None:
            raise Failure("EngineCorrupt", f"the engine in {directory} is damaged: {wrong}. Delete the LLMEngineBuild: it is built again")
        shutil.rmtree(attempts, ignore_errors=True)
        progress.update(100, "the engine is published already")
        return _report("TensorRTEngine", *found, places)
    facts = request.table("facts")
    artifact, built = _place(request, directory, attempts)
    config = engine.check(artifact / "engine", request.number("ranks"), facts.get("runtimeVersion"))
    entries = [Entry(f"artifact/{entry.path}", entry.size) for entry in files.scan(artifact)]
    advance = Advance(progress, sum(entry.size for entry in entries), "hashing the engine", (0, 99))
    hashed = files.hash_all(directory, entries, advance, durable=True)
    said = Manifest(
        kind="TensorRTEngine",
        revision=_revision(request.path("checkpoint")),
        files=tuple(hashed),
        key=key,
        facts={**facts, **engine.limits(config), **({"build": built} if built else {})},
        created_at=manifest.now(),
    )
    digest = manifest.write(path, said)
    shutil.rmtree(attempts, ignore_errors=True)
    progress.update(100, "the engine is published")
    return _report("TensorRTEngine", said, digest, places)


def _revision(checkpoint: Path) -> str:
    found = manifest.read(checkpoint.parent / manifest.NAME)
    return found[0].revision if found else ""


def _complete(attempts: Path) -> list[Path]:
    """Attempts that are done. A link is none of ours: what is behind it would be moved."""
    if attempts.is_symlink() or not attempts.is_dir():
        return []
    return [path for path in attempts.iterdir() if path.name.isdigit() and not path.is_symlink() and (path / COMPLETE).is_file()]


def _place(request: Request, directory: Path, attempts: Path) -> tuple[Path, dict[str, Any]]:
    """Bring the newest complete attempt to its final place, or find it there: each move is one rename, so this can stop anywhere.

    Returns:
        The artifact's directory, and what its build reported.
    """
    artifact = directory / "artifact"
    complete = _complete(attempts)
    if not complete:
        if not artifact.is_dir():
            raise Failure("NoEngineProduced", f"there is no complete attempt in {attempts}. Delete the LLMEngineBuild: it is built again")
        return artifact, {}
    newest = max(complete, key=lambda path: int(path.name))
    staged = newest / "artifact"
    staged.mkdir(exist_ok=True)
    if (newest / "engine").is_dir():
        engine.check(newest / "engine", request.number("ranks"), None)
        shutil.rmtree(staged / "engine", ignore_errors=True)
        (newest / "engine").rename(staged / "engine")
    if (staged / "engine").is_dir():
        _tokenizer(request.path("checkpoint"), staged / "tokenizer")
        shutil.rmtree(artifact, ignore_errors=True)  # without a manifest it is nothing
        staged.rename(artifact)
        files.sync_directory(directory)
    return artifact, _built(newest)


def _built(attempt: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((attempt / COMPLETE).read_bytes())["facts"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _tokenizer(checkpoint: Path, target: Path) -> None:
    """Copy tokenizer and configuration, so that an engine can be served without its checkpoint."""
    target.mkdir(exist_ok=True)
    chosen = [
        entry
        for entry in files.scan(checkpoint, skip_hidden=True)
        if "/" not in entry.path and any(fnmatch.fnmatchcase(entry.path, pattern) for pattern in TOKENIZER)
    ]
    files.copy_all(checkpoint, target, chosen, lambda _: None)


def _checkpoint(request: Request, recipe: str, directory: Path, key: str, progress: Progress) -> dict[str, Any]:
    root = request.path("checkpoint")
    places = {"path": f"{directory.name}/{root.name}"}
    path = directory / f"artifact-{key}.json"
    source = manifest.read(directory / manifest.NAME)
    if source is None:
        raise Failure("InternalError", f"{directory} has no manifest, so the checkpoint is not complete. It is tried again")
    checkpoint = source[0]
    advance = Advance(progress, checkpoint.size, "comparing with the manifest", (0, 99))
    if (wrong := manifest.content_difference(directory, checkpoint, advance)) is not None:
        (directory / manifest.NAME).unlink()  # so that the next fetch looks at every file
        raise Failure("EngineCorrupt", f"the checkpoint in {directory} is damaged: {wrong}. Delete the LLMEngineBuild: it is fetched again")
    known = manifest.read(path)
    if known is not None and known[0].key == key and _same(known[0].files, checkpoint.files):
        progress.update(100, "the checkpoint is published already")
        return _report(recipe, *known, places)
    about = model.facts(model.read_config(root / "config.json", str(root)), str(root))
    limits = {"maxSeqLen": about["maxPositionEmbeddings"]} if "maxPositionEmbeddings" in about else {}
    said = Manifest(recipe, checkpoint.revision, checkpoint.files, key, {**request.table("facts"), **limits}, manifest.now())
    digest = manifest.write(path, said)
    progress.update(100, "the checkpoint is published")
    return _report(recipe, said, digest, places)


def _same(one: tuple[Hashed, ...], other: tuple[Hashed, ...]) -> bool:
    return sorted(one, key=lambda file: file.path) == sorted(other, key=lambda file: file.path)
