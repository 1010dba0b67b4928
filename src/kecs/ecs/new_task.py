"""Making a task's row: for RunTask, and for the scheduler when a service needs one more task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from kecs.ecs import arn, capacity, container_definitions, names, overrides, platform, tags
from kecs.ecs.context import Context
from kecs.ecs.model import Container, Deployment, Service, Task, TaskDefinition, TaskPort, is_public
from kecs.ecs.state import Reader

RESERVED_PORTS = (22, 2375, 2376, 51678, 51679, 51680)
"""Host ports that are SSH's, Docker's and the container agent's (API reference, PortMapping)."""


def new_task(
    tx: Reader,
    *,
    cluster: str,
    definition: TaskDefinition,
    ctx: Context,
    service: Service | None = None,
    deployment: Deployment | None = None,
    **members: Any,
) -> Task:
    """Build the row of a task, PROVISIONING; it is not put.

    For a service and one of its deployments everything follows from these. For a standalone task
    `members` are members of `Task` (`launch_type`, `capacity_provider_name`, `platform_version`,
    `started_by`, `group`, `tags`, `overrides` as `overrides.filled` gives them, …) and
    `network_configuration`.
    """
    if service is not None and deployment is not None:
        members = {**_of_service(tx, service, deployment, definition), **members}
    network = members.pop("network_configuration", None)
    members.setdefault("overrides", overrides.filled({}, definition))
    members.setdefault("group", f"family:{definition.family}")
    # A task that a capacity provider placed has no launch type; all providers here are Fargate's.
    fargate = members.get("launch_type") == "FARGATE" or members.get("capacity_provider_name") is not None
    members["platform_family"] = platform.family(definition) if fargate else None
    members["platform_version"] = platform.resolved(
        members.get("platform_version"), members["platform_family"]
    )
    task_id = ctx.new_id()
    if ctx.runtime.runs_pods:
        members["namespace"] = names.namespace(
            ctx.runtime.instance, ctx.runtime.instance_id, ctx.region, cluster
        )
        members["pod"] = names.pod_name(service.name if service is not None else definition.family, task_id)
    return Task(
        region=ctx.region,
        cluster=cluster,
        id=task_id,
        task_definition=arn.task_definition_arn(
            ctx.region, definition.family, definition.revision, ctx.account
        ),
        family=definition.family,
        revision=definition.revision,
        containers=_containers(definition, members["overrides"], ctx),
        ports=_ports(definition),
        public=is_public(network),
        ephemeral_storage=_storage(definition, members["overrides"]) if fargate else None,
        attachments=_attachments(network, task_id, ctx),
        attributes=[{"name": "ecs.cpu-architecture", "value": platform.cpu_architecture(definition)}],
        availability_zone=f"{ctx.region}a",
        network_mode=definition.definition["networkMode"],
        created_at=ctx.now,
        **_size(definition, members["overrides"]),
        **members,
    )


def host_port_conflict(tx: Reader, definition: TaskDefinition, ctx: Context) -> int | None:
    """Return a host port that the definition asks for by number and that a living task has; else None.

    A host port is the machine's: tasks of every region and cluster count. Those of Pods are their nodes',
    of which there may be many: finding one that has the port free is Kubernetes' work.
    """
    if ctx.runtime.runs_pods:
        return None
    wanted = {(port.host_port, port.protocol) for port in _ports(definition) if port.host_port}
    if not wanted:
        return None
    for number, _ in sorted(wanted):
        if number in RESERVED_PORTS:
            return number
    taken = {
        (port.host_port, port.protocol)
        for task in tx.scan(Task)
        if task.last_status not in ("STOPPED", "DELETED")
        for port in task.ports
    }
    return min((number for number, _ in wanted & taken), default=None)


