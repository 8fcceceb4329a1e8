"""The "restricted" profile of the Pod Security Standards, as a function.

Every control of the two tables of https://kubernetes.io/docs/concepts/security/pod-security-standards/ (baseline and
restricted, Linux pods).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_VOLUME_TYPES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
_SECCOMP = {"RuntimeDefault", "Localhost"}


def violations(pod: Mapping[str, Any]) -> list[str]:
    """What a pod spec has against the profile."""
    return list(_violations(pod))


def _violations(pod: Mapping[str, Any]) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    for volume in pod.get("volumes", []):
        for kind in volume.keys() - {"name"} - _VOLUME_TYPES:
            yield f"volume {volume['name']} is a {kind}"
    of_pod = pod.get("securityContext", {})
    for sysctl in of_pod.get("sysctls", []):
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    yield from _context_violations("pod", of_pod)
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in pod.get(kind, []):
            yield from _container_violations(container, of_pod)


def _container_violations(container: Mapping[str, Any], of_pod: Mapping[str, Any]) -> Iterator[str]:
    name, own = container["name"], container.get("securityContext", {})
    yield from _context_violations(name, own)
    if own.get("privileged"):
        yield f"{name} is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name} may escalate"
    if own.get("procMount", "Default") != "Default":
        yield f"{name}: procMount"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield f"{name} keeps capabilities"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{name} adds capabilities"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield f"{name} has a host port"
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        handlers: dict[str, Any] = container.get(probe, {})
        if any(handlers.get(kind, {}).get("host") for kind in ("httpGet", "tcpSocket")):
            yield f"{name}: {probe} goes to another host"
    if own.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is not True:
        yield f"{name} may run as root"
    seccomp: Mapping[str, Any] = own.get("seccompProfile", of_pod.get("seccompProfile", {}))
    if seccomp.get("type") not in _SECCOMP:
        yield f"{name} has no seccomp profile"


def _context_violations(name: str, context: Mapping[str, Any]) -> Iterator[str]:
    """Of what a pod and a container both may say."""
    if context.get("runAsUser") == 0:
        yield f"{name} runs as root"
    if context.get("runAsNonRoot") is False:
        yield f"{name} allows root"
    if "seccompProfile" in context and context["seccompProfile"].get("type") not in _SECCOMP:
        yield f"{name}: seccomp profile"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in _SECCOMP:
        yield f"{name}: AppArmor profile"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield f"{name}: host process"
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type", "") not in _SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield f"{name}: SELinux options"
