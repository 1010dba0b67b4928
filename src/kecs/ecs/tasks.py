"""The operations on tasks. `new_task` and `describe` are for the control plane too."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from typing import Any

from kecs.ecs import (
    arn,
    capacity,
    clusters,
    lifecycle,
    node_ports,
    overrides,
    pages,
    platform,
    tags,
    task_definitions,
)
from kecs.ecs.context import Context
from kecs.ecs.errors import ConflictException, InvalidParameterException, ServiceNotFoundException
from kecs.ecs.model import ClientToken, Cluster, Service, Task, TaskDefinition
from kecs.ecs.new_task import host_port_conflict, new_task
from kecs.ecs.state import Reader, Tx
from kecs.ecs.task_shape import describe

__all__ = [
    "describe", "describe_tasks", "host_port_conflict", "list_tasks", "new_task", "run_task", "stop_task",
]  # fmt: skip

RUN_AT_MOST = 10
DESCRIBE_AT_MOST = 100
STARTED_BY_LENGTH = 128
TOKEN_LENGTH = 64
REASON_LENGTH = 1024
"""Characters of StopTask's `reason` (API reference)."""
_TOKEN = re.compile(r"[!-~]+")


def run_task(tx: Tx, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """RunTask: up to ten tasks; what finds no place is in `failures`."""
    count = params.get("count", 1)
    if not 1 <= count <= RUN_AT_MOST:
        raise InvalidParameterException(f"The count of tasks must be between 1 and {RUN_AT_MOST}.")
    cluster = clusters.require_to_run(tx, params.get("cluster"), ctx)
    token = _check_token(params.get("clientToken"))
    digest = _digest(params)
    if token is not None and (used := tx.get(ClientToken, ctx.region, "RunTask", token)):
        return _answer_again(tx, used, digest, ctx)
    definition = task_definitions.require_active(tx, params["taskDefinition"], ctx)
    members, strategy = _members(cluster, definition, params)
    used_providers: Counter[str] = Counter()
    started: list[Task] = []
    failures: list[dict[str, str]] = []
    for _ in range(count):
        if host_port_conflict(tx, definition, ctx) is not None:
            # ECS names the container instance; the place here is the cluster.
            place = arn.cluster_arn(ctx.region, cluster.name, ctx.account)
            failures.append({"arn": place, "reason": "RESOURCE:PORTS"})
            continue
        provider = capacity.choose(strategy, used_providers) if strategy else None
        if provider is not None:
            used_providers[provider] += 1
        task = new_task(
            tx,
            cluster=cluster.name,
            definition=definition,
            ctx=ctx,
            capacity_provider_name=provider,
            **members,
        )
        tx.put(task)
        node_ports.settle_task(tx, task, ctx)
        started.append(task)
    if token is not None:
        arns = [arn.task_arn(task.region, task.cluster, task.id, ctx.account) for task in started]
        tx.put(
            ClientToken(
                region=ctx.region,
                operation="RunTask",
                token=token,
                request_hash=digest,
                result=arns,
                created_at=ctx.now,
            )
        )
    return {"tasks": [describe(task, ctx, include_tags=True) for task in started], "failures": failures}


def stop_task(tx: Tx, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """StopTask: a planned stop; of a task that is stopping already it changes nothing."""
    cluster = clusters.require(tx, params.get("cluster"), ctx)
    reason = params.get("reason") or lifecycle.STOPPED_BY_USER
    if len(reason) > REASON_LENGTH:
        raise InvalidParameterException(f"The reason can have up to {REASON_LENGTH} characters.")
    task = _find(tx, cluster, params["task"], ctx)
    if task is None:
        raise InvalidParameterException("The referenced task was not found.")
    stopping = lifecycle.request_stop(task, "UserInitiated", reason, ctx.now)
    tx.put(stopping)
    return {"task": describe(stopping, ctx)}


def describe_tasks(tx: Reader, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """DescribeTasks: stopped ones too, for as long as they are kept."""
    cluster = clusters.require(tx, params.get("cluster"), ctx)
    asked = params["tasks"]
    if not asked:
        raise InvalidParameterException("Tasks cannot be empty.")
    if len(asked) > DESCRIBE_AT_MOST:
        raise InvalidParameterException(f"Tasks cannot have more than {DESCRIBE_AT_MOST} elements.")
    include_tags = "TAGS" in params.get("include", ())
    found, failures = [], []
    for identifier in asked:
        task = _find(tx, cluster, identifier, ctx)
        if task is not None:
            found.append(describe(task, ctx, include_tags))
            continue
        full = arn.looks_like_arn(identifier)
        missing = identifier if full else arn.task_arn(ctx.region, cluster.name, identifier, ctx.account)
        failures.append({"arn": missing, "reason": "MISSING"})
    return {"tasks": found, "failures": failures}


def list_tasks(tx: Reader, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """ListTasks: by default those that are meant to run."""
    cluster = clusters.require(tx, params.get("cluster"), ctx)
    others = {"family", "serviceName", "containerInstance", "launchType", "daemonName"} & set(params)
    if "startedBy" in params and others:
        raise InvalidParameterException(
            f"When you specify startedBy as the filter, it must be the only filter that you use; there is "
            f"{', '.join(sorted(others))} too."
        )
    wanted: dict[str, Any] = {"desired_status": params.get("desiredStatus", "RUNNING")}
    if "serviceName" in params:
        wanted["service"] = _service_name(tx, cluster, params["serviceName"], ctx)
    for member, name in (("family", "family"), ("startedBy", "started_by"), ("launchType", "launch_type")):
        if member in params:
            wanted[name] = params[member]
    # No task runs on a container instance or for a daemon: there are none.
    nowhere = "containerInstance" in params or "daemonName" in params
    arns = [
        arn.task_arn(task.region, task.cluster, task.id, ctx.account)
        for task in tx.scan(Task, ctx.region, cluster.name)
        if not nowhere and all(getattr(task, name) == value for name, value in wanted.items())
    ]
    page, token = pages.page("ListTasks", arns, params)
    return {"taskArns": page, **({"nextToken": token} if token else {})}


def _members(
    cluster: Cluster, definition: TaskDefinition, params: dict[str, Any]
) -> tuple[dict[str, Any], capacity.Strategy]:
    """Return the members of the tasks that a request asks for, checked, and the strategy to spread them."""
    network = params.get("networkConfiguration")
    launch_type, strategy = capacity.launch(
        cluster,
        params.get("launchType"),
        params.get("capacityProviderStrategy"),
        wants_public_ip=platform.wants_public_ip(network),
    )
    fargate = capacity.is_fargate(launch_type, strategy)
    implied = not params.get("launchType") and not strategy
    platform.check_compatible(definition, fargate=fargate, implied=implied)
    overridden = overrides.filled(params.get("overrides", {}), definition)
    if fargate:
        overrides.check_fargate(overridden, definition)
    if params.get("enableExecuteCommand") and not (
        "taskRoleArn" in definition.definition or "taskRoleArn" in overridden
    ):
        raise InvalidParameterException(
            "The task couldn't be run because a valid taskRoleArn is not being used. Specify a valid task "
            "role in your task definition and try again."
        )
    return {
        "launch_type": launch_type,
        "platform_version": platform.check_version(
            params.get("platformVersion"), definition, fargate=fargate
        ),
        "network_configuration": platform.check_network(network, definition),
        "overrides": overridden,
        "started_by": _check_started_by(params.get("startedBy")),
        "group": _check_group(params.get("group"), definition),
        "enable_execute_command": params.get("enableExecuteCommand", False),
        "tags": _tags(cluster, definition, params),
    }, strategy


def _tags(cluster: Cluster, definition: TaskDefinition, params: dict[str, Any]) -> tags.Tags:
    propagate = params.get("propagateTags", "NONE")
    if propagate == "SERVICE":
        raise InvalidParameterException(
            "Tags cannot be propagated from a service when a task is run: SERVICE."
        )
    given = tags.from_list(params.get("tags", ()))
    inherited = definition.tags if propagate == "TASK_DEFINITION" else {}
    managed = tags.managed(cluster.name, None) if params.get("enableECSManagedTags") else {}
    combined = tags.of_task(given, inherited, managed)
    tags.check_count(combined)
    return combined


def _check_started_by(text: str | None) -> str | None:
    if text is not None and len(text) > STARTED_BY_LENGTH:
        raise InvalidParameterException(f"startedBy can have up to {STARTED_BY_LENGTH} characters.")
    return text


def _check_group(group: str | None, definition: TaskDefinition) -> str:
    if group is None:
        return f"family:{definition.family}"
    # `service:` is the scheduler's, and `family:` is given by ECS itself.
    if group.startswith(("service:", "family:")):
        raise InvalidParameterException("Invalid namespace for group.")
    return group


def _check_token(token: str | None) -> str | None:
    if token is not None and (len(token) > TOKEN_LENGTH or not _TOKEN.fullmatch(token)):
        raise InvalidParameterException(
            f"clientToken must have 1 to {TOKEN_LENGTH} characters in the range of 33-126, inclusive."
        )
    return token


def _digest(params: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()


def _answer_again(tx: Reader, used: ClientToken, digest: str, ctx: Context) -> dict[str, Any]:
    """Answer a repeated request with the tasks of the first; raises ConflictException when it differs."""
    if used.request_hash != digest:
        raise ConflictException(
            "The client token was used before with other parameters.", resourceIds=used.result
        )
    tasks = []
    for text in used.result:
        cluster, task_id = arn.parse_task(text)
        assert cluster is not None
        if task := tx.get(Task, ctx.region, cluster, task_id):
            tasks.append(describe(task, ctx, include_tags=True))
    return {"tasks": tasks, "failures": []}


def _find(tx: Reader, cluster: Cluster, identifier: str, ctx: Context) -> Task | None:
    """Return the task of this cluster with this id or ARN; raises InvalidParameterException."""
    task_id = clusters.name_within(cluster, identifier, arn.parse_task, ctx)
    return None if task_id is None else tx.get(Task, ctx.region, cluster.name, task_id)


def _service_name(tx: Reader, cluster: Cluster, identifier: str, ctx: Context) -> str:
    name = clusters.name_within(cluster, identifier, arn.parse_service, ctx)
    if name is None or tx.get(Service, ctx.region, cluster.name, name) is None:
        raise ServiceNotFoundException
    return name
