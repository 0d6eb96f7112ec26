"""Settings: every wrong variable is named, with cause and remedy."""

from __future__ import annotations

import json
import logging

import pytest

from trtllm_operator.runtime.election import Terms
from trtllm_operator.runtime.logs import JsonFormatter
from trtllm_operator.runtime.settings import SettingsError, read_settings


def test_defaults() -> None:
    settings = read_settings({"TOOLS_IMAGE": "tools:1"})
    assert settings.config.tools_image == "tools:1"
    assert settings.config.tools_pull_policy == "IfNotPresent"
    assert settings.config.runtime_repository == "nvcr.io/nvidia/tensorrt-llm/release"
    assert (settings.metrics_port, settings.probes_port, settings.workers, settings.relist_seconds) == (8080, 8081, 8, 600)
    assert settings.namespaces == ()
    assert settings.read_nodes
    assert settings.election is None


def test_in_a_pod_operators_elect_one() -> None:
    in_pod = {"TOOLS_IMAGE": "tools:1", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert read_settings({**in_pod, "POD_NAMESPACE": "system"}).election == Terms("system")
    assert read_settings({**in_pod, "LEADER_ELECTION": "false"}).election is None
    with pytest.raises(SettingsError, match=r"POD_NAMESPACE is not set.*LEADER_ELECTION to false"):
        read_settings(in_pod)


def test_everything_can_be_set() -> None:
    settings = read_settings(
        {
            "TOOLS_IMAGE": "tools:1",
            "TOOLS_PULL_POLICY": "Never",
            "RUNTIME_REPOSITORY": "registry.example/trtllm",
            "WATCH_NAMESPACE": "a, b,a,",
            "READ_NODES": "false",
            "METRICS_PORT": "0",
            "PROBES_PORT": "9",
            "WORKERS": "2",
            "RELIST_SECONDS": "30",
            "LOG_FORMAT": "json",
            "POD_NAME": "pod-1",
            "LEADER_ELECTION": "true",
            "POD_NAMESPACE": "system",
            "LEASE_NAME": "mine",
            "LEASE_SECONDS": "30",
        }
    )
    assert settings.config.runtime_repository == "registry.example/trtllm"
    assert settings.namespaces == ("a", "b")
    assert not settings.read_nodes
    assert settings.instance == "pod-1"
    assert settings.election == Terms("system", "mine", lease_seconds=30, renew_seconds=20, retry_seconds=4)
    assert settings.log_format == "json"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOOLS_IMAGE", ""),
        ("TOOLS_PULL_POLICY", "Sometimes"),
        ("READ_NODES", "perhaps"),
        ("METRICS_PORT", "http"),
        ("PROBES_PORT", "70000"),
        ("WORKERS", "0"),
        ("RELIST_SECONDS", "-1"),
        ("LOG_FORMAT", "xml"),
        ("LEADER_ELECTION", "maybe"),
        ("LEASE_SECONDS", "2"),
    ],
)
def test_a_wrong_variable_is_named_with_its_remedy(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} is .*(set it to|name the image)"):
        read_settings({"TOOLS_IMAGE": "tools:1", "LEADER_ELECTION": "true", "POD_NAMESPACE": "system", name: value})


def test_json_logs_are_one_object_a_line() -> None:
    record = logging.LogRecord("a.b", logging.WARNING, "f.py", 1, "two\nlines %s", ("ü",), None)
    entry = json.loads(JsonFormatter().format(record))
    assert entry["message"] == "two\nlines ü"
    assert entry["level"] == "warning"
    assert "\n" not in JsonFormatter().format(record)
