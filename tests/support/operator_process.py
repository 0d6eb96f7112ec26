"""The operator as its own process, against a control plane for tests."""

from __future__ import annotations

import os
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.child import Child
from tests.cluster.ports import free_ports
from tests.support.waiting import eventually

REPOSITORY = Path(__file__).parents[2]
REAL = ("-m", "trtllm_operator.runtime.main")


def crd_directory() -> Path:
    """Where the CRDs are that a test installs."""
    return Path(os.environ.get("TEST_CRDS", REPOSITORY / "crds"))


class OperatorProcess:
    """A context manager. `program` is what follows `python`: by default the real operator."""

    def __init__(self, kubeconfig: Path, directory: Path, *, program: tuple[str, ...] = REAL, **environment: str) -> None:
        self._kubeconfig = kubeconfig
        self.log_file = directory / "operator.log"
        self._program = program
        self._environment = environment
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)

    def start(self, *, ready: bool = True) -> None:
        """Start it and, unless told otherwise, wait until it is ready."""
        self._metrics_port, self._probes_port = free_ports(2)
        variables = {
            "KUBECONFIG": str(self._kubeconfig),
            "TOOLS_IMAGE": "trtllm-operator/tools:test",
            "METRICS_PORT": str(self._metrics_port),
            "PROBES_PORT": str(self._probes_port),
            "PYTHONPATH": f"{REPOSITORY / 'operator/src'}:{REPOSITORY}",
            "PYTHONUNBUFFERED": "1",
            **self._environment,
        }
        argv = ["/usr/bin/env", *(f"{name}={value}" for name, value in variables.items()), sys.executable, *self._program]
        self._child = Child(argv, self.log_file)
        if ready:
            eventually(self.ready, what="operator ready")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it by a signal and wait for its end."""
        if self._child is not None:
            self._child.stop(how)
            self._child = None

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._child is not None and self._child.running

    @property
    def exit_status(self) -> int | None:
        """How it ended by itself; None while it runs, negative: by a signal."""
        return self._child.exit_status if self._child is not None else None

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._child is not None, "the operator does not run"
        return self._child.pid

    def log(self) -> str:
        """What it has logged so far, over all its starts."""
        return self.log_file.read_text(errors="replace")

    def ready(self) -> bool:
        """Whether it says that it is ready. Raises ChildError where it has ended."""
        assert self._child is not None, "the operator does not run"
        self._child.check()
        return self.probe("readyz") == 200

    def probe(self, name: str) -> int:
        """Status code of a probe; 0 where nothing answers."""
        return self._get(self._probes_port, name)[0]

    def metrics(self) -> dict[str, float]:
        """Samples as `name{label=value,...}` -> value."""
        samples = {}
        for family in text_string_to_metric_families(self._get(self._metrics_port, "metrics")[1]):
            for sample in family.samples:
                labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples

    def idle(self) -> bool:
        """Nothing waits and nothing runs (what is due later may). Not so where it does not answer in time."""
        found = self.metrics()
        return all(found.get(f"trtllm_operator_queue_depth{{state={state}}}") == 0 for state in ("waiting", "running"))

    def _get(self, port: int, path: str) -> tuple[int, str]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""
