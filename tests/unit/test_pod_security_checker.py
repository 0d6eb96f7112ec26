"""Pod Security's profile `restricted` in Python, written from https://kubernetes.io/docs/concepts/security/pod-security-standards/ (v1.34),
and the list of all fields that a pod of ours may have. Each control here is tried on a pod that breaks it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.support import flow
from tests.unit.test_injection_rendering import pod_templates, render
from tests.unit.test_service_world import service_object

Json = dict[str, Any]

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
}  # fmt: skip
_SELINUX = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def violations(template: Mapping[str, Any]) -> set[str]:
    """Names of the controls that a pod breaks."""
    return set(_violations(template))


def _violations(template: Mapping[str, Any]) -> Iterator[str]:
    spec = template["spec"]
    inside = [c for kind in ("initContainers", "containers", "ephemeralContainers") for c in spec.get(kind, ())]
    contexts = [c.get("securityContext") or {} for c in inside]
    pod = spec.get("securityContext") or {}
    every = [pod, *contexts]
    if any((context.get("windowsOptions") or {}).get("hostProcess") for context in every):
        yield "HostProcess"
    if any(spec.get(field) for field in ("hostNetwork", "hostPID", "hostIPC")):
        yield "Host Namespaces"
    if any(context.get("privileged") for context in contexts):
        yield "Privileged Containers"
    if any("ALL" not in (context.get("capabilities") or {}).get("drop", ()) for context in contexts) or any(
        set((context.get("capabilities") or {}).get("add", ())) - {"NET_BIND_SERVICE"} for context in contexts
    ):
        yield "Capabilities"
    if any(set(volume) - {"name"} - _VOLUMES for volume in spec.get("volumes", ())):
        yield "Volume Types"
    if any(port.get("hostPort") for container in inside for port in container.get("ports", ())):
        yield "Host Ports"
    if any(_action_hosts(container) for container in inside):
        yield "Host Probes / Lifecycle Hooks"
    if any(
        (context.get("appArmorProfile") or {}).get("type", "RuntimeDefault") not in ("RuntimeDefault", "Localhost") for context in every
    ):
        yield "AppArmor"
    if any(_bad_selinux(context.get("seLinuxOptions") or {}) for context in every):
        yield "SELinux"
    if any(context.get("procMount", "Default") != "Default" for context in contexts):
        yield "/proc Mount Type"
    if any(sysctl.get("name") not in _SYSCTLS for sysctl in pod.get("sysctls", ())):
        yield "Sysctls"
    if any(context.get("allowPrivilegeEscalation") is not False for context in contexts):
        yield "Privilege Escalation"
    if any(context.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True for context in contexts) or False in [
        context.get("runAsNonRoot") for context in every
    ]:
        yield "Running as Non-root"
    if any(context.get("runAsUser") == 0 for context in every):
        yield "Running as Non-root user"
    profiles = [(context.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type") for context in contexts]
    if any(profile not in ("RuntimeDefault", "Localhost") for profile in profiles):
        yield "Seccomp"


def _action_hosts(container: Mapping[str, Any]) -> list[str]:
    hooks = [container.get(name) or {} for name in ("livenessProbe", "readinessProbe", "startupProbe")]
    hooks += list((container.get("lifecycle") or {}).values())
    return [action["host"] for hook in hooks for action in hook.values() if isinstance(action, Mapping) and action.get("host")]


def _bad_selinux(options: Mapping[str, Any]) -> bool:
    return options.get("type") not in _SELINUX or bool(options.get("user")) or bool(options.get("role"))


# All fields that a pod of ours may have; `*` stands for any key of a map and [] for an item. What is not here is not passed through.
ALLOWED = """
automountServiceAccountToken enableServiceLinks shareProcessNamespace restartPolicy terminationGracePeriodSeconds activeDeadlineSeconds
priorityClassName runtimeClassName nodeSelector.* imagePullSecrets[].name
securityContext.runAsNonRoot securityContext.runAsUser securityContext.runAsGroup securityContext.fsGroup securityContext.fsGroupChangePolicy
securityContext.seccompProfile.type
tolerations[].key tolerations[].operator tolerations[].value tolerations[].effect tolerations[].tolerationSeconds
topologySpreadConstraints[].maxSkew topologySpreadConstraints[].topologyKey topologySpreadConstraints[].whenUnsatisfiable
topologySpreadConstraints[].labelSelector.matchLabels.*
volumes[].name volumes[].emptyDir volumes[].emptyDir.medium volumes[].emptyDir.sizeLimit volumes[].persistentVolumeClaim.claimName
volumes[].configMap.name
containers[].name containers[].image containers[].imagePullPolicy containers[].command[] containers[].workingDir
containers[].env[].name containers[].env[].value containers[].env[].valueFrom.secretKeyRef.name containers[].env[].valueFrom.secretKeyRef.key
containers[].ports[].name containers[].ports[].containerPort containers[].ports[].protocol
containers[].resources.requests.* containers[].resources.limits.*
containers[].securityContext.allowPrivilegeEscalation containers[].securityContext.readOnlyRootFilesystem
containers[].securityContext.capabilities.drop[]
containers[].terminationMessagePolicy containers[].lifecycle.preStop.sleep.seconds
containers[].volumeMounts[].name containers[].volumeMounts[].mountPath containers[].volumeMounts[].subPath containers[].volumeMounts[].readOnly
"""
_PROBE = ("httpGet.path", "httpGet.port", "httpGet.scheme", "periodSeconds", "timeoutSeconds", "failureThreshold")
_MAPS = ("nodeSelector", "requests", "limits", "matchLabels")
_KNOWN = {
    *ALLOWED.split(),
    *(f"containers[].{probe}.{field}" for probe in ("startupProbe", "readinessProbe", "livenessProbe") for field in _PROBE),
}


def fields(value: Any, path: str = "", *, free: bool = False) -> Iterator[str]:
    """Paths of all values in a pod's spec."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from fields(item, f"{path}.{'*' if free else key}".removeprefix("."), free=not free and key in _MAPS)
    elif isinstance(value, list) and value:
        for item in value:
            yield from fields(item, f"{path}[]")
    else:
        yield path


