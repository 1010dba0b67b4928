"""The API's Service and Deployment, from the service's row and its tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kecs.ecs import arn, deployments, platform, tags
from kecs.ecs.context import Context
from kecs.ecs.model import Deployment, Service, Task

_LISTS = ("loadBalancers", "serviceRegistries", "placementConstraints", "placementStrategy")
"""Settings that are shown even when they were not given."""
_SETTINGS = (*_LISTS, "roleArn", "availabilityZoneRebalancing")


def describe(
    service: Service, tasks: Sequence[Task], ctx: Context, include_tags: bool = False
) -> dict[str, Any]:
    """Return the API's Service; `tasks` are all tasks of this service."""
    running, pending = deployments.counts(tasks)
    described: dict[str, Any] = {
        "serviceArn": arn.service_arn(service.region, service.cluster, service.name, ctx.account),
        "serviceName": service.name,
        "clusterArn": arn.cluster_arn(service.region, service.cluster, ctx.account),
        "status": service.status,
        "desiredCount": service.desired_count,
        "runningCount": running,
        "pendingCount": pending,
        "taskDefinition": service.task_definition,
        "deploymentConfiguration": service.deployment_configuration,
        "deploymentController": {"type": service.deployment_controller},
        "deployments": [_deployment(item, tasks) for item in service.deployments],
        "taskSets": [],
        "events": [
            {"id": event.id, "createdAt": round(event.created_at, 3), "message": event.message}
            for event in service.events
        ],
        "createdAt": round(service.created_at, 3),
        "createdBy": f"arn:{arn.partition(service.region)}:iam::{ctx.account}:root",
        "schedulingStrategy": service.scheduling_strategy,
        "healthCheckGracePeriodSeconds": service.health_check_grace_period_seconds,
        "enableECSManagedTags": service.enable_ecs_managed_tags,
        "propagateTags": service.propagate_tags,
        "enableExecuteCommand": service.enable_execute_command,
    }
    if include_tags:
        described["tags"] = tags.to_list(service.tags)
    described |= {member: [] for member in _LISTS}
    described |= {member: service.settings[member] for member in _SETTINGS if member in service.settings}
    return described | _launch(service.launch_type, service.capacity_provider_strategy) | _network(service)


def _network(service: Service) -> dict[str, Any]:
    described: dict[str, Any] = {}
    if service.network_configuration is not None:
        described["networkConfiguration"] = service.network_configuration
    if service.platform_version is not None:
        described["platformVersion"] = service.platform_version
        newest = service.deployments[0] if service.deployments else None
        described["platformFamily"] = newest.extra.get("platformFamily", "Linux") if newest else "Linux"
    return described


def _launch(launch_type: str | None, strategy: list[dict[str, Any]]) -> dict[str, Any]:
    if strategy:
        return {"capacityProviderStrategy": strategy}
    return {"launchType": launch_type} if launch_type else {}


def _deployment(deployment: Deployment, tasks: Sequence[Task]) -> dict[str, Any]:
    running, pending = deployments.counts(tasks, deployment.id)
    described: dict[str, Any] = {
        "id": deployment.id,
        "status": deployment.status,
        "taskDefinition": deployment.task_definition,
        "desiredCount": deployment.desired_count,
        "runningCount": running,
        "pendingCount": pending,
        "failedTasks": deployment.failed_tasks,
        "createdAt": round(deployment.created_at, 3),
        "updatedAt": round(deployment.updated_at, 3),
        "rolloutState": deployment.rollout_state,
        "rolloutStateReason": deployment.rollout_state_reason,
        **deployment.extra,
    }
    version = platform.resolved(deployment.platform_version, deployment.extra.get("platformFamily"))
    if version is not None:
        described["platformVersion"] = version
    if deployment.network_configuration is not None:
        described["networkConfiguration"] = deployment.network_configuration
    return described | _launch(deployment.launch_type, deployment.capacity_provider_strategy)
