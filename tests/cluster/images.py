"""Images of this repository: their base, and `docker build` that is skipped when nothing has changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import buildbase, buildcontext, cache, dockerd, rootfs, source, versions
from tests.cluster.dockerd import Docker
from tests.cluster.process import CommandError, run
from tests.cluster.progress import step

_REPOSITORY = "trtllm-operator/base"
_LABEL = "trtllm.dev/inputs"

# Docker knows these build arguments by itself and keeps them out of the image's history.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


def base(docker: Docker) -> str:
    """The image that a Dockerfile's `ARG BASE` gets: the official Python image, or a Debian with python3 of our own."""
    if source.chosen() == "registry":
        return versions.PYTHON_IMAGE
    tag = f"{_REPOSITORY}:{rootfs.digest(rootfs.BASE_PACKAGES)}"
    if not docker("image", "ls", "--quiet", tag).strip():
        tarball = ensure_base()
        with step("importing the base image into Docker"):
            docker("import", "--change", 'CMD ["python3"]', "--change", "ENV PYTHONUNBUFFERED=1", tarball, tag)
    return tag


def base_is_built() -> bool:
    """Whether the cache has the base image."""
    return cache.artifact("base", rootfs.digest(rootfs.BASE_PACKAGES)).exists()


def ensure_base() -> Path:
    """The base image's file system as a tar; built if it is not in the cache."""
    digest = rootfs.digest(rootfs.BASE_PACKAGES)

    def make(target: Path) -> None:
        root = rootfs.tree(rootfs.BASE_PACKAGES)
        run(["tar", "--create", "--numeric-owner", f"--file={target / 'base.tar'}", f"--directory={root}", "."])

    return cache.obtain("base", digest, make) / "base.tar"


@dataclass(frozen=True)
class Recipe:
    """What an image is built from.

    Attributes:
        tag: name of the image; without a tag, `:latest`.
        context: directory; what its `.dockerignore` names is left out, and always `.git`, `.venv` and caches.
        dockerfile: `Dockerfile` in the context if not given; it may lie elsewhere.
        arguments: build arguments; `BASE` is `base()` and `BUILD_BASE` what `buildbase.ensure` makes of it, if not given.
        paths: only these files and directories of the context are sent.
    """

    tag: str
    context: Path
    dockerfile: Path | None = None
    arguments: Mapping[str, str] | None = None
    paths: Iterable[str] | None = None


def build(
    tag: str,
    context: Path,
    dockerfile: Path | None = None,
    *,
    arguments: Mapping[str, str] | None = None,
    paths: Iterable[str] | None = None,
) -> bool:
    """Build an image with the Docker daemon, unless the one of this name was made from the same inputs; see `Recipe`.

    Returns:
        Whether it had to be built.

    Raises:
        CommandError: the build failed; the message has its last lines.
    """
    return _Build(dockerd.ensure(), Recipe(tag, context, dockerfile, arguments, paths)).run()


def build_all(recipes: Sequence[Recipe]) -> None:
    """Build several images. They are kept in the cache together, so that a new daemon gets them back without building.

    Raises:
        CommandError: as `build`.
    """
    docker = dockerd.ensure()
    builds = [_Build(docker, recipe) for recipe in recipes]
    if all(one.is_there() for one in builds):
        return
    key = hashlib.sha256("".join(one.inputs for one in builds).encode()).hexdigest()[:12]
    archive = cache.root() / "images" / f"{key}.tar"
    if archive.exists():
        with step("bringing the images back from the cache"):
            docker("load", "--quiet", f"--input={archive}")
    for one in builds:
        one.run()
    if not archive.exists() and dockerd.is_own():
        with step("keeping the images in the cache"):
            archive.parent.mkdir(parents=True, exist_ok=True)
            for old in archive.parent.glob("*.tar*"):
                old.unlink()
            part = archive.with_suffix(f".tar.{os.getpid()}")
            docker("save", f"--output={part}", *(recipe.tag for recipe in recipes))
            part.rename(archive)


class _Build:
    """One build: its inputs, whether it is needed, and doing it."""

    def __init__(self, docker: Docker, recipe: Recipe) -> None:
        self._docker, self._recipe = docker, recipe
        self._dockerfile = recipe.dockerfile or recipe.context / "Dockerfile"
        self._given = {"BASE": base(docker), **(recipe.arguments or {})}
        self._given.setdefault("BUILD_BASE", buildbase.ensure(docker, self._given["BASE"]))
        self._files = buildcontext.collect(recipe.context, recipe.paths)
        self.inputs = _digest(self._files, self._dockerfile, self._given)

    def is_there(self) -> bool:
        """Whether the daemon has the image, made from the same inputs."""
        return _inspect(self._docker, self._recipe.tag, f'{{{{index .Config.Labels "{_LABEL}"}}}}') == self.inputs

    def run(self) -> bool:
        """Build, if it is not there."""
        if self.is_there():
            return False
        previous = _inspect(self._docker, self._recipe.tag, "{{.Id}}")
        proxies = {name: os.environ[name] for name in _PROXIES if os.environ.get(name)}
        flags = [part for name, value in {**proxies, **self._given}.items() for part in ("--build-arg", f"{name}={value}")]
        with step(f"building the image {self._recipe.tag}"):
            self._docker(
                *("build", "--quiet", "--network=host", f"--tag={self._recipe.tag}", f"--label={_LABEL}={self.inputs}"),
                *(f"--file={buildcontext.DOCKERFILE}", *flags, "-"),
                stdin=buildcontext.pack(self._files, self._dockerfile),
            )
        if previous and previous != _inspect(self._docker, self._recipe.tag, "{{.Id}}"):
            self._docker("image", "rm", previous, check=False)  # nothing names it any more; it stays where something uses it
        return True


def _digest(files: Mapping[str, Path], dockerfile: Path, arguments: Mapping[str, str]) -> str:
    content = {name: [hashlib.sha256(path.read_bytes()).hexdigest(), os.access(path, os.X_OK)] for name, path in files.items()}
    text = json.dumps([content, dockerfile.read_text(), dict(arguments)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _inspect(docker: Docker, tag: str, form: str) -> str:
    try:
        return docker("image", "inspect", f"--format={form}", tag).strip()
    except CommandError:
        return ""
