"""Repositories as the Hub sees them: files with git object ids, commits, references. Ids depend on contents alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

_LFS_SUFFIXES = (".safetensors", ".bin")


@dataclass(frozen=True)
class Blob:
    """A file. One that only claims its size has no content."""

    content: bytes | None
    size: int

    @classmethod
    def of(cls, content: bytes) -> Blob:
        return cls(content, len(content))

    @cached_property
    def sha256(self) -> str:
        """Of the content; of the size where there is none."""
        return hashlib.sha256(self.content if self.content is not None else str(self.size).encode()).hexdigest()

    def pointer(self) -> bytes:
        """The file that git holds in place of a large one."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()


def is_large(path: str) -> bool:
    """Is it kept outside git?"""
    return path.endswith(_LFS_SUFFIXES)


def oid(path: str, blob: Blob) -> str:
    """Git object id of the file, or of its pointer."""
    content = blob.pointer() if is_large(path) else (blob.content or b"")
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def etag(path: str, blob: Blob) -> str:
    """The Hub's ETag: SHA-256 of a large file, git object id of others."""
    return blob.sha256 if is_large(path) else oid(path, blob)


@dataclass(frozen=True)
class Commit:
    """One state of a repository."""

    id: str
    title: str
    files: Mapping[str, Blob]


@dataclass(frozen=True)
class Repository:
    """A model repository. `commits` is in order, the oldest first."""

    name: str
    commits: tuple[Commit, ...]
    references: Mapping[str, Commit]
    gated: Literal[False, "auto", "manual"] = False
    flaky: bool = False
    """The first download of each large file breaks off in the middle."""

    def find(self, revision: str) -> Commit | None:
        """Commit of a branch, a tag, or a full commit id."""
        return self.references.get(revision) or next((commit for commit in self.commits if commit.id == revision), None)


def repository(
    name: str,
    states: Mapping[str, Mapping[str, Blob]],
    *,
    tags: Mapping[str, int] | None = None,
    gated: Literal[False, "auto", "manual"] = False,
    flaky: bool = False,
) -> Repository:
    """A repository from its states, titles first, the oldest first. `main` is the last one; tags name others by their number."""
    commits: list[Commit] = []
    for title, files in states.items():
        parent = commits[-1].id if commits else ""
        listing = "".join(f"{path} {oid(path, blob)} {blob.size}\n" for path, blob in sorted(files.items()))
        digest = hashlib.sha1(f"commit {name}\n{parent}\n{title}\n{listing}".encode(), usedforsecurity=False).hexdigest()
        commits.append(Commit(digest, title, dict(sorted(files.items()))))
    references = {"main": commits[-1], **{tag: commits[number] for tag, number in (tags or {}).items()}}
    return Repository(name, tuple(commits), references, gated, flaky)
