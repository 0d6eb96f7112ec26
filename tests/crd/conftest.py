"""A real API server with our resource definitions, for the whole tier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.controlplane import ControlPlane
from tests.crd import objects
from tests.support.api import Api, ApiRefusedError
from trtllm_operator.kube.resources import BY_KIND

ROOT = Path(__file__).parents[2]
NAMESPACE = "default"


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """The server's processes."""
    with ControlPlane() as running:
        yield running


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Iterator[Api]:
    """A client, after our definitions were installed."""
    client = Api(control_plane.url, control_plane.token, control_plane.ca)
    client.install_crds(ROOT / "crds")
    yield client
    client.close()


@dataclass(frozen=True)
class Refusal:
    """What the server says against an object."""

    causes: tuple[tuple[str, str], ...]
    """Field and message."""

    def names(self, field: str, *texts: str) -> bool:
        """Whether one cause is about this field and has all these texts."""
        return any(found == field and all(text in message for text in texts) for found, message in self.causes)


class Judge:
    """Asks the server about objects, and makes none: every request is a dry run."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._there = {kind: api.create(objects.whole(kind, "judged")) for kind in objects.SPECS}

    def __call__(self, obj: Mapping[str, Any], *, part: str = "spec") -> Refusal | None:
        """None where the server takes the object: as a new one, or with `status` as the status of one that is there."""
        if part == "status":
            return self._ask("PUT", obj, {**self._there[obj["kind"]], "status": obj["status"]}, "judged", "status")
        return self._ask("POST", obj, obj)

    def update(self, obj: Mapping[str, Any]) -> Refusal | None:
        """The same for its spec as a change of one that is there."""
        return self._ask("PUT", obj, {**self._there[obj["kind"]], "spec": obj["spec"]}, "judged")

    def _ask(self, method: str, obj: Mapping[str, Any], body: Mapping[str, Any], *names: str) -> Refusal | None:
        path = BY_KIND[obj["kind"]].path(NAMESPACE, *names)
        try:
            self._api.request(method, path, body, dryRun="All", fieldValidation="Strict")
        except ApiRefusedError as error:
            if error.status != 422:
                raise
            return Refusal(tuple((cause["field"], cause["message"]) for cause in error.document["details"]["causes"]))
        return None


@pytest.fixture(scope="session")
def judge(api: Api) -> Judge:
    """See Judge."""
    return Judge(api)
