"""What a task's shim is told to run: the task as JSON, with each container's whole environment.

`kecs.runtimes.shim.task` and `.container` read it. Nothing here starts or touches anything.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kecs.runtimes.base import ContainerSpec, PortSpec, TaskSpec
from kecs.runtimes.shim import CONTAINER_VARIABLE, TASK_VARIABLE
from kecs.runtimes.users import NoSuchUser, User, resolve

KEPT_VARIABLES = ("PATH", "HOME", "USER", "LANG", "TMPDIR")
"""Taken from where `kecs start` was called, and all `LC_*` (docs/design/contracts.md, section 7)."""

RUNTIMES_WITH_IMAGES = "kubernetes, k3d"


def order(task: TaskSpec, kept: Mapping[str, str], directory: str) -> dict[str, Any]:
    """Return the order for `task`; `kept` and `directory` are the instance's environment and folder."""
    return {
        "id": task.id,
        "arn": task.arn,
        "containers": [_container(task, one, kept, directory) for one in task.containers],
    }


def _container(task: TaskSpec, one: ContainerSpec, kept: Mapping[str, str], directory: str) -> dict[str, Any]:
    argv = [*one.entry_point, *one.command]
    user: User | None = None
    refused: str | None = None
    if not argv:
        refused = (
            f"CannotStartContainerError: container {one.name} has no command; the local runtime runs "
            f"processes, not images; runtimes that run images: {RUNTIMES_WITH_IMAGES}"
        )
    try:
        user = resolve(one.user) if one.user else None
    except NoSuchUser as error:
        refused = refused or f"CannotStartContainerError: container {one.name}: {error}"
    check = one.health_check
    check_argv = _check_argv(check.command) if check is not None else []
    return {
        "name": one.name,
        "essential": one.essential,
        "argv": argv,
        "environment": environment(task, one, kept, user),
        "directory": str(Path(directory) / one.working_directory) if one.working_directory else directory,
        "user": [user.uid, user.gid, user.groups] if user is not None else None,
        "refused": refused,
        "dependsOn": [[it.container, it.condition] for it in one.depends_on],
        "healthCheck": {
            "argv": check_argv,
            "interval": check.interval,
            "timeout": check.timeout,
            "retries": check.retries,
            "startPeriod": check.start_period,
        }
        if check is not None and check_argv
        else None,
        "stopTimeout": one.stop_timeout,
        "startTimeout": one.start_timeout,
        "ports": sorted({_value(port) for port in one.ports if port.protocol == "tcp"}),
        # Fargate's form: the task's id and ten digits.
        "runtimeId": f"{task.id}-{zlib.crc32(one.name.encode()):010d}",
    }


def environment(
    task: TaskSpec, one: ContainerSpec, kept: Mapping[str, str], user: User | None = None
) -> dict[str, str]:
    """Return the whole environment of a container: kept, ECS's own, ports, then what it says itself."""
    result = {key: kept[key] for key in kept if key in KEPT_VARIABLES or key.startswith("LC_")}
    result.setdefault("PATH", os.defpath)
    if user is not None:
        # Another's HOME would not be true; a container runtime sets them by the user, too.
        result["HOME"] = user.home or "/"
        if user.name is not None:
            result["USER"] = user.name
        else:
            result.pop("USER", None)
    result["AWS_REGION"] = result["AWS_DEFAULT_REGION"] = task.region
    result.update(_ports(task, one))
    result.update(one.environment)
    # By these a task's processes are known for its own after a crash: not even the definition changes them.
    result[TASK_VARIABLE] = task.arn
    result[CONTAINER_VARIABLE] = one.name
    return result


def _ports(task: TaskSpec, one: ContainerSpec) -> dict[str, str]:
    """All of the task's ports; where two containers have the same number, each sees its own."""
    others = [port for other in task.containers if other.name != one.name for port in other.ports]
    result: dict[str, str] = {}
    for port in _tcp_last(others) + _tcp_last(one.ports):
        result[f"PORT_{port.container_port}"] = str(_value(port))
        if port.name:
            result[f"PORT_{port.name.upper().replace('-', '_')}"] = str(_value(port))
    if one.ports:
        result["PORT"] = str(_value(one.ports[0]))
    return result


def _tcp_last(ports: list[PortSpec]) -> list[PortSpec]:
    return sorted(ports, key=lambda port: port.protocol == "tcp")


def _value(port: PortSpec) -> int:
    return port.host_port or port.container_port


def _check_argv(command: list[str]) -> list[str]:
    """Turn a health check's command into arguments; [] when it says `NONE` or nothing."""
    kind, *rest = command or [""]
    if kind == "CMD-SHELL":
        return ["/bin/sh", "-c", *rest] if rest else []
    if kind == "CMD":
        return rest
    return [] if kind in ("", "NONE") else list(command)
