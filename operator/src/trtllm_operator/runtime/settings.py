"""Settings of the process, from its environment. Read once, at the start; nothing else reads the environment for settings."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

from trtllm_operator.desired.config import Config
from trtllm_operator.runtime.election import Terms

LogFormat = Literal["json", "text"]


class SettingsError(Exception):
    """A variable is missing or wrong; the message names it, the cause and the remedy."""


@dataclass(frozen=True)
class Settings:
    """How the process runs."""

    config: Config
    """What shapes objects."""

    namespaces: tuple[str, ...] = ()
    """WATCH_NAMESPACE, separated by commas; empty: all namespaces."""

    read_nodes: bool = True
    """READ_NODES: whether to look at nodes at all. Without the right to, the operator goes on without."""

    metrics_port: int = 8080
    """METRICS_PORT; 0: any free port (it is logged)."""

    probes_port: int = 8081
    """PROBES_PORT; 0: any free port (it is logged)."""

    workers: int = 8
    """WORKERS: passes at the same time."""

    relist_seconds: float = 600.0
    """RELIST_SECONDS between two complete lists of each kind, which cure what a watch missed."""

    log_format: LogFormat = "text"
    """LOG_FORMAT: json or text."""

    instance: str = "trtllm-operator"
    """POD_NAME, or the host's name and the process: who posted an Event, and who leads."""

    election: Terms | None = None
    """LEADER_ELECTION (by default true in a pod), POD_NAMESPACE, LEASE_NAME, LEASE_SECONDS; None: this process always works."""


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings from environment variables.

    Raises:
        SettingsError: a variable is missing or wrong.
    """
    image = environment.get("TOOLS_IMAGE", "")
    if not image:
        raise SettingsError("TOOLS_IMAGE is not set: name the image of trtllm-operator's tools, which the Jobs run")
    shaping = {"TOOLS_PULL_POLICY": "tools_pull_policy", "RUNTIME_REPOSITORY": "runtime_repository"}
    config = Config(tools_image=image, **{field: environment[name] for name, field in shaping.items() if environment.get(name)})
    if config.tools_pull_policy not in ("Always", "IfNotPresent", "Never"):
        raise SettingsError(f"TOOLS_PULL_POLICY is {config.tools_pull_policy!r}: set it to Always, IfNotPresent or Never")
    log_format = environment.get("LOG_FORMAT") or "text"
    if log_format not in ("json", "text"):
        raise SettingsError(f"LOG_FORMAT is {log_format!r}: set it to json or text")
    return Settings(
        config=config,
        namespaces=tuple(dict.fromkeys(name.strip() for name in environment.get("WATCH_NAMESPACE", "").split(",") if name.strip())),
        read_nodes=_truth(environment, "READ_NODES", default=True),
        metrics_port=_number(environment, "METRICS_PORT", 8080, 0, 65535),
        probes_port=_number(environment, "PROBES_PORT", 8081, 0, 65535),
        workers=_number(environment, "WORKERS", 8, 1, 64),
        relist_seconds=float(_number(environment, "RELIST_SECONDS", 600, 1, 86400)),
        log_format=cast("LogFormat", log_format),
        instance=environment.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}",
        election=_election(environment),
    )


def _election(environment: Mapping[str, str]) -> Terms | None:
    in_pod = bool(environment.get("KUBERNETES_SERVICE_HOST")) and not environment.get("KUBECONFIG")
    if not _truth(environment, "LEADER_ELECTION", default=in_pod):
        return None
    namespace = environment.get("POD_NAMESPACE", "")
    if not namespace:
        raise SettingsError(
            "POD_NAMESPACE is not set: name the namespace of the Lease by which operators elect one that works, or set LEADER_ELECTION to "
            "false where there is only one"
        )
    seconds = _number(environment, "LEASE_SECONDS", 15, 3, 300)
    # In the proportions that client-go has: 15, 10 and 2 seconds.
    terms = Terms(namespace, lease_seconds=seconds, renew_seconds=seconds * 10 / 15, retry_seconds=seconds * 2 / 15)
    name = environment.get("LEASE_NAME", "")
    return replace(terms, name=name) if name else terms


def _number(environment: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = environment.get(name, "")
    if not text:
        return default
    if not text.isdigit() or not least <= int(text) <= most:
        raise SettingsError(f"{name} is {text!r}: set it to a whole number from {least} to {most}, or leave it out for {default}")
    return int(text)


def _truth(environment: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = environment.get(name, "").lower()
    if not text:
        return default
    if text not in ("true", "false"):
        raise SettingsError(f"{name} is {text!r}: set it to true or false")
    return text == "true"