def strange(template: Mapping[str, Any]) -> set[str]:
    """Fields that no pod of ours may have."""
    found = {path.replace("initContainers[]", "containers[]") for path in fields(template["spec"])}
    return {path for path in found if path not in _KNOWN and path != "initContainers"}


def _template() -> Json:
    [template] = [t for obj, t in pod_templates(render(flow.engine_object(), service_object())) if obj["kind"] == "Deployment"]
    return copy.deepcopy(template)


def _set(*path: Any, value: Any) -> Callable[[Json], None]:
    def change(template: Json) -> None:
        where: Any = template["spec"]
        for name in path[:-1]:
            where = where[name] if isinstance(where, list) else where.setdefault(name, {})
        if isinstance(where, list):
            where.append(value)
        else:
            where[path[-1]] = value

    return change


def _inner(*path: Any, value: Any) -> Callable[[Json], None]:
    return _set("containers", 0, *path, value=value)


BREAKS: list[tuple[str, Callable[[Json], None]]] = [
    ("HostProcess", _set("securityContext", "windowsOptions", value={"hostProcess": True})),
    ("Host Namespaces", _set("hostNetwork", value=True)),
    ("Host Namespaces", _set("hostPID", value=True)),
    ("Privileged Containers", _inner("securityContext", "privileged", value=True)),
    ("Capabilities", _inner("securityContext", "capabilities", value={"drop": ["NET_RAW"]})),
    ("Capabilities", _inner("securityContext", "capabilities", value={"drop": ["ALL"], "add": ["SYS_ADMIN"]})),
    ("Volume Types", _set("volumes", "x", value={"name": "x", "hostPath": {"path": "/"}})),
    ("Host Ports", _inner("ports", value=[{"containerPort": 1, "hostPort": 1}])),
    ("Host Probes / Lifecycle Hooks", _inner("livenessProbe", value={"httpGet": {"host": "169.254.169.254", "port": 80}})),
    ("Host Probes / Lifecycle Hooks", _inner("lifecycle", value={"preStop": {"tcpSocket": {"host": "10.0.0.1", "port": 1}}})),
    ("AppArmor", _inner("securityContext", "appArmorProfile", value={"type": "Unconfined"})),
    ("SELinux", _set("securityContext", "seLinuxOptions", value={"type": "spc_t"})),
    ("/proc Mount Type", _inner("securityContext", "procMount", value="Unmasked")),
    ("Sysctls", _set("securityContext", "sysctls", value=[{"name": "kernel.msgmax", "value": "1"}])),
    ("Privilege Escalation", _inner("securityContext", "allowPrivilegeEscalation", value=True)),
    ("Running as Non-root", _set("securityContext", "runAsNonRoot", value=False)),
    ("Running as Non-root", _inner("securityContext", "runAsNonRoot", value=False)),
    ("Running as Non-root user", _inner("securityContext", "runAsUser", value=0)),
    ("Seccomp", _set("securityContext", "seccompProfile", value={"type": "Unconfined"})),
    ("Seccomp", _set("securityContext", "seccompProfile", value=None)),
]  # fmt: skip


@pytest.mark.parametrize(("control", "change"), BREAKS, ids=[f"{i}-{control}" for i, (control, _) in enumerate(BREAKS)])
def test_a_pod_that_breaks_a_control(control: str, change: Callable[[Json], None]) -> None:
    template = _template()
    assert violations(template) == set()
    change(template)
    assert violations(template) == {control}


STRANGE: list[tuple[str, Callable[[Json], None]]] = [
    ("serviceAccountName", _set("serviceAccountName", value="admin")),
    ("nodeName", _set("nodeName", value="n")),
    ("hostAliases[].ip", _set("hostAliases", value=[{"ip": "1.1.1.1"}])),
    ("volumes[].secret.secretName", _set("volumes", "x", value={"name": "x", "secret": {"secretName": "s"}})),
    ("containers[].envFrom[].secretRef.name", _inner("envFrom", value=[{"secretRef": {"name": "s"}}])),
    ("containers[].args[]", _inner("args", value=["-c"])),
    ("containers[].volumeMounts[].subPathExpr", _inner("volumeMounts", "x", value={"name": "m", "mountPath": "/m", "subPathExpr": "$(A)"})),
    ("containers[].lifecycle.preStop.exec.command[]", _inner("lifecycle", value={"preStop": {"exec": {"command": ["sh"]}}})),
    ("containers[].securityContext.runAsUser", _inner("securityContext", "runAsUser", value=5)),
]


@pytest.mark.parametrize(("field", "change"), STRANGE, ids=[field for field, _ in STRANGE])
def test_a_field_that_no_pod_of_ours_has(field: str, change: Callable[[Json], None]) -> None:
    template = _template()
    assert strange(template) == set()
    change(template)
    assert strange(template) == {field}
