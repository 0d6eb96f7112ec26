"""kubectl against one cluster, for people's programs: the demo and the e2e tests."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.cluster import binaries
from tests.cluster.process import ClusterError, run

T = TypeVar("T")


def program(*, built: bool) -> Path:
    """kubectl: ours where we built Kubernetes, else the user's."""
    if built:
        return binaries.ensure("kubectl")["kubectl"]
    found = shutil.which("kubectl")
    if found is None:
        raise ClusterError("kubectl is not on PATH: install it, it is needed for the present kubeconfig")
    return Path(found)


@dataclass(frozen=True)
class Kubectl:
    """kubectl with a kubeconfig; None: the present one."""

    kubectl: Path
    kubeconfig: Path | None = None
    namespace: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def _env(self) -> dict[str, str]:
        return {**self.environment, **({"KUBECONFIG": str(self.kubeconfig)} if self.kubeconfig else {})}

    def _argv(self, *arguments: str) -> list[str]:
        return [str(self.kubectl), *(["--namespace", self.namespace] if self.namespace else []), *arguments]

    def __call__(self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
        """Run it, and give what it printed."""
        return run(self._argv(*arguments), env=self._env(), stdin=stdin, check=check, timeout=timeout)

    def within(self, namespace: str) -> Kubectl:
        """The same in a namespace."""
        return Kubectl(self.kubectl, self.kubeconfig, namespace, self.environment)

    def get(self, kind: str, name: str | None = None, *more: str) -> Any:
        """Objects as JSON; {} where the named one does not exist."""
        text = self("get", kind, *([name] if name else []), *more, "--output=json", *(["--ignore-not-found"] if name else []))
        return json.loads(text) if text.strip() else {}

    def apply(self, manifest: str) -> str:
        """Apply YAML as a user does."""
        return self("apply", "--filename=-", stdin=manifest)

    def wait(self, what: str, look: Callable[[], T | None], seconds: float = 120, every: float = 0.5) -> T:
        """Look until there is something, or fail with what is there instead."""
        deadline = time.monotonic() + seconds
        while (found := look()) is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:.0f} s: {what}")
            time.sleep(every)
        return found

    @contextmanager
    def forward(self, target: str, port: int) -> Iterator[str]:
        """Reach a Service of the cluster on loopback. Gives the base URL."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            local = int(free.getsockname()[1])
        process = subprocess.Popen(
            self._argv("port-forward", "--address=127.0.0.1", target, f"{local}:{port}"),
            env={**os.environ, **self._env()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            self.wait(f"port-forward to {target}", lambda: self._listens(process, local), 30, 0.1)
            yield f"http://127.0.0.1:{local}"
        finally:
            process.terminate()
            process.wait(10)
            if process.stderr:
                process.stderr.close()

    @staticmethod
    def _listens(process: subprocess.Popen[bytes], port: int) -> bool | None:
        if process.poll() is not None:
            text = process.stderr.read().decode(errors="replace") if process.stderr else ""
            raise ClusterError(f"kubectl port-forward ended: {text.strip()}")
        with socket.socket() as probe:
            probe.settimeout(1)
            return True if probe.connect_ex(("127.0.0.1", port)) == 0 else None


def condition(obj: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """A condition of an object, or {}."""
    return next((c for c in obj.get("status", {}).get("conditions", ()) if c["type"] == kind), {})
