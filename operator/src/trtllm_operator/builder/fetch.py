"""Stage fetch: the files of a checkpoint onto a volume, then their manifest. Interrupted, it goes on where it was."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trtllm_operator.builder import disk, download, files, lock, manifest, model, selection
from trtllm_operator.builder.console import INTERVAL, Advance, Progress, Rate
from trtllm_operator.builder.files import Entry, Hashed
from trtllm_operator.builder.hub import Hub, Revision
from trtllm_operator.builder.manifest import Manifest
from trtllm_operator.builder.report import Failure
from trtllm_operator.builder.request import Request
from trtllm_operator.builder.resolve import claim_files

KIND = "Checkpoint"
_FILES = "files"
_CACHE = ".cache"  # huggingface_hub's notes about which files are there, and our unfinished files
_PARTS = f"{_CACHE}/trtllm-parts"
_PARTIAL = ".incomplete"  # huggingface_hub's name for a part of a file, which it never goes on with (#4228 there)
_DOWNLOADED = 90.0  # percent; the rest is hashing what was not hashed on the way
_MOST_TRIES = 20


def run(request: Request, progress: Progress) -> dict[str, Any]:
    """Facts of the report.

    Raises:
        Failure: the source can't be had, or the volume is too small.
    """
    started = time.monotonic()
    source, directory = request.source(), request.path("directory")
    with lock.held(directory, progress):
        done = _complete(directory, str(source["revision"]))
        if done is None:
            done = _hub(source, directory, progress) if source["kind"] == "huggingFace" else _claim(source, directory, progress)
            manifest.write(directory / manifest.NAME, done)
    progress.update(100, "the checkpoint is complete")
    return {"bytes": done.size, "files": len(done.files), "seconds": round(time.monotonic() - started, 1)}


def _complete(directory: Path, revision: str) -> Manifest | None:
    """The manifest, if this checkpoint is there already. A manifest that is not true any more is removed."""
    path = directory / manifest.NAME
    found = manifest.read(path)
    if found is not None and found[0].kind == KIND and found[0].revision == revision:
        with contextlib.suppress(Failure):
            if manifest.difference(directory, found[0]) is None:
                return found[0]
    path.unlink(missing_ok=True)
    return None


def _manifest(revision: str, hashed: Sequence[Hashed], source: Mapping[str, Any]) -> Manifest:
    origin = {key: source[key] for key in ("kind", "repo") if key in source}
    listed = tuple(Hashed(f"{_FILES}/{file.path}", file.size, file.sha256) for file in hashed)
    return Manifest(KIND, revision, listed, facts={"source": origin}, created_at=manifest.now())


def _hub(source: Mapping[str, Any], directory: Path, progress: Progress) -> Manifest:
    hub = Hub(source)
    progress.update(0, f"asking {hub.endpoint} for {hub.where}")
    revision = hub.look_up()
    if revision.commit != hub.revision:
        raise Failure(
            "SourceChanged", f"{hub.endpoint} gives commit {revision.commit} for {hub.where}. Change spec.source to resolve it again"
        )
    chosen = selection.select(revision.entries, source)
    selection.check(chosen, revision.entries, hub.where)
    root = _root(directory)
    parts = {f"{_PARTS}/{download.part_name(*pair)}" for pair in hub.resumable(revision, chosen).values()}
    _remove_others(root, {entry.path for entry in chosen} | parts)
    total = sum(entry.size for entry in chosen)
    disk.require(directory, max(0, total - files.tree_bytes(root)), f"downloading {hub.where}")
    wrong, known = "", dict[str, Hashed]()
    for _ in range(2):  # a file that was damaged on the way is fetched once more
        _download(hub, revision, chosen, root, known, progress)
        hashed = _hash(root, chosen, known, progress)
        wrong = _forget_wrong(root, revision, chosen, hashed, known)
        if not wrong:
            break
    else:
        raise Failure("SourceChanged", f"{wrong}, also when fetched again from {hub.endpoint}. The hub or a proxy on the way is broken")
    shutil.rmtree(root / _CACHE, ignore_errors=True)
    model.check_files(root, [entry.path for entry in chosen], hub.where)
    return _manifest(revision.commit, hashed, source)


def _download(hub: Hub, revision: Revision, chosen: list[Entry], root: Path, known: dict[str, Hashed], progress: Progress) -> None:
    before = -1
    with _watch(root, sum(entry.size for entry in chosen), progress):
        for attempt in range(1, _MOST_TRIES + 1):
            try:
                known |= hub.download(revision, chosen, root, root / _PARTS)
            except Failure as failure:
                # While each try brings more, a bad line is no reason to start a new pod.
                now = files.tree_bytes(root)
                if failure.reason != "HubUnreachable" or now <= before or attempt == _MOST_TRIES:
                    raise
                before = now
            else:
                return


@contextlib.contextmanager
def _watch(root: Path, total: int, progress: Progress) -> Iterator[None]:
    """Say how many bytes are on the disk, while others write them."""
    rate = Rate(total, files.tree_bytes(root))
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(INTERVAL):
            done = min(files.tree_bytes(root), total)
            progress.update(_DOWNLOADED * done / max(total, 1), f"downloaded {disk.human(done)} of {disk.human(total)}", rate.eta(done))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _hash(root: Path, chosen: Sequence[Entry], known: dict[str, Hashed], progress: Progress) -> list[Hashed]:
    """Hashes of all files. What was hashed on the way is not read again: each byte is read at most once."""
    found = {entry.path: entry for entry in files.scan(root, skip_hidden=True)}
    missing = [entry.path for entry in chosen if entry.path not in found]
    if missing:
        raise Failure("HubUnreachable", f"{missing[0]} was not delivered, and neither were {len(missing) - 1} others. It is tried again")
    left = [found[entry.path] for entry in chosen if entry.path not in known]
    advance = Advance(progress, sum(entry.size for entry in left), "hashing", (_DOWNLOADED, 99))
    known |= {file.path: file for file in files.hash_all(root, left, advance, durable=True)}
    return [known[entry.path] for entry in chosen]


def _forget_wrong(root: Path, revision: Revision, chosen: Sequence[Entry], hashed: Sequence[Hashed], known: dict[str, Hashed]) -> str:
    """Remove files that are not what the hub says; what is wrong with the last of them, or an empty text."""
    wrong = ""
    for entry, file in zip(chosen, hashed, strict=True):
        expected = revision.sha256.get(entry.path)
        if file.size != entry.size:
            wrong = f"{entry.path} has {file.size} bytes, and the hub says {entry.size}"
        elif expected is not None and file.sha256 != expected:
            wrong = f"{entry.path} has SHA-256 {file.sha256}, and the hub says {expected}"
        else:
            continue
        (root / entry.path).unlink()
        del known[entry.path]
        shutil.rmtree(root / _CACHE, ignore_errors=True)
    return wrong


def _root(directory: Path) -> Path:
    """The directory of the model's files. A link in its place would make us write, and remove, what is somewhere else."""
    root = directory / _FILES
    if root.is_symlink():
        root.unlink()
    root.mkdir(exist_ok=True)
    return root


