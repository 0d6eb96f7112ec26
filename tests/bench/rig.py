"""What every line of the benchmark needs: a control plane with fsync, a bare client, a witness, a recorder, and operators as they are shipped."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from tests.bench import engines, machine
from tests.bench.bare import Bare
from tests.bench.population import SERVICES_PER_ENGINE, Population, clear, prepare
from tests.bench.recorder import Recorder
from tests.bench.replay import Score
from tests.bench.witness import Witness
from tests.cluster.controlplane import ControlPlane
from tests.support.api import Api
from tests.support.operator_process import OperatorProcess, crd_directory
from tests.support.waiting import eventually

T = TypeVar("T")
QUIET_SECONDS = 1.0
SHIPPED = ("-m", "trtllm_operator", "run")
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Settled:
    """A population that an operator has settled. Seconds from the first request of the users."""

    seconds: float
    deployments: float
    """Until the last Deployment was there."""
    cpu: float
    """CPU seconds of the operator."""
    rss: float
    """MB in the end."""
    passes: float
    """Passes over all resources."""


class Rig:
    """A context manager. `source` is the operator's code; by default that of this checkout."""

    def __init__(self, source: Path | None = None) -> None:
        self.source = source
        self.scores: dict[int, Score] = {}
        """By number of services: what the operator writes for them, where a line has recorded it."""
        self.settled: dict[int, list[Settled]] = {}
        """By number of services: runs of other lines, which need not be measured again."""
        self._number = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trtllm-bench-")))
            self.control_plane = stack.enter_context(ControlPlane(fsync=True))
            self.api = Api(self.control_plane.url, self.control_plane.token, self.control_plane.ca)
            stack.callback(self.api.close)
            self.api.install_crds(crd_directory())
            self.witness = stack.enter_context(Witness(self.control_plane))
            self.recorder = stack.enter_context(Recorder(self.control_plane))
            self._recorded = self.recorder.kubeconfig(self.directory / "recorded.kubeconfig")
            with self.operator():
                self.model = engines.bring_up(self.api, "bench-model")
            self.run(lambda bare: clear(bare, [self.model.namespace]))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, work: Callable[[Bare], Awaitable[T]]) -> T:
        """Do something with a bare client, in an event loop of its own."""

        async def doing() -> T:
            async with Bare(self.control_plane.kubeconfig) as bare:
                return await work(bare)

        return asyncio.run(doing())

    def process(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        recorded: bool = False,
        program: tuple[str, ...] = SHIPPED,
        source: Path | None = None,
    ) -> OperatorProcess:
        """An operator that is not started yet, as shipped: default settings, and its log as JSON."""
        kubeconfig = self._recorded if recorded else self.control_plane.kubeconfig
        code = source or self.source
        variables = {"LOG_FORMAT": "json", **machine.bytecode(self.directory / "bytecode"), **(environment or {})}
        if code is not None:
            variables["PYTHONPATH"] = f"{code}:{REPOSITORY}"
        return OperatorProcess(kubeconfig, self.directory, program=program, **variables)

    @contextlib.contextmanager
    def operator(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        recorded: bool = False,
        program: tuple[str, ...] = SHIPPED,
        source: Path | None = None,
    ) -> Iterator[OperatorProcess]:
        """One that is ready and has nothing to do."""
        running = self.process(environment, recorded=recorded, program=program, source=source)
        try:
            running.start()
            eventually(running.idle, what="the operator is idle", seconds=300, every=0.2)
            yield running
        finally:
            running.stop(signal.SIGTERM if sys.exc_info()[0] is None else signal.SIGKILL)

    def prepare(self, count: int, per_engine: int = SERVICES_PER_ENGINE, letter: str = "s") -> Population:
        """Namespaces with verified engines for so many services, which are not there yet. No operator may be running."""
        self._number += 1
        number = self._number
        return self.run(lambda bare: prepare(bare, self.model, number, count, per_engine, letter))

    def clear(self, *populations: Population) -> None:
        """Delete everything of them. No operator may be running."""
        namespaces = [group.namespace for population in populations for group in population.groups]
        self.run(lambda bare: clear(bare, namespaces))

    def quiet(self, operator: OperatorProcess, *, seconds: float = 600.0) -> None:
        """Wait until the operator has nothing to do and nothing more is seen of it."""
        count, since = -1, time.monotonic()

        def still() -> bool:
            nonlocal count, since
            now = self.witness.events()
            if now != count or not operator.idle():
                count, since = now, time.monotonic()
            return time.monotonic() - since >= QUIET_SECONDS

        eventually(still, what="everything is settled", seconds=seconds, every=0.4)