def _of_service(
    tx: Reader, service: Service, deployment: Deployment, definition: TaskDefinition
) -> dict[str, Any]:
    """Return the members that a service and its deployment give a task."""
    launch_type, provider = deployment.launch_type, None
    if deployment.capacity_provider_strategy:
        used = Counter(
            task.capacity_provider_name
            for task in tx.scan(Task, service.region, service.cluster)
            if task.started_by == deployment.id and task.desired_status == "RUNNING"
        )
        provider = capacity.choose(deployment.capacity_provider_strategy, _named(used))
    return {
        "service": service.name,
        "started_by": deployment.id,
        "group": f"service:{service.name}",
        "launch_type": launch_type,
        "capacity_provider_name": provider,
        "platform_version": deployment.platform_version,
        "network_configuration": deployment.network_configuration,
        "enable_execute_command": service.enable_execute_command,
        "tags": _service_tags(service, definition),
    }


def _named(used: Mapping[str | None, int]) -> dict[str, int]:
    return {name: count for name, count in used.items() if name is not None}


def _service_tags(service: Service, definition: TaskDefinition) -> tags.Tags:
    inherited: tags.Tags = {}
    if service.propagate_tags == "SERVICE":
        inherited = service.tags
    elif service.propagate_tags == "TASK_DEFINITION":
        inherited = definition.tags
    managed = tags.managed(service.cluster, service.name) if service.enable_ecs_managed_tags else {}
    return tags.of_task({}, inherited, managed)


def _containers(definition: TaskDefinition, overridden: Mapping[str, Any], ctx: Context) -> list[Container]:
    containers = []
    for container in definition.definition["containerDefinitions"]:
        limits = {**container, **overrides.of_container(overridden, container["name"])}
        containers.append(
            Container(
                name=container["name"],
                id=_uuid(ctx.new_id()),
                image=container["image"],
                essential=container["essential"],
                has_health_check="healthCheck" in container,
                cpu=str(limits["cpu"]),
                memory=_text(limits.get("memory")),
                memory_reservation=_text(limits.get("memoryReservation")),
            )
        )
    return containers


def _ports(definition: TaskDefinition) -> list[TaskPort]:
    """Return the ports; `host_port` 0 where KECS is to choose one (docs/design/contracts.md, 7)."""
    mode = definition.definition["networkMode"]
    return [
        TaskPort(
            container=container["name"],
            container_port=port,
            protocol="udp" if protocol == "udp" else "tcp",
            name=name,
            host_port=0 if mode == "awsvpc" else host_port,
        )
        for container in definition.definition["containerDefinitions"]
        for port, host_port, protocol, name in container_definitions.ports_of(container)
    ]


def _size(definition: TaskDefinition, overridden: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task's cpu and memory: its own, or what its containers add up to."""
    document = definition.definition
    containers = document["containerDefinitions"]
    cpu = sum(container["cpu"] for container in containers)
    memory = sum(container.get("memory", container.get("memoryReservation", 0)) for container in containers)
    return {
        "cpu": overridden.get("cpu") or document.get("cpu") or str(cpu),
        "memory": overridden.get("memory") or document.get("memory") or str(memory),
    }


def _storage(definition: TaskDefinition, overridden: Mapping[str, Any]) -> dict[str, Any]:
    asked = overridden.get("ephemeralStorage") or definition.definition.get("ephemeralStorage")
    return dict(asked or {"sizeInGiB": platform.DEFAULT_STORAGE})


def _attachments(network: Mapping[str, Any] | None, task_id: str, ctx: Context) -> list[dict[str, Any]]:
    """Return the network interface of an awsvpc task, in one of its subnets."""
    if network is None:
        return []
    subnets = network["awsvpcConfiguration"]["subnets"]
    subnet = subnets[int(task_id, 16) % len(subnets)]
    return [
        {
            "id": _uuid(ctx.new_id()),
            "type": "ElasticNetworkInterface",
            "status": "PRECREATED",
            "details": [{"name": "subnetId", "value": subnet}],
        }
    ]


def _uuid(digits: str) -> str:
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32]))


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
