"""Kills the operator that leads, again and again, while other tests run: as Knative's chaosduck does during its whole suite.

Who leads says the operators' Lease. Where there is none, any pod of the operator will do.
"""

from __future__ import annotations

import os
import random
import threading
from typing import Self

from tests.cluster.process import CommandError
from tests.support.kubectl import Kubectl

OPERATOR = "app.kubernetes.io/name=trtllm-operator"
LEASE = "trtllm-operator"
PERIOD = 20.0
"""Seconds from one killing to the next on average; each time between half and one and a half of it."""


class Disturber:
    """A context manager: kills from a thread of its own. `kubectl` is for the operator's namespace.

    The times come from a seed (`TRTLLM_E2E_SEED`, else a new one), which is told with the number of pods that were killed.
    """

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        self.seed = int(os.environ.get("TRTLLM_E2E_SEED") or random.SystemRandom().randrange(10**6))
        self._random = random.Random(self.seed)
        self.killed: list[str] = []
        self.leaders = 0
        """How many of them led."""
        self.missed = 0
        """How often the cluster did not answer."""
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="disturber", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        if self._error is not None:
            raise self._error

    def __str__(self) -> str:
        whom = f"{len(self.killed)} pods of the operator were killed, {self.leaders} of which led"
        return f"disturbed: {whom}, {self.missed} times without an answer (TRTLLM_E2E_SEED={self.seed})"

    def _run(self) -> None:
        try:
            while not self._stop.wait(PERIOD * self._random.uniform(0.5, 1.5)):
                try:
                    self.kill()
                except CommandError:  # an API server under load may be slow once; that nobody is killed at all is noticed
                    self.missed += 1
        except BaseException as error:  # noqa: BLE001 - told by the tests' own thread
            self._error = error

    def kill(self) -> None:
        """Kill the one that leads: with a moment to say good-bye, or without."""
        hard = self._random.random() < 0.5
        pods = [pod["metadata"]["name"] for pod in self._kubectl.get("pods", None, f"--selector={OPERATOR}")["items"]]
        holder = str(self._kubectl.get("lease", LEASE).get("spec", {}).get("holderIdentity") or "")
        leading = [name for name in pods if holder and holder.startswith(name)]
        if not pods:
            return  # the last one has gone, and the next one is not there yet
        victim = leading[0] if leading else self._random.choice(pods)
        how = ["--grace-period=0", "--force"] if hard else []
        try:
            self._kubectl("delete", "pod", victim, "--wait=false", "--ignore-not-found", *how)
        except CommandError as error:
            if "not found" not in str(error):
                raise
            return
        self.killed.append(victim)
        self.leaders += bool(leading)
