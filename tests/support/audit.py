"""Who wrote what: read from the API server's own audit log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection]
- level: None
"""


@dataclass(frozen=True)
class Write:
    """One write that reached the API server."""

    agent: str
    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int

    @property
    def by_operator(self) -> bool:
        """Whether the operator sent it, by our client or by kopf's (which names itself kopf)."""
        return self.agent.startswith(("trtllm-operator", "kopf"))


class Audit:
    """The audit log of one control plane."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "audit.log"
        self._policy = directory / "audit-policy.yaml"
        self._policy.write_text(_POLICY)

    @property
    def apiserver_arguments(self) -> Sequence[str]:
        """Flags that switch it on; written at once, so that a test sees what was answered."""
        return (f"--audit-policy-file={self._policy}", f"--audit-log-path={self._log}", "--audit-log-mode=blocking")

    def mark(self) -> int:
        """A position in the log, for `since`."""
        return self._log.stat().st_size if self._log.exists() else 0

    def since(self, mark: int) -> list[Write]:
        """Writes after a position."""
        if not self._log.exists():
            return []
        with self._log.open("rb") as log:
            log.seek(mark)
            lines = log.read().decode().splitlines()
        return [_write(json.loads(line)) for line in lines if line.endswith("}")]

    def by_operator(self, mark: int) -> list[Write]:
        """The operator's writes after a position."""
        return [write for write in self.since(mark) if write.by_operator]


def _write(entry: dict[str, object]) -> Write:
    target = entry.get("objectRef") or {}
    answer = entry.get("responseStatus") or {}
    assert isinstance(target, dict)
    assert isinstance(answer, dict)
    return Write(
        agent=str(entry.get("userAgent", "")),
        verb=str(entry.get("verb", "")),
        resource=str(target.get("resource", "")),
        subresource=str(target.get("subresource", "")),
        namespace=str(target.get("namespace", "")),
        name=str(target.get("name", "")),
        code=int(answer.get("code", 0)),
    )
