"""The container definitions of a task definition: their defaults and their rules.

Called by `kecs.ecs.task_definitions` at registration. Rules without another source are those of the API
reference, ContainerDefinition. All errors are ClientExceptions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from kecs.ecs import names
from kecs.ecs.errors import ClientException

_IMAGE = re.compile(r"[A-Za-z0-9\-_:./#@]{1,255}")
_PORT_NAME = re.compile(r"[a-z0-9_][a-z0-9_-]{0,63}")
_RANGE = re.compile(r"(\d{1,5})-(\d{1,5})")
SMALLEST_MEMORY = 4
"""MiB; Docker takes no less."""
MOST_PORTS = 100
"""Port mappings of one container, and ports that KECS makes room for in one task."""
HEALTH_CHECK_RANGES: dict[str, tuple[int, int, int | None]] = {
    "interval": (5, 300, 30), "timeout": (2, 60, 5), "retries": (1, 10, 3), "startPeriod": (0, 300, None),
}  # fmt: skip
"""Smallest, largest and default value of a health check's members (API reference, HealthCheck)."""
_NETWORKS_OF_ITS_OWN = ("awsvpc", "host")
"""Network modes in which a container's port is the port: there is nothing to map it to."""

Definition = dict[str, Any]


def filled(given: Sequence[Definition], network_mode: str) -> list[Definition]:
    """Return the definitions with the defaults that ECS shows; raises ClientException."""
    if not given:
        raise ClientException("Container definitions should not be null or empty.")
    return [_filled(container, network_mode) for container in given]


def check(containers: Sequence[Definition], network_mode: str, task_memory: str | None) -> None:
    """Raise ClientException when filled definitions break a rule among themselves or with their task."""
    for name, count in Counter(container["name"] for container in containers).items():
        if count > 1:
            raise ClientException(f"Container names must be unique within a task definition: '{name}'.")
    if not any(container["essential"] for container in containers):
        raise ClientException("A task definition must have at least one essential container.")
    for container in containers:
        _check_memory(container, task_memory)
        _check_secrets_and_files(container)
        if network_mode == "awsvpc" and container.get("links"):
            raise ClientException("Links are not supported when networkMode=awsvpc.")
    _check_ports(containers, network_mode)
    _check_dependencies(containers)


def ports_of(container: Definition) -> list[tuple[int, int, str, str | None]]:
    """Return (container port, host port, protocol, name) of each port of a filled definition."""
    ports: list[tuple[int, int, str, str | None]] = []
    for mapping in container["portMappings"]:
        protocol, name = mapping["protocol"], mapping.get("name")
        if first_and_last := mapping.get("containerPortRange"):
            first, last = map(int, first_and_last.split("-"))
            ports += [(port, mapping.get("hostPort", 0), protocol, None) for port in range(first, last + 1)]
        else:
            ports.append((mapping["containerPort"], mapping["hostPort"], protocol, name))
    return ports


def _filled(container: Definition, network_mode: str) -> Definition:
    for member in ("name", "image"):
        if not container.get(member):
            raise ClientException(f"Container.{member} should not be null or empty.")
    if not names.is_name(container["name"]):
        raise ClientException("Container.name contains invalid characters.")
    if not _IMAGE.fullmatch(container["image"]):
        raise ClientException("Container.image contains invalid characters.")
    defaults: Definition = {
        "cpu": 0, "essential": True, "environment": [], "mountPoints": [], "volumesFrom": [],
        "systemControls": [],
    }  # fmt: skip
    result = {**defaults, **container}
    if result["cpu"] < 0:
        raise ClientException(f"Invalid 'cpu' setting for container '{container['name']}'.")
    result["portMappings"] = [
        _port_mapping(container["name"], mapping, network_mode)
        for mapping in container.get("portMappings", [])
    ]
    if "healthCheck" in container:
        result["healthCheck"] = _health_check(container["name"], container["healthCheck"])
    return result


