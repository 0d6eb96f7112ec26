"""The stand-in for kubelets, told of pods by a witness instead of asking for them again and again. For many namespaces at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.support.api import Document
from tests.support.journal_witness import Witness
from tests.support.kubelet_standin import KubeletStandIn


class _Seen:
    """Stands where the stand-in asks for pods: those of the witness, each version once."""

    def __init__(self, api: Any, witness: Witness) -> None:
        self._api = api
        self._witness = witness
        self._done: dict[str, str] = {}

    def list(self, kind: str, _namespace: str) -> list[Document]:
        found = [obj for (known, _), obj in self._witness.state().items() if known == kind]
        return [obj for obj in found if self._done.get(obj["metadata"]["uid"]) != _mark(obj)]

    def patch(self, kind: str, name: str, change: Document, namespace: str, subresource: str) -> None:
        pod = self._witness.state().get((kind, name))
        self._api.patch(kind, name, change, namespace, subresource)
        if pod is not None:
            self._done[pod["metadata"]["uid"]] = _mark(pod)

    def close(self) -> None:
        self._api.close()


def _mark(pod: Document) -> str:
    return f"{pod['metadata']['resourceVersion']} {(pod.get('status') or {}).get('phase')}"


@dataclass
class WatchingKubeletStandIn(KubeletStandIn):
    """As KubeletStandIn."""

    witness: Witness | None = None

    def __post_init__(self) -> None:
        assert self.witness is not None
        self.api = _Seen(self.api, self.witness)  # type: ignore[assignment]
