"""The operator behind a fault proxy, on a real API server with Kubernetes' own controllers; kubelets are a stand-in.

A tier of its own: `make test-faults`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster.controlplane import ControlPlane
from tests.faults.case import Ground
from tests.faults.forkserver import ForkServer
from tests.faults.run import ALL, NOTES, Reference, reference_of
from tests.faults.scenarios import SCENARIOS
from tests.support.api import Api, ApiRefusedError
from tests.support.faultproxy_loop import LoopThread
from tests.support.operator_process import crd_directory
from tests.support.waiting import eventually

CONTROLLERS = (
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "job-controller",
    "deployment-controller",
    "replicaset-controller",
    "disruption-controller",
    "persistentvolumeclaim-protection-controller",  # without it a claim that is deleted never goes
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "faults: the operator under injected faults, on a real API server")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("faults")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if NOTES:
        terminalreporter.section("faults")
    for line in NOTES:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    directory = tmp_path_factory.mktemp("faults")
    with (
        ForkServer(directory) as operators,
        LoopThread() as loop,
        ControlPlane(controllers=CONTROLLERS) as control_plane,
    ):
        api = Api(control_plane.url, control_plane.token, control_plane.ca)
        try:
            api.install_crds(crd_directory())
            eventually(lambda: _served(api), what="the CRDs' paths served")
            yield Ground(control_plane, api, loop, operators, directory)
        finally:
            api.close()


def _served(api: Api) -> bool:
    """Established comes a moment before the paths are there."""
    try:
        return all(api.list(kind) is not None for kind in ("LLMEngine", "LLMEngineBuild", "LLMService"))
    except ApiRefusedError as error:
        if error.status in (404, 429):
            return False
        raise


@pytest.fixture(scope="session")
def reference(ground: Ground) -> Iterator[Callable[[str], Reference]]:
    """Undisturbed runs of a scenario, made when they are first asked for; of all of them at the same time, where one asks for all."""
    known: dict[str, Future[Reference]] = {}
    with ThreadPoolExecutor(len(SCENARIOS)) as pool:

        def look_up(name: str) -> Reference:
            for wanted in SCENARIOS if name == ALL else (name,):
                if wanted not in known:
                    known[wanted] = pool.submit(reference_of, ground, SCENARIOS[wanted])
            return known[next(iter(SCENARIOS)) if name == ALL else name].result()

        yield look_up
