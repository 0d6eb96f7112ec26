"""The operator as its own process against a real API server. No kubelet runs: where a test needs one, it uses the stand-in."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.controlplane import ControlPlane
from tests.support.api import Api
from tests.support.audit import Audit
from tests.support.kubelet_standin import KubeletStandIn
from tests.support.operator_process import REAL, OperatorProcess, crd_directory

STUB = ("-m", "tests.support.stub_operator")
_numbers = itertools.count(1)

CONTROLLERS = (
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "job-controller",
    "deployment-controller",
    "replicaset-controller",
    "persistentvolumeclaim-protection-controller",  # without it a claim that is deleted never goes
)


@pytest.fixture(scope="session")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    return Audit(tmp_path_factory.mktemp("audit"))


@pytest.fixture(scope="session")
def control_plane(audit: Audit) -> Iterator[ControlPlane]:
    with ControlPlane(controllers=CONTROLLERS, apiserver_arguments=audit.apiserver_arguments) as running:
        yield running


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Iterator[Api]:
    client = Api(control_plane.url, control_plane.token, control_plane.ca)
    try:
        client.install_crds(crd_directory())
        yield client
    finally:
        client.close()


@pytest.fixture
def namespace(api: Api) -> str:
    """A namespace of the test's own; its operator watches nothing else."""
    return api.with_account(api.namespace(f"loop-{next(_numbers)}"))


@pytest.fixture
def start_operator(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Callable[..., OperatorProcess]]:
    """Starts operators of the test's namespace, and ends them with the test."""
    running: list[OperatorProcess] = []

    def start(*, program: tuple[str, ...] | None = None, ready: bool = True, **environment: str) -> OperatorProcess:
        variables = {"WATCH_NAMESPACE": namespace, "READ_NODES": "true", **environment}
        operator = OperatorProcess(control_plane.kubeconfig, tmp_path, program=program or REAL, **variables)
        running.append(operator)
        operator.start(ready=ready)
        return operator

    yield start
    for operator in running:
        operator.stop(signal.SIGKILL)


@pytest.fixture
def start_stub(start_operator: Callable[..., OperatorProcess]) -> Callable[..., OperatorProcess]:
    """Starts the runtime with decisions of a few lines (tests.support.stub_operator)."""

    def start(**environment: str) -> OperatorProcess:
        return start_operator(program=STUB, **environment)

    return start


@pytest.fixture
def kubelet(api: Api, namespace: str) -> Iterator[KubeletStandIn]:
    """The stand-in for kubelets, in the test's namespace."""
    with KubeletStandIn(api, namespace) as running:
        yield running