def _port_mapping(container: str, mapping: Definition, network_mode: str) -> Definition:
    protocol = "udp" if mapping.get("protocol") == "udp" else "tcp"
    if "containerPortRange" in mapping:
        if network_mode not in ("bridge", "awsvpc"):
            raise ClientException(f"containerPortRange is not supported when networkMode={network_mode}.")
        if "containerPort" in mapping or "hostPort" in mapping:
            raise ClientException("containerPortRange cannot be specified with containerPort or hostPort.")
        match = _RANGE.fullmatch(mapping["containerPortRange"])
        if match is None or not 1 <= int(match[1]) < int(match[2]) <= 65535:
            raise ClientException(
                f"Invalid 'containerPortRange' setting for container '{container}': "
                f"'{mapping['containerPortRange']}'. It is two ports between 1 and 65535, the lower first."
            )
        return {**mapping, "protocol": protocol}
    port: int = mapping.get("containerPort", 0)
    if not 1 <= port <= 65535:
        raise ClientException(
            f"Invalid 'containerPort' setting for container '{container}'. It must be between 1 and 65535."
        )
    default: int = port if network_mode in _NETWORKS_OF_ITS_OWN else 0
    host_port: int = mapping.get("hostPort", default)
    if network_mode in _NETWORKS_OF_ITS_OWN and host_port == 0:
        host_port = port
    if not 0 <= host_port <= 65535:
        raise ClientException(
            f"Invalid 'hostPort' setting for container '{container}'. It must be between 0 and 65535."
        )
    return {**mapping, "containerPort": port, "hostPort": host_port, "protocol": protocol}


def _health_check(container: str, check: Definition) -> Definition:
    command = check["command"]
    if len(command) < 2 or command[0] not in ("CMD", "CMD-SHELL"):
        raise ClientException(
            f"Invalid 'healthCheck' setting for container '{container}'. "
            "The command must start with CMD or CMD-SHELL and say what to run."
        )
    result = dict(check)
    for member, (smallest, largest, default) in HEALTH_CHECK_RANGES.items():
        value: int | None = result.get(member, default)
        if value is None:
            continue
        if not smallest <= value <= largest:
            raise ClientException(
                f"Invalid 'healthCheck' setting for container '{container}'. "
                f"'{member}' must be between {smallest} and {largest}."
            )
        result[member] = value
    return result


def _check_memory(container: Definition, task_memory: str | None) -> None:
    name, hard, soft = container["name"], container.get("memory"), container.get("memoryReservation")
    if hard is None and soft is None and task_memory is None:
        raise ClientException(
            f"Invalid setting for container '{name}'. "
            "At least one of 'memory' or 'memoryReservation' must be specified."
        )
    if any(limit is not None and limit < SMALLEST_MEMORY for limit in (hard, soft)):
        raise ClientException(
            f"Invalid setting for container '{name}'. 'memory' and 'memoryReservation' must be at least "
            f"{SMALLEST_MEMORY}."
        )
    if hard is not None and soft is not None and soft > hard:
        raise ClientException(
            f"Invalid setting for container '{name}'. 'memory' must be greater than 'memoryReservation'."
        )
    needed = hard if hard is not None else soft
    if task_memory is not None and needed is not None and needed > int(task_memory):
        raise ClientException(
            f"Invalid setting for container '{name}'. Its memory of {needed} MiB is more than the task's: "
            f"{task_memory} MiB."
        )


def _check_secrets_and_files(container: Definition) -> None:
    if len(container.get("environmentFiles", ())) > 10:
        raise ClientException(f"Container '{container['name']}' can have up to 10 environment files.")
    variables = [secret["name"] for secret in container.get("secrets", ())]
    plain = {item.get("name") for item in container["environment"]}
    for variable, count in Counter(variables).items():
        if count > 1 or variable in plain:
            raise ClientException(
                f"The secret name must be unique and not shared with any new or existing environment "
                f"variables set on the container, such as '{variable}'."
            )


