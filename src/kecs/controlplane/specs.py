"""From a task's row and its task definition to what a runtime is told to run. Pure.

Called by the task flow once ports are allocated and environments resolved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kecs.ecs import arn
from kecs.ecs.model import Task, TaskDefinition
from kecs.runtimes.base import ContainerSpec, Dependency, HealthCheck, PortSpec, TaskSpec

STOP_TIMEOUT = 30.0
"""Seconds from SIGTERM to SIGKILL without a `stopTimeout` (AWS API reference, ContainerDefinition)."""


def task_spec(
    task: Task,
    definition: TaskDefinition,
    environments: Mapping[str, Mapping[str, str]],
    *,
    time_scale: float,
) -> TaskSpec:
    """Build the runtime's order; `environments` are the variables of each container, by its name."""
    document = definition.definition
    return TaskSpec(
        id=task.id,
        arn=arn.task_arn(task.region, task.cluster, task.id),
        region=task.region,
        cluster=task.cluster,
        family=task.family,
        revision=task.revision,
        service=task.service,
        network_mode=task.network_mode,
        namespace=task.namespace,
        pod=task.pod,
        started_by=task.started_by,
        cpu=task.overrides.get("cpu") or document.get("cpu"),
        memory=task.overrides.get("memory") or document.get("memory"),
        definition={name: value for name, value in document.items() if name != "containerDefinitions"},
        containers=[
            _container(task, container, environments.get(container["name"], {}), time_scale)
            for container in document.get("containerDefinitions", [])
        ],
    )


def override_of(task: Task, container: str) -> dict[str, Any]:
    """Return what the task's overrides say of this container."""
    for override in task.overrides.get("containerOverrides", []):
        if override.get("name") == container:
            return dict(override)
    return {}


def _container(
    task: Task, container: Mapping[str, Any], environment: Mapping[str, str], time_scale: float
) -> ContainerSpec:
    override = override_of(task, container["name"])
    limits = {name: override[name] for name in ("cpu", "memory", "memoryReservation") if name in override}
    return ContainerSpec(
        name=container["name"],
        image=container.get("image", ""),
        essential=container.get("essential", True),
        entry_point=list(container.get("entryPoint") or []),
        command=list(override.get("command") or container.get("command") or []),
        environment=_ecs_variables(task) | dict(environment),
        secrets=[each["name"] for each in container.get("secrets", [])],
        working_directory=container.get("workingDirectory"),
        user=container.get("user"),
        depends_on=[
            Dependency(container=each["containerName"], condition=each["condition"])
            for each in container.get("dependsOn", [])
        ],
        health_check=_health_check(container.get("healthCheck"), time_scale),
        stop_timeout=container.get("stopTimeout", STOP_TIMEOUT) * time_scale,
        start_timeout=container.get("startTimeout"),
        ports=[
            PortSpec(
                container_port=port.container_port,
                protocol=port.protocol,
                name=port.name,
                host_port=port.host_port,
            )
            for port in task.ports
            if port.container == container["name"]
        ],
        definition=dict(container) | limits,
    )


def _ecs_variables(task: Task) -> dict[str, str]:
    """Return what ECS itself sets and what is true here (ECS Developer Guide, environment variables)."""
    return {"AWS_EXECUTION_ENV": "AWS_ECS_EC2" if task.launch_type == "EC2" else "AWS_ECS_FARGATE"}


def _health_check(check: Mapping[str, Any] | None, time_scale: float) -> HealthCheck | None:
    if not check:
        return None
    return HealthCheck(
        command=list(check["command"]),
        interval=check.get("interval", 30) * time_scale,
        timeout=float(check.get("timeout", 5)),
        retries=check.get("retries", 3),
        start_period=(check.get("startPeriod") or 0) * time_scale,
    )