def _remove_others(root: Path, wanted: set[str]) -> None:
    """Remove what an earlier try with other patterns, or somebody else, left."""
    for path in sorted(root.rglob("*"), reverse=True):
        name = path.relative_to(root).as_posix()
        ours = path.suffix == _PARTIAL or path.parent == root / _PARTS
        if name.split("/", 1)[0] == _CACHE and not path.is_symlink() and not ours:
            continue
        if path.is_symlink() or (path.is_file() and name not in wanted):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _claim(source: Mapping[str, Any], directory: Path, progress: Progress) -> Manifest:
    origin, chosen = claim_files(source)
    root = _root(directory)
    _remove_others(root, {entry.path for entry in chosen})
    total = sum(entry.size for entry in chosen)
    disk.require(directory, max(0, total - files.tree_bytes(root)), f"copying {origin}")
    digest = ""
    for _ in range(2):  # what an earlier try copied may be of an older state
        reused = any((root / entry.path).exists() for entry in chosen)
        hashed = files.copy_all(origin, root, chosen, Advance(progress, total, f"copying {disk.human(total)}", (0, 99)))
        digest = files.tree_digest(hashed)
        if digest == source["revision"]:
            model.check_files(root, [entry.path for entry in chosen], str(origin))
            return _manifest(digest, hashed, source)
        shutil.rmtree(root)
        root.mkdir()
        if not reused:
            break
    raise Failure(
        "SourceChanged",
        f"the files in {origin} have the digest {digest}, and {source['revision']} was resolved: they have changed since. "
        "Keep the source unchanged, or change spec.source to resolve it again",
    )
