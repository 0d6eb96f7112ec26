"""The bare control plane: etcd, kube-apiserver and, if wanted, kube-controller-manager as plain processes on loopback.

No kubelet, no scheduler, no container: objects are stored, validated, watched and garbage-collected, pods never run.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import ssl
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster import binaries, httpwait, pki
from tests.cluster.child import Child, ChildError
from tests.cluster.ports import free_ports

_PREFIX = "trtllm-control-plane-"
_READY_SECONDS = 180.0
"""Several start at the same time, one for each worker of pytest-xdist."""
_STARTS = 3
"""A free port may be taken before we bind it, by programs that are none of ours; so a failed start is tried again with new ports."""


class ControlPlane:
    """A control plane for tests; a context manager.

    Attributes:
        url: `https://127.0.0.1:PORT`; the same port after `restart_apiserver`.
        kubeconfig: file with the url, the authority and the admin token.
        token: bearer token of a user in the group system:masters.
        ca: file of the authority that signed the server's certificate.
        client_certificate, client_key: files, the same user by certificate.
        directory: everything else, logs included; removed by `stop`.
    """

    def __init__(
        self,
        *,
        fsync: bool = False,
        controllers: Sequence[str] | None = None,
        apiserver_arguments: Sequence[str] = (),
    ) -> None:
        """Describe it; `start` (or entering the context) starts it.

        Args:
            fsync: let etcd sync to disk. Off is faster; figures must be taken with it on.
            controllers: names for kube-controller-manager's `--controllers` (`["*"]` is all of them); None starts none.
            apiserver_arguments: more flags for kube-apiserver.
        """
        self._fsync = fsync
        self._controllers = None if controllers is None else list(controllers)
        self._apiserver_arguments = list(apiserver_arguments)
        self._children: dict[str, Child] = {}
        self._paths: dict[str, Path] = {}
        self.token = secrets.token_urlsafe(24)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Build the programs if need be, start everything and wait until `/readyz` answers.

        Raises:
            ClusterError: something did not start; the message has the end of its log.
        """
        wanted = [*(["kube-controller-manager"] if self._controllers is not None else []), "etcd", "kube-apiserver"]
        self._paths = binaries.ensure(*wanted)
        _sweep()
        self.directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        try:
            self._pki = pki.create(self.directory / "pki")
            self.ca = self._pki.ca
            self.client_certificate, self.client_key = self._pki.certificate("admin"), self._pki.key("admin")
            self._tls = ssl.create_default_context(cafile=str(self.ca))
            for attempt in range(1, _STARTS + 1):
                try:
                    self._start_all()
                    break
                except ChildError:
                    self._stop_children()
                    if attempt == _STARTS:
                        raise
        except BaseException:
            self.stop()
            raise

    def _start_all(self) -> None:
        self._etcd_port, self._etcd_peer_port, self._port, self._manager_port = free_ports(4)
        self.url = f"https://127.0.0.1:{self._port}"
        self.kubeconfig = self._write_kubeconfig()
        self._start_etcd()
        self._start_apiserver()
        if self._controllers is not None:
            self._start_controller_manager(self._controllers)

    def stop(self) -> None:
        """Stop every process by its id and remove the directory. Harmless when nothing runs."""
        self._stop_children()
        if hasattr(self, "directory"):
            shutil.rmtree(self.directory, ignore_errors=True)

    def stop_apiserver(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Take the API server away as a crash does; with SIGTERM it first waits up to ten seconds for its watchers to go."""
        self._children.pop("kube-apiserver").stop(how)

    def start_apiserver(self) -> None:
        """Bring it back on the same port with the same data, and wait until it is ready."""
        self._start_apiserver()

    def restart_apiserver(self, how: signal.Signals = signal.SIGKILL) -> None:
        """`stop_apiserver`, then `start_apiserver`."""
        self.stop_apiserver(how)
        self.start_apiserver()

    def restart_controllers(self) -> None:
        """Start Kubernetes' own controllers anew: when the API server was away for long, they wait up to a minute before they ask it again."""
        assert self._controllers is not None, "there are none"
        self._children.pop("kube-controller-manager").stop(signal.SIGKILL)
        self._start_controller_manager(self._controllers)

    def pid(self, name: str) -> int:
        """Process id of `etcd`, `kube-apiserver` or `kube-controller-manager`."""
        return self._children[name].pid

    def log(self, name: str) -> str:
        """What that process has written so far."""
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def _launch(self, name: str, arguments: Sequence[str]) -> Child:
        child = Child([self._paths[name], *arguments], self.directory / f"{name}.log")
        self._children[name] = child
        return child

    def _start_etcd(self) -> None:
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._etcd_peer_port}"
        data = self.directory / "etcd"
        shutil.rmtree(data, ignore_errors=True)
        child = self._launch(
            "etcd",
            [
                f"--data-dir={data}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                "--log-level=warn",
                *([] if self._fsync else ["--unsafe-no-fsync"]),
            ],
        )
        self._await(child, f"{client}/health", self._tls)

    def _start_apiserver(self) -> None:
        tokens = self.directory / "tokens.csv"
        tokens.write_text(f'{self.token},admin,admin,"system:masters"\n')
        keys = self._pki
        child = self._launch(
            "kube-apiserver",
            [
                f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
                "--bind-address=127.0.0.1",
                f"--secure-port={self._port}",
                # Nothing in here is reached through the Service "kubernetes", and its upkeep would write now and then.
                "--endpoint-reconciler-type=none",
                f"--tls-cert-file={keys.certificate('apiserver')}",
                f"--tls-private-key-file={keys.key('apiserver')}",
                f"--client-ca-file={keys.ca}",
                f"--token-auth-file={tokens}",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={keys.key('service-account')}",
                f"--service-account-signing-key-file={keys.key('service-account')}",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--profiling=false",
                *self._apiserver_arguments,
            ],
        )
        self._await(child, f"{self.url}/readyz", self._tls)

    def _start_controller_manager(self, controllers: Sequence[str]) -> None:
        child = self._launch(
            "kube-controller-manager",
            [
                f"--kubeconfig={self.kubeconfig}",
                "--bind-address=127.0.0.1",
                f"--secure-port={self._manager_port}",
                f"--cert-dir={self.directory / 'controller-manager'}",
                f"--controllers={','.join(controllers)}",
                "--leader-elect=false",
                "--use-service-account-credentials",
                f"--service-account-private-key-file={self._pki.key('service-account')}",
                f"--root-ca-file={self.ca}",
                "--profiling=false",
            ],
        )
        # Its serving certificate is of its own making, and what it serves to strangers is its health only.
        self._await(child, f"https://127.0.0.1:{self._manager_port}/healthz", ssl._create_unverified_context())  # noqa: S323

    def _await(self, child: Child, url: str, tls: ssl.SSLContext) -> None:
        httpwait.until_ok(url, token=self.token, tls=tls, seconds=_READY_SECONDS, meanwhile=child.check)

    def _write_kubeconfig(self) -> Path:
        path = self.directory / "kubeconfig"
        name = "control-plane"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.url, "certificate-authority": str(self.ca)}}],
            "users": [{"name": name, "user": {"token": self.token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
            "current-context": name,
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(config, indent=1))
        return path

    def _stop_children(self) -> None:
        for name in ("kube-controller-manager", "kube-apiserver", "etcd"):
            if child := self._children.pop(name, None):
                child.stop(signal.SIGKILL)  # the data goes with the directory, so nothing is lost


def _sweep() -> None:
    """Remove the directories of control planes whose owner was killed."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = directory.name.removeprefix(_PREFIX).split("-")[0]
        if owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(directory, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