def _check_ports(containers: Sequence[Definition], network_mode: str) -> None:
    by_name: Counter[str] = Counter()
    total = 0
    for container in containers:
        if network_mode == "none" and container["portMappings"]:
            raise ClientException("Port mappings are not supported when networkMode=none.")
        for mapping in container["portMappings"]:
            if network_mode in _NETWORKS_OF_ITS_OWN and "containerPort" in mapping:
                _check_same(mapping, network_mode)
            if name := mapping.get("name"):
                by_name[name] += 1
        ports = ports_of(container)
        total += len(ports)
        for (port, protocol), count in Counter((port, protocol) for port, _, protocol, _ in ports).items():
            if count > 1:
                raise ClientException(
                    f"A port can only be included in one port mapping per container: {port}/{protocol} of "
                    f"container '{container['name']}'."
                )
    if total > MOST_PORTS:
        raise ClientException(
            f"The ports of a task, {total}, are more than KECS makes room for: {MOST_PORTS}."
        )
    for name, count in by_name.items():
        if not _PORT_NAME.fullmatch(name):
            raise ClientException(
                f"Invalid port mapping name '{name}'. Up to 64 lowercase letters, numbers, underscores and "
                "hyphens are allowed; it cannot start with a hyphen."
            )
        if count > 1:
            raise ClientException(f"Port mapping names must be unique within a task definition: '{name}'.")
    if network_mode in ("bridge", "host"):
        _check_host_ports(containers)


def _check_same(mapping: Definition, network_mode: str) -> None:
    if mapping["hostPort"] != mapping["containerPort"]:
        raise ClientException(
            f"When networkMode={network_mode}, the host ports and container ports in port mappings "
            "must match."
        )


def _check_host_ports(containers: Sequence[Definition]) -> None:
    """Refuse a literal host port that two mappings of a task want: the task could never start."""
    wanted = Counter(
        (host_port, protocol)
        for container in containers
        for _, host_port, protocol, _ in ports_of(container)
        if host_port
    )
    for (port, protocol), count in wanted.items():
        if count > 1:
            raise ClientException(
                f"Host port {port}/{protocol} is used more than once in the task definition."
            )


def _check_dependencies(containers: Sequence[Definition]) -> None:
    by_name = {container["name"]: container for container in containers}
    graph: dict[str, list[str]] = {}
    for container in containers:
        graph[container["name"]] = []
        for dependency in container.get("dependsOn", ()):
            target = by_name.get(dependency["containerName"])
            if target is None:
                raise ClientException(
                    f"Container '{container['name']}' depends on '{dependency['containerName']}', which is "
                    "not a container of the task definition."
                )
            condition = dependency["condition"]
            if condition in ("COMPLETE", "SUCCESS") and target["essential"]:
                raise ClientException(
                    "A dependency container with SUCCESS or COMPLETE condition cannot be an essential "
                    "container"
                )
            if condition == "HEALTHY" and "healthCheck" not in target:
                raise ClientException(
                    "A dependency container with HEALTHY condition must have a health check configured: "
                    f"'{target['name']}'."
                )
            graph[container["name"]].append(target["name"])
    _check_no_cycle(graph, "Container dependencies should not have a cycle")
    links = {
        container["name"]: [link.partition(":")[0] for link in container.get("links", ())]
        for container in containers
    }
    _check_no_cycle(links, "Container links should not have a cycle")


def _check_no_cycle(graph: dict[str, list[str]], message: str) -> None:
    """Take away, again and again, what waits for nothing; what is left waits in a circle."""
    left = {name: {target for target in targets if target in graph} for name, targets in graph.items()}
    while free := {name for name, targets in left.items() if not targets}:
        left = {name: targets - free for name, targets in left.items() if name not in free}
    if left:
        raise ClientException(message)
