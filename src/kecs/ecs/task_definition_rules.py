"""The rules of a task definition as a whole: its defaults, what fits together, what Fargate has not.

Called by `kecs.ecs.task_definitions` at registration; the rules of containers are in
`kecs.ecs.container_definitions`. All errors are ClientExceptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kecs.ecs import container_definitions, names, task_size
from kecs.ecs.errors import ClientException

FARGATE_STOP_TIMEOUT = 120
"""Longest `stopTimeout` and `startTimeout`, in seconds, on Fargate."""
FARGATE_LOG_DRIVERS = ("awslogs", "splunk", "awsfirelens")
EPHEMERAL_STORAGE = (21, 200)
"""Smallest and largest `ephemeralStorage.sizeInGiB` that can be asked for."""
_KEPT = (
    "taskRoleArn", "executionRoleArn", "requiresCompatibilities", "cpu", "memory", "pidMode", "ipcMode",
    "proxyConfiguration", "inferenceAccelerators", "ephemeralStorage", "runtimePlatform",
    "enableFaultInjection", "trustedExecutionConfiguration",
)  # fmt: skip
"""Members of the request that are shown as they are, when they were given."""


def filled(params: dict[str, Any]) -> dict[str, Any]:
    """Return the API's TaskDefinition with defaults, without what describe() adds."""
    network_mode = params.get("networkMode", "bridge")
    definition = {
        "containerDefinitions": container_definitions.filled(params["containerDefinitions"], network_mode),
        "networkMode": network_mode,
        "volumes": [_filled_volume(volume) for volume in params.get("volumes", [])],
        "placementConstraints": params.get("placementConstraints", []),
        **{member: params[member] for member in _KEPT if member in params},
    }
    if "cpu" in definition:
        definition["cpu"] = task_size.cpu_units(definition["cpu"])
    if "memory" in definition:
        definition["memory"] = task_size.memory_mib(definition["memory"])
    return definition


def _filled_volume(volume: dict[str, Any]) -> dict[str, Any]:
    """Fill in that EFS is mounted from its root (API reference, EFSVolumeConfiguration.rootDirectory)."""
    efs = volume.get("efsVolumeConfiguration")
    return volume if efs is None else {**volume, "efsVolumeConfiguration": {"rootDirectory": "/", **efs}}


def check(definition: dict[str, Any]) -> None:
    """Raise ClientException when a filled definition breaks a rule."""
    containers = definition["containerDefinitions"]
    required = definition.get("requiresCompatibilities", [])
    if len(set(required)) < len(required):
        raise ClientException("requiresCompatibilities cannot contain duplicates.")
    if "EXTERNAL" in required and definition["networkMode"] == "awsvpc":
        raise ClientException("External launch type does not support network mode 'awsvpc'.")
    if "FARGATE" in required:
        _check_fargate(definition)
    container_definitions.check(containers, definition["networkMode"], definition.get("memory"))
    _check_volumes(containers, definition["volumes"])
    # AWS asks for executionRoleArn here when there are secrets; this machine has no IAM to ask, so a
    # definition without one is taken (docs/design/contracts.md, 7).
    _check_task_cpu(containers, definition.get("cpu"))
    if "ephemeralStorage" in definition:
        size = definition["ephemeralStorage"]["sizeInGiB"]
        smallest, largest = EPHEMERAL_STORAGE
        if not smallest <= size <= largest:
            raise ClientException(
                f"Invalid 'ephemeralStorage' setting for task: {size} GiB is not between {smallest} and "
                f"{largest}."
            )


def _check_task_cpu(containers: Sequence[dict[str, Any]], cpu: str | None) -> None:
    total = sum(container["cpu"] for container in containers)
    if cpu is not None and total > int(cpu):
        raise ClientException(
            f"Invalid 'cpu' setting for task: the containers' total of {total} CPU units is more than the "
            f"task's: {cpu}."
        )


def _check_volumes(containers: Sequence[dict[str, Any]], volumes: Sequence[dict[str, Any]]) -> None:
    known = [volume.get("name", "") for volume in volumes]
    if len(set(known)) < len(known):
        raise ClientException("Volume names must be unique within a task definition.")
    for volume in known:
        if not names.is_name(volume):
            raise ClientException(
                f"Volume.name should not be empty or contain invalid characters: '{volume}'."
            )
    containers_known = {container["name"] for container in containers}
    for container in containers:
        for mount in container["mountPoints"]:
            if mount.get("sourceVolume") not in known:
                raise ClientException(f"Unknown volume '{mount.get('sourceVolume')}'.")
        for source in container["volumesFrom"]:
            if source.get("sourceContainer") not in containers_known:
                raise ClientException(f"Unknown container '{source.get('sourceContainer')}' in volumesFrom.")


def _check_fargate(definition: dict[str, Any]) -> None:
    """Raise ClientException for what the launch type FARGATE does not have."""
    if definition["networkMode"] != "awsvpc":
        raise ClientException("Fargate only supports network mode ‘awsvpc’.")  # noqa: RUF001 - AWS's quotes
    task_size.check_fargate(definition.get("cpu"), definition.get("memory"))
    if definition.get("pidMode", "task") != "task":
        raise ClientException(
            f"Tasks using the Fargate launch type do not support pidMode '{definition['pidMode']}'. "
            "The supported value for pidMode is 'task'."
        )
    if definition["placementConstraints"]:
        raise ClientException("Fargate compatible task definitions do not support placementConstraints.")
    for volume in definition["volumes"]:
        if volume.get("host", {}).get("sourcePath"):
            raise ClientException("Fargate compatible task definitions do not support sourcePath")
        if "dockerVolumeConfiguration" in volume:
            raise ClientException(
                "Fargate compatible task definitions do not support dockerVolumeConfiguration"
            )
    for container in definition["containerDefinitions"]:
        _check_fargate_container(container)


def _check_fargate_container(container: dict[str, Any]) -> None:
    name = container["name"]
    if container.get("privileged"):
        raise ClientException(f"Fargate does not support privileged containers: '{name}'.")
    driver = container.get("logConfiguration", {}).get("logDriver")
    if driver is not None and driver not in FARGATE_LOG_DRIVERS:
        raise ClientException(
            f"Log driver {driver} is not supported for Fargate tasks: {', '.join(FARGATE_LOG_DRIVERS)} are."
        )
    for member in ("startTimeout", "stopTimeout"):
        if not 0 <= container.get(member, 0) <= FARGATE_STOP_TIMEOUT:
            raise ClientException(
                f"Invalid '{member}' setting for container '{name}'. On Fargate it can be up to "
                f"{FARGATE_STOP_TIMEOUT} seconds."
            )
