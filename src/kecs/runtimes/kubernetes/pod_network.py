"""What of a task's containers the whole Pod has: network, names, processes, kernel settings, platform.

In ECS most of these are a container's own; the containers of a Pod share one network, one host name and one
/etc/hosts. Where they do not agree, the first one that says something counts (`kecs explain` says so).
"""

from __future__ import annotations

import re
from typing import Any

from kecs.runtimes.base import TaskSpec

MOST_NAMESERVERS = 3
"""The resolver of the C library takes no more, and Kubernetes refuses more."""
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_ANNOTATION = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_RESERVED = ("kubernetes.io/", "k8s.io/", "kecs.dev/")
"""Ends of the prefixes of annotations that mean something to Kubernetes or to KECS."""
_ARCHITECTURES = {"X86_64": "amd64", "ARM64": "arm64"}


def spec(task: TaskSpec) -> dict[str, Any]:
    """Return these members of the Pod's `spec`."""
    said = [one.definition for one in task.containers]
    sysctls = {it["namespace"]: it["value"] for one in said for it in one.get("systemControls", [])}
    found: dict[str, Any] = {
        "hostNetwork": task.network_mode == "host",
        "hostPID": task.definition.get("pidMode") == "host",
        "hostIPC": task.definition.get("ipcMode") == "host",
        "shareProcessNamespace": task.definition.get("pidMode") == "task",
        "hostname": next((it["hostname"] for it in said if is_hostname(it.get("hostname"))), None),
        "hostAliases": _aliases(said),
        "affinity": _affinity(task.definition.get("runtimePlatform") or {}),
        **_dns(said),
    }
    if sysctls:
        found["securityContext"] = {
            "sysctls": [{"name": name, "value": value} for name, value in sysctls.items()]
        }
    return {member: value for member, value in found.items() if value}


def docker_labels(task: TaskSpec) -> dict[str, str]:
    """Return the Docker labels of all containers that can be annotations."""
    found: dict[str, str] = {}
    for one in task.containers:
        for name, value in (one.definition.get("dockerLabels") or {}).items():
            if is_annotation(name):
                found.setdefault(name, value)
    return found


def is_annotation(name: str) -> bool:
    """Tell whether a Docker label can be an annotation of the Pod."""
    prefix = name.rpartition("/")[0] + "/"
    return _ANNOTATION.fullmatch(name) is not None and not prefix.endswith(_RESERVED)


def is_hostname(name: str | None) -> bool:
    """Tell whether a Pod can have this host name."""
    return name is not None and _DNS_LABEL.fullmatch(name) is not None


def _dns(said: list[dict[str, Any]]) -> dict[str, Any]:
    servers = list(dict.fromkeys(it for one in said for it in one.get("dnsServers", [])))
    searches = list(dict.fromkeys(it for one in said for it in one.get("dnsSearchDomains", [])))
    config = {"nameservers": servers[:MOST_NAMESERVERS], "searches": searches}
    return {
        "dnsPolicy": "None" if servers else None,
        "dnsConfig": {member: value for member, value in config.items() if value},
    }


def _aliases(said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return /etc/hosts: `extraHosts`, and linked containers, which are on this network's own 127.0.0.1."""
    pairs = [(it["ipAddress"], it["hostname"]) for one in said for it in one.get("extraHosts", [])]
    for one in said:
        for link in one.get("links", []):
            name, _, alias = link.partition(":")
            pairs += [("127.0.0.1", each) for each in (name, alias) if each]
    by_address: dict[str, list[str]] = {}
    for address, name in dict.fromkeys(pairs):
        if _DNS_NAME.fullmatch(name):
            by_address.setdefault(address, []).append(name)
    return [{"ip": address, "hostnames": names} for address, names in by_address.items()]


def _affinity(platform: dict[str, Any]) -> dict[str, Any]:
    """Prefer nodes of the task's platform; not more, since an image for several runs on any of them."""
    wanted = {
        "kubernetes.io/arch": _ARCHITECTURES.get(platform.get("cpuArchitecture", "")),
        "kubernetes.io/os": "windows"
        if platform.get("operatingSystemFamily", "").startswith("WINDOWS")
        else None,
    }
    terms = [
        {"key": label, "operator": "In", "values": [value]}
        for label, value in wanted.items()
        if value is not None
    ]
    if not terms:
        return {}
    preferred = {"weight": 100, "preference": {"matchExpressions": terms}}
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}}
