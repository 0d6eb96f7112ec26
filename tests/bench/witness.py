"""The witness's other end: when did what come to be, as somebody sees it who takes no part in it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.cluster.child import dying_with_us
from tests.cluster.controlplane import ControlPlane
from trtllm_operator.kube.resources import BY_KIND, EVENT

MADE = ("ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy")
"""Children of a service that stands still."""


@dataclass(frozen=True)
class Seen:
    """Arrival times of events, on the monotonic clock, in order."""

    times: dict[str, list[float]]
    added: dict[str, list[float]]
    first: dict[str, float]
    """Name of a service -> its first child."""

    @property
    def last(self) -> float:
        """When the last event came."""
        return max((times[-1] for times in self.times.values() if times), default=0.0)


class Witness:
    """A context manager."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._access = [control_plane.url, control_plane.token, str(control_plane.ca)]

    def __enter__(self) -> Self:
        program = Path(__file__).with_name("witness_program.py")
        argv = [*dying_with_us(), sys.executable, str(program)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._write(self._access)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def begin(self, *kinds: str, owners: bool = False) -> None:
        """Watch services and their children from now on. With `owners`, note the first child of each service."""
        kinds = kinds or ("LLMService", *MADE)
        paths = {kind: BY_KIND[kind].path() for kind in kinds}
        if not owners:
            paths["Event"] = EVENT.path()
        self._ask({"watch": paths, "owners": owners})

    def seen(self) -> Seen:
        """What came since `begin`."""
        return Seen(**self._ask({"all": True}))

    def events(self) -> int:
        """How many events came since `begin`. Cheap, so that it can be asked while something is measured."""
        return int(self._ask({"all": False})["events"])

    def has_children(self, names: Sequence[str]) -> bool:
        """Whether a child of each of these services was seen since `begin`."""
        return int(self._ask({"all": False, "names": list(names)})["seen"]) == len(names)

    def _ask(self, question: dict[str, Any]) -> Any:
        self._write(question)
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise ConnectionError("the witness has ended; see its traceback above")
        return json.loads(answer)

    def _write(self, what: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
