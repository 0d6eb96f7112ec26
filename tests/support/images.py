"""Our images: which there are, and building them. The demo and the e2e tests use the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import dockerd, images

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Image:
    """One image: its name and what it is built from. `context` is a folder of the repository; `paths` are those that its Dockerfile copies."""

    name: str
    dockerfile: str
    context: str = "."
    paths: Sequence[str] | None = None
    arguments: dict[str, str] = field(default_factory=dict)


SIMULATORS = ("1.2.1", "1.3.0rc29")
OPERATOR = "trtllm-operator/operator:dev"

ALL: tuple[Image, ...] = (
    Image(
        OPERATOR,
        "images/operator/Dockerfile",
        paths=("pyproject.toml", "README.md", "LICENSE", "operator/src", "images/operator/requirements.txt"),
    ),
    Image(
        "trtllm-operator/tools:dev",
        "images/tools/Dockerfile",
        paths=("operator/src/trtllm_operator/builder", "images/tools/requirements.txt"),
    ),
    *(
        Image(
            f"trtllm-operator/simulator:{version}",
            "images/simulator/Dockerfile",
            context="images/simulator",
            arguments={"SIMULATOR_VERSION": version},
        )
        for version in SIMULATORS
    ),
    Image("trtllm-operator/hub:dev", "images/hub/Dockerfile", context="images/hub"),
)


def build_all() -> list[str]:
    """Build what has changed. Returns the names of all images."""
    images.build_all([images.Recipe(i.name, ROOT / i.context, ROOT / i.dockerfile, i.arguments, i.paths) for i in ALL])
    return [image.name for image in ALL]


def push_all(registry: str) -> dict[str, str]:
    """Push all images to a registry of the user's. Returns the new name of each."""
    docker = dockerd.ensure()
    renamed = {}
    for image in ALL:
        target = f"{registry.rstrip('/')}/{image.name.split('/', 1)[1]}"
        docker("tag", image.name, target)
        docker("push", target)
        renamed[image.name] = target
    return renamed
