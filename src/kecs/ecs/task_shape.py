"""The API's Task, from its row: shape and members as recorded from AWS for Fargate and EC2."""

from __future__ import annotations

from typing import Any

from kecs.ecs import arn, tags
from kecs.ecs.context import Context
from kecs.ecs.model import Container, Task

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - what ECS shows as the address of a host port; nothing is bound here
_TIMES = {
    "connectivityAt": "connectivity_at", "pullStartedAt": "pull_started_at",
    "pullStoppedAt": "pull_stopped_at", "startedAt": "started_at", "stoppingAt": "stopping_at",
    "executionStoppedAt": "execution_stopped_at", "stoppedAt": "stopped_at",
}  # fmt: skip
_WHEN_KNOWN = {
    "startedBy": "started_by", "capacityProviderName": "capacity_provider_name",
    "launchType": "launch_type", "platformVersion": "platform_version", "platformFamily": "platform_family",
    "cpu": "cpu", "memory": "memory", "stopCode": "stop_code", "stoppedReason": "stopped_reason",
}  # fmt: skip
_BINDS_HOST_PORTS = ("bridge", "host")
_NOT_YET_RUNNING = ("PROVISIONING", "PENDING", "ACTIVATING")


def describe(task: Task, ctx: Context, include_tags: bool = False) -> dict[str, Any]:
    """Return the API's Task."""
    described: dict[str, Any] = {
        "taskArn": arn.task_arn(task.region, task.cluster, task.id, ctx.account),
        "clusterArn": arn.cluster_arn(task.region, task.cluster, ctx.account),
        "taskDefinitionArn": task.task_definition,
        "group": task.group,
        "lastStatus": task.last_status,
        "desiredStatus": task.desired_status,
        "healthStatus": task.health_status,
        "availabilityZone": task.availability_zone,
        "attachments": [_attachment(task, attachment) for attachment in task.attachments],
        "attributes": task.attributes,
        "containers": [_container(task, container, ctx) for container in task.containers],
        "overrides": task.overrides,
        "inferenceAccelerators": [],
        "enableExecuteCommand": task.enable_execute_command,
        "version": task.version,
        "createdAt": round(task.created_at, 3),
        "tags": tags.to_list(_kept_tags(task)) if include_tags else [],
    }
    for member, name in _WHEN_KNOWN.items():
        if (value := getattr(task, name)) is not None:
            described[member] = value
    for member, name in _TIMES.items():
        if (time := getattr(task, name)) is not None:
            described[member] = round(time, 3)
    if task.connectivity_at is not None:
        described["connectivity"] = "CONNECTED"
    if task.ephemeral_storage is not None:
        described["ephemeralStorage"] = task.ephemeral_storage
        described["fargateEphemeralStorage"] = task.ephemeral_storage
    return described


def _container(task: Task, container: Container, ctx: Context) -> dict[str, Any]:
    described: dict[str, Any] = {
        "containerArn": arn.container_arn(task.region, task.cluster, task.id, container.id, ctx.account),
        "taskArn": arn.task_arn(task.region, task.cluster, task.id, ctx.account),
        "name": container.name,
        "image": container.image,
        "lastStatus": container.last_status,
        "healthStatus": container.health_status,
        "networkBindings": _network_bindings(task, container),
        "networkInterfaces": _network_interfaces(task),
        "managedAgents": [],
        "gpuIds": [],
        "cpu": container.cpu,
    }
    optional = {
        "runtimeId": container.runtime_id, "exitCode": container.exit_code, "reason": container.reason,
        "memory": container.memory, "memoryReservation": container.memory_reservation,
    }  # fmt: skip
    return described | {member: value for member, value in optional.items() if value is not None}


def _network_bindings(task: Task, container: Container) -> list[dict[str, Any]]:
    """Return the host ports in bridge and host mode, once the task runs; awsvpc has none."""
    if task.network_mode not in _BINDS_HOST_PORTS or task.last_status in _NOT_YET_RUNNING:
        return []
    return [
        {
            "bindIP": ANY_ADDRESS,
            "containerPort": port.container_port,
            "hostPort": port.host_port,
            "protocol": port.protocol,
        }
        for port in task.ports
        if port.container == container.name and port.host_port
    ]


def _address(task: Task) -> str:
    return task.ports[0].host if task.ports else "127.0.0.1"


def _network_interfaces(task: Task) -> list[dict[str, Any]]:
    if task.connectivity_at is None:
        return []
    return [
        {"attachmentId": attachment["id"], "privateIpv4Address": _address(task)}
        for attachment in task.attachments
    ]


def _attachment(task: Task, attachment: dict[str, Any]) -> dict[str, Any]:
    """Return the network interface: once attached, the id that KECS knows it by and its true address."""
    if task.connectivity_at is None:
        return attachment
    identifier = f"eni-{attachment['id'].replace('-', '')[:17]}"
    details = [
        *attachment["details"],
        {"name": "networkInterfaceId", "value": identifier},
        {"name": "privateIPv4Address", "value": _address(task)},
    ]
    return {**attachment, "details": details}


def _kept_tags(task: Task) -> dict[str, str]:
    """Return the tags: StopTask deletes them (API reference), here when the task is STOPPED.

    Not before, because a forward that finds its task by tags must still drain it.
    """
    return {} if task.last_status == "STOPPED" and task.stop_code == "UserInitiated" else task.tags
