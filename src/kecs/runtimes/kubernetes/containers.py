"""One container of a task as Kubernetes takes it: a member of `containers` or `initContainers`.

ECS's `entryPoint` is Kubernetes' `command`, its `command` is `args`; what is not given is the image's, and an
entry point without a command drops the image's command, on both (Docker's rule; "Define a Command and
Arguments for a Container" in Kubernetes' documentation).
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from kecs.ecs.names import kubernetes_name, port_name
from kecs.ecs.pod_order import Placed
from kecs.ecs.pod_rules import user_ids
from kecs.runtimes.base import ContainerSpec, PortSpec, TaskSpec
from kecs.runtimes.kubernetes import limits, probes, volumes
from kecs.runtimes.kubernetes.expansion import literal, literals

_SECRET_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


def container(
    one: ContainerSpec, task: TaskSpec, place: Placed, pre_stop: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the manifest; `pre_stop` is the action before its stop signal, if any."""
    manifest: dict[str, Any] = {
        "name": kubernetes_name(one.name),
        "image": one.image,
        # A `:latest` image, too, for which Kubernetes' default is Always: one that was only imported into the
        # node is in no registry, and one that is there starts without any. ECS's agent pulls each time and
        # takes what it has when that fails (ECS_IMAGE_PULL_BEHAVIOR=default); a kubelet that fails gives up.
        "imagePullPolicy": "IfNotPresent",
        **_command(one),
        "workingDir": one.working_directory,
        "env": _environment(one, task),
        "ports": [_port(port, task.network_mode) for port in one.ports],
        "resources": limits.resources(one, task),
        "volumeMounts": volumes.mounts(one, task),
        "securityContext": _security(one),
        **probes.probes(one, place),
        "tty": bool(one.definition.get("pseudoTerminal")),
        "stdin": bool(one.definition.get("interactive")),
    }
    if place.role == "sidecar":
        manifest["restartPolicy"] = "Always"
    if pre_stop is not None and place.role != "init":
        manifest["lifecycle"] = {"preStop": pre_stop}
    return {member: value for member, value in manifest.items() if value not in (None, "", [], {}, False)}


def secret_key(container_name: str, variable: str) -> str:
    """Return the key of the task's Secret that holds a variable of a container."""
    if not _SECRET_KEY.fullmatch(variable):
        variable = hashlib.sha256(variable.encode()).hexdigest()[:16]
    return f"{kubernetes_name(container_name)}.{variable}"


def hidden(one: ContainerSpec) -> dict[str, str]:
    """Return the variables of a container that come from `secrets`."""
    return {name: one.environment[name] for name in one.secrets if name in one.environment}


def _command(one: ContainerSpec) -> dict[str, Any]:
    if one.entry_point == [""]:  # Docker: no entry point, not even the image's
        return {"command": literals(one.command)}
    return {"command": literals(one.entry_point), "args": literals(one.command)}


def _environment(one: ContainerSpec, task: TaskSpec) -> list[dict[str, Any]]:
    secrets = hidden(one)
    variables = {
        "AWS_REGION": task.region,
        "AWS_DEFAULT_REGION": task.region,
        **one.environment,
        "KECS_TASK_ARN": task.arn,
        "KECS_CONTAINER_NAME": one.name,
    }
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": task.pod, "key": secret_key(one.name, name)}}}
        if name in secrets
        else {"name": name, "value": literal(value)}
        for name, value in variables.items()
    ]


def _port(port: PortSpec, network_mode: str) -> dict[str, Any]:
    manifest: dict[str, Any] = {
        "name": port_name(port.container_port, port.protocol),
        "containerPort": port.container_port,
        "protocol": port.protocol.upper(),
    }
    if network_mode == "bridge" and port.host_port:
        manifest["hostPort"] = port.host_port
    if network_mode == "host":
        manifest["hostPort"] = port.container_port  # as Kubernetes demands with hostNetwork
    return manifest


def _security(one: ContainerSpec) -> dict[str, Any]:
    said = one.definition
    capabilities = (said.get("linuxParameters") or {}).get("capabilities") or {}
    uid, gid = (user_ids(one.user) if one.user else None) or (None, None)
    privileged = bool(said.get("privileged"))
    no_new = "no-new-privileges" in said.get("dockerSecurityOptions", []) and not privileged
    manifest = {
        "runAsUser": uid,
        "runAsGroup": gid,
        "privileged": privileged or None,
        "readOnlyRootFilesystem": bool(said.get("readonlyRootFilesystem")) or None,
        "allowPrivilegeEscalation": False if no_new else None,
        "capabilities": {kind: names for kind in ("add", "drop") if (names := capabilities.get(kind))}
        or None,
    }
    return {member: value for member, value in manifest.items() if value is not None}
