"""The operations on services. What they ask for is carried out by the scheduler after the commit."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import msgspec

from kecs.ecs import (
    arn,
    capacity,
    clusters,
    deployments,
    kept_ports,
    names,
    node_ports,
    pages,
    platform,
    service_rules,
    tags,
    task_definitions,
)
from kecs.ecs.context import Context
from kecs.ecs.errors import (
    InvalidParameterException,
    ServiceNotActiveException,
    ServiceNotFoundException,
)
from kecs.ecs.model import Cluster, Service, Task, TaskDefinition
from kecs.ecs.service_shape import describe
from kecs.ecs.state import Reader, Tx

__all__ = [
    "create_service", "delete_service", "describe", "describe_services", "list_services", "tasks_of",
    "update_service",
]  # fmt: skip

DESCRIBE_AT_MOST = 10
TOKEN_LENGTH = 36
_TOKEN = re.compile(r"[!-~]+")
_STORED = ("loadBalancers", "serviceRegistries", "placementConstraints", "placementStrategy",
           "availabilityZoneRebalancing", "serviceConnectConfiguration", "volumeConfigurations",
           "vpcLatticeConfigurations", "gatewayConnectors", "monitoring")  # fmt: skip
"""Members of a request that are kept in `Service.settings` as they are."""
_OF_DEPLOYMENT = ("serviceConnectConfiguration", "volumeConfigurations", "vpcLatticeConfigurations")
"""Those that a Deployment shows too."""
_START_A_DEPLOYMENT = ("loadBalancers", "serviceRegistries", *_OF_DEPLOYMENT)
"""Settings of which the API reference says "This parameter triggers a new service deployment"."""


def create_service(tx: Tx, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """CreateService. The same request again is answered with the service that it made."""
    _check_token(params.get("clientToken"))
    cluster = clusters.require_to_run(tx, params.get("cluster"), ctx)
    name = params["serviceName"]
    names.check(name, "Service")
    service_rules.check_controller(params.get("deploymentController"))
    existing = tx.get(Service, ctx.region, cluster.name, name)
    if existing is not None and existing.status == "DRAINING":
        raise InvalidParameterException("Unable to Start a service that is still Draining.")
    if "taskDefinition" not in params:
        raise InvalidParameterException("TaskDefinition can not be blank.")
    definition = task_definitions.require_active(tx, params["taskDefinition"], ctx)
    service = _new_service(cluster, definition, params, ctx)
    if existing is not None and existing.status == "ACTIVE":
        if existing.request_hash != service.request_hash:
            raise InvalidParameterException("Creation of service was not idempotent.")
        return {"service": _described(tx, existing, ctx, include_tags=bool(existing.tags))}
    service = _with_deployment(service, definition, ctx)
    tx.put(service)
    node_ports.settle_service(tx, service, ctx)
    kept_ports.settle_service(tx, service, ctx)
    return {"service": _described(tx, service, ctx, include_tags=bool(service.tags))}


def update_service(tx: Tx, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """UpdateService. A new deployment starts when it is forced, or when what tasks are made of changes."""
    cluster = clusters.require(tx, params.get("cluster"), ctx)
    service_rules.check_controller(params.get("deploymentController"))
    old = require(tx, cluster, params["service"], ctx)
    if old.status != "ACTIVE":
        raise ServiceNotActiveException
    definition = _definition(tx, old, params, ctx)
    new = _updated(cluster, old, definition, params, ctx)
    if params.get("forceNewDeployment") or _made_of(new) != _made_of(old):
        if definition.status != "ACTIVE":
            task_definitions.require_active(tx, new.task_definition, ctx)
        new = _with_deployment(new, definition, ctx)
    elif (primary := deployments.primary(new)) and new.desired_count != old.desired_count:
        counted = msgspec.structs.replace(primary, desired_count=new.desired_count, updated_at=ctx.now)
        new = msgspec.structs.replace(deployments.with_deployment(new, counted), steady=False)
    tx.put(new)
    node_ports.settle_service(tx, new, ctx)
    kept_ports.settle_service(tx, new, ctx)
    return {"service": _described(tx, new, ctx, include_tags=bool(new.tags))}


def delete_service(tx: Tx, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """DeleteService: it is DRAINING until its tasks are gone, then INACTIVE, and stays describable."""
    cluster = clusters.require(tx, params.get("cluster"), ctx)
    service = require(tx, cluster, params["service"], ctx)
    if service.status == "INACTIVE":
        raise ServiceNotFoundException
    if service.status == "DRAINING":
        return {"service": _described(tx, service, ctx)}
    # The API reference says of `force` that only services with the REPLICA strategy need it.
    if service.scheduling_strategy == "REPLICA" and not params.get("force"):
        if service.desired_count > 0:
            raise InvalidParameterException("The service cannot be stopped while it is scaled above 0.")
        if len(service.deployments) > 1:
            raise InvalidParameterException("The service cannot be stopped while deployments are active.")
    draining = msgspec.structs.replace(service, status="DRAINING", desired_count=0, tags={})
    if primary := deployments.primary(draining):
        emptied = msgspec.structs.replace(primary, desired_count=0, updated_at=ctx.now)
        draining = deployments.with_deployment(draining, emptied)
    tx.put(draining)
    return {"service": _described(tx, draining, ctx)}


def describe_services(tx: Reader, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """DescribeServices: up to ten, deleted ones too."""
    asked = params["services"]
    if not asked:
        raise InvalidParameterException("Services cannot be empty.")
    if len(asked) > DESCRIBE_AT_MOST:
        raise InvalidParameterException(f"Services cannot have more than {DESCRIBE_AT_MOST} elements.")
    cluster = clusters.require(tx, params.get("cluster"), ctx)
    include_tags = "TAGS" in params.get("include", ())
    found, failures = [], []
    for identifier in asked:
        service = find(tx, cluster, identifier, ctx)
        if service is not None:
            found.append(_described(tx, service, ctx, include_tags=include_tags))
            continue
        full = arn.looks_like_arn(identifier)
        missing = identifier if full else arn.service_arn(ctx.region, cluster.name, identifier, ctx.account)
        failures.append({"arn": missing, "reason": "MISSING"})
    return {"services": found, "failures": failures}


def list_services(tx: Reader, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """ListServices: the ACTIVE ones, ten a page."""
    cluster = clusters.require(tx, params.get("cluster"), ctx)
    launch_type, strategy = params.get("launchType"), params.get("schedulingStrategy")
    # Services that ECS manages itself are those of Express gateways, which KECS does not have.
    nothing = params.get("resourceManagementType") == "ECS"
    arns = [
        arn.service_arn(ctx.region, cluster.name, service.name, ctx.account)
        for service in tx.scan(Service, ctx.region, cluster.name)
        if service.status == "ACTIVE"
        and not nothing
        and launch_type in (None, service.launch_type)
        and strategy in (None, service.scheduling_strategy)
    ]
    page, token = pages.page("ListServices", arns, params)
    return {"serviceArns": page, **({"nextToken": token} if token else {})}


def find(tx: Reader, cluster: Cluster, identifier: str, ctx: Context) -> Service | None:
    """Return the service of this cluster with this name or ARN; raises InvalidParameterException."""
    name = clusters.name_within(cluster, identifier, arn.parse_service, ctx)
    return None if name is None else tx.get(Service, ctx.region, cluster.name, name)


def require(tx: Reader, cluster: Cluster, identifier: str, ctx: Context) -> Service:
    """Return the service of this cluster; raises ServiceNotFoundException."""
    service = find(tx, cluster, identifier, ctx)
    if service is None:
        raise ServiceNotFoundException
    return service


def tasks_of(tx: Reader, service: Service) -> list[Task]:
    """Return all tasks of a service that are not forgotten, STOPPED ones too."""
    return [task for task in tx.scan(Task, service.region, service.cluster) if task.service == service.name]


def _described(tx: Reader, service: Service, ctx: Context, *, include_tags: bool = False) -> dict[str, Any]:
    return describe(service, tasks_of(tx, service), ctx, include_tags)


def _new_service(
    cluster: Cluster, definition: TaskDefinition, params: dict[str, Any], ctx: Context
) -> Service:
    """Return the row that a CreateService asks for, without a deployment; checks the whole request."""
    daemon = params.get("schedulingStrategy") == "DAEMON"
    network = params.get("networkConfiguration")
    launch_type, strategy = capacity.launch(
        cluster,
        params.get("launchType"),
        params.get("capacityProviderStrategy"),
        wants_public_ip=platform.wants_public_ip(network),
    )
    fargate = capacity.is_fargate(launch_type, strategy)
    if daemon:
        service_rules.check_daemon({**params, "capacityProviderStrategy": strategy}, fargate=fargate)
    implied = not params.get("launchType") and not strategy
    platform.check_compatible(definition, fargate=fargate, implied=implied)
    if params.get("enableExecuteCommand"):
        _check_task_role(definition)
    settings = {member: params[member] for member in _STORED if member in params}
    settings.setdefault("availabilityZoneRebalancing", "DISABLED" if daemon else "ENABLED")
    if "role" in params:
        settings["roleArn"] = _role_arn(params["role"], ctx)
    return Service(
        region=ctx.region,
        cluster=cluster.name,
        name=params["serviceName"],
        task_definition=_arn_of(definition, ctx),
        desired_count=service_rules.desired_count(params.get("desiredCount"), daemon=daemon),
        scheduling_strategy="DAEMON" if daemon else "REPLICA",
        launch_type=launch_type,
        launch_type_given="launchType" in params,
        capacity_provider_strategy=strategy,
        platform_version=platform.check_version(params.get("platformVersion"), definition, fargate=fargate),
        deployment_configuration=service_rules.deployment_configuration(
            params.get("deploymentConfiguration", {}), None, daemon=daemon
        ),
        network_configuration=platform.check_network(network, definition),
        propagate_tags=params.get("propagateTags", "NONE"),
        enable_ecs_managed_tags=params.get("enableECSManagedTags", False),
        enable_execute_command=params.get("enableExecuteCommand", False),
        health_check_grace_period_seconds=_grace_period(params.get("healthCheckGracePeriodSeconds", 0)),
        settings=settings,
        created_at=ctx.now,
        client_token=params.get("clientToken"),
        request_hash=_digest(params, definition, cluster),
        tags=tags.from_list(params.get("tags", ())),
    )


def _definition(tx: Reader, service: Service, params: dict[str, Any], ctx: Context) -> TaskDefinition:
    """Return the definition to update to: the one it has may be INACTIVE, another must be ACTIVE."""
    if "taskDefinition" in params:
        return task_definitions.require_active(tx, params["taskDefinition"], ctx)
    definition = task_definitions.find(tx, service.task_definition, ctx)
    assert definition is not None, "a revision is kept while a service refers to it"
    return definition


def _updated(
    cluster: Cluster, old: Service, definition: TaskDefinition, params: dict[str, Any], ctx: Context
) -> Service:
    """Return the row after an UpdateService, without a new deployment; checks the whole request."""
    daemon = old.scheduling_strategy == "DAEMON"
    network = params.get("networkConfiguration", old.network_configuration)
    launch_type, strategy = _launch(cluster, old, params, network)
    fargate = capacity.is_fargate(launch_type, strategy)
    implied = not old.launch_type_given and not strategy
    platform.check_compatible(definition, fargate=fargate, implied=implied)
    execute = params.get("enableExecuteCommand", old.enable_execute_command)
    if execute:
        _check_task_role(definition)
    count = old.desired_count
    if "desiredCount" in params:
        if daemon:
            raise InvalidParameterException(
                "The desired count cannot be specified for the DAEMON scheduling strategy."
            )
        count = service_rules.check_count(params["desiredCount"])
    version = params.get("platformVersion", old.platform_version)
    return msgspec.structs.replace(
        old,
        task_definition=_arn_of(definition, ctx),
        desired_count=count,
        launch_type=launch_type,
        capacity_provider_strategy=strategy,
        platform_version=platform.check_version(version, definition, fargate=fargate),
        deployment_configuration=service_rules.deployment_configuration(
            params.get("deploymentConfiguration", {}), old.deployment_configuration, daemon=daemon
        ),
        network_configuration=platform.check_network(network, definition),
        propagate_tags=params.get("propagateTags", old.propagate_tags),
        enable_ecs_managed_tags=params.get("enableECSManagedTags", old.enable_ecs_managed_tags),
        enable_execute_command=execute,
        health_check_grace_period_seconds=_grace_period(
            params.get("healthCheckGracePeriodSeconds", old.health_check_grace_period_seconds)
        ),
        settings={**old.settings, **{member: params[member] for member in _STORED if member in params}},
    )


def _launch(
    cluster: Cluster, old: Service, params: dict[str, Any], network: dict[str, Any] | None
) -> tuple[str | None, capacity.Strategy]:
    """Return launch type and strategy after an update; an empty strategy goes back to a launch type."""
    wants_public_ip = platform.wants_public_ip(network)
    asked = params.get("capacityProviderStrategy")
    if asked:
        return capacity.launch(cluster, None, asked, wants_public_ip=wants_public_ip)
    if old.capacity_provider_strategy:
        return ("FARGATE", []) if asked == [] else (None, old.capacity_provider_strategy)
    # A request cannot name a launch type here: EC2 stays only where CreateService named it.
    implied = old.launch_type == "EC2" and not old.launch_type_given and wants_public_ip
    return capacity.launch(
        cluster, "FARGATE" if implied else old.launch_type, None, wants_public_ip=wants_public_ip
    )


def _made_of(service: Service) -> tuple[Any, ...]:
    """Return what, when it changes, starts a new deployment (API reference, UpdateService)."""
    return (
        service.task_definition,
        service.network_configuration,
        service.platform_version or platform.LATEST,  # on EC2 None: a change of strategy starts none
        *(service.settings.get(member) or None for member in _START_A_DEPLOYMENT),
    )


def _with_deployment(service: Service, definition: TaskDefinition, ctx: Context) -> Service:
    extra = {member: service.settings[member] for member in _OF_DEPLOYMENT if member in service.settings}
    if capacity.is_fargate(service.launch_type, service.capacity_provider_strategy):
        extra["platformFamily"] = platform.family(definition)
    deployment = deployments.new_deployment(
        service, deployment_id=deployments.deployment_id(ctx.new_id), now=ctx.now, extra=extra
    )
    return deployments.with_new_deployment(service, deployment, ctx.now)


def _arn_of(definition: TaskDefinition, ctx: Context) -> str:
    return arn.task_definition_arn(ctx.region, definition.family, definition.revision, ctx.account)


def _role_arn(role: str, ctx: Context) -> str:
    if arn.looks_like_arn(role):
        return role
    return f"arn:{arn.partition(ctx.region)}:iam::{ctx.account}:role/{role}"


def _check_task_role(definition: TaskDefinition) -> None:
    if "taskRoleArn" not in definition.definition:
        raise InvalidParameterException(
            "The service couldn't be created because a valid taskRoleArn is not being used. Specify a valid "
            "task role in your task definition and try again."
        )


def _grace_period(seconds: int) -> int:
    if seconds < 0:
        raise InvalidParameterException("healthCheckGracePeriodSeconds must be greater than or equal to 0.")
    return seconds


def _check_token(token: str | None) -> None:
    if token is not None and (len(token) > TOKEN_LENGTH or not _TOKEN.fullmatch(token)):
        raise InvalidParameterException(
            f"clientToken must have 1 to {TOKEN_LENGTH} characters in the range of 33-126, inclusive."
        )


def _digest(params: dict[str, Any], definition: TaskDefinition, cluster: Cluster) -> str:
    """Hash what a request asks for, whatever way it names cluster and definition."""
    asked = {key: value for key, value in params.items() if key != "clientToken"}
    asked |= {"cluster": cluster.name, "taskDefinition": [definition.family, definition.revision]}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
