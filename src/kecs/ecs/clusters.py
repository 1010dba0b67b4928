"""The operations on clusters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from kecs.ecs import arn, capacity, names, pages, tags
from kecs.ecs.context import Context
from kecs.ecs.deployments import is_pending, is_running
from kecs.ecs.errors import (
    ClusterContainsServicesException,
    ClusterContainsTasksException,
    ClusterNotFoundException,
    InvalidParameterException,
)
from kecs.ecs.model import Cluster, Service, Task
from kecs.ecs.state import Reader, Tx

DEFAULT = "default"
INSIGHTS = ("enabled", "disabled", "enhanced")
"""Values of the one cluster setting, `containerInsights`."""
DESCRIBE_AT_MOST = 100


def require_to_run(tx: Tx, identifier: str | None, ctx: Context) -> Cluster:
    """Return the ACTIVE cluster to run something in; raises ClusterNotFoundException.

    `default` comes into being with the first thing that is run in it, as an account on AWS receives its
    default cluster with its first instance (API reference, CreateCluster).
    """
    if name_of(identifier, ctx) == DEFAULT and tx.get(Cluster, ctx.region, DEFAULT) is None:
        tx.put(Cluster(region=ctx.region, name=DEFAULT, created_at=ctx.now, settings=_settings([])))
    return require(tx, identifier, ctx)


def name_of(identifier: str | None, ctx: Context) -> str:
    """Return the name that a request's `cluster` means; raises InvalidParameterException and others."""
    if identifier is None:
        return DEFAULT
    if not identifier.strip():
        raise InvalidParameterException("Cluster can not be blank.")
    try:
        name = arn.parse_cluster(identifier)
    except ValueError as err:
        raise InvalidParameterException(f"Invalid identifier: {identifier}") from err
    if arn.looks_like_arn(identifier):
        parsed = arn.parse(identifier)
        if (parsed.region, parsed.account) != (ctx.region, ctx.account):
            raise ClusterNotFoundException
    return name


def require(tx: Reader, identifier: str | None, ctx: Context) -> Cluster:
    """Return the ACTIVE cluster that a request means; raises ClusterNotFoundException."""
    cluster = tx.get(Cluster, ctx.region, name_of(identifier, ctx))
    if cluster is None:
        raise ClusterNotFoundException
    if cluster.status != "ACTIVE":
        raise ClusterNotFoundException("The referenced cluster was inactive.")
    return cluster


def name_within(
    cluster: Cluster, identifier: str, parse: Callable[[str], tuple[str | None, str]], ctx: Context
) -> str | None:
    """Return the name (or id) that a name or ARN has within `cluster`; None when it names one elsewhere.

    `parse` is `arn.parse_service` or its like. Raises InvalidParameterException for what is neither.
    """
    try:
        where, name = parse(identifier)
        if arn.looks_like_arn(identifier):
            parsed = arn.parse(identifier)
            if (parsed.region, parsed.account) != (ctx.region, ctx.account):
                return None
    except ValueError as err:
        raise InvalidParameterException(f"Invalid identifier: {identifier}") from err
    return name if where in (None, cluster.name) else None


def create_cluster(tx: Tx, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """CreateCluster. An ACTIVE cluster is returned as it is, when the request does not contradict it."""
    name = params.get("clusterName", DEFAULT)
    names.check(name, "Cluster")
    wanted = _changes(params)
    if "tags" in params:
        wanted["tags"] = tags.from_list(params["tags"])
    existing = tx.get(Cluster, ctx.region, name)
    if existing is not None and existing.status == "ACTIVE":
        if any(getattr(existing, member) != value for member, value in wanted.items()):
            raise InvalidParameterException(
                "Arguments on this idempotent request are inconsistent with arguments used in previous "
                "request(s)."
            )
        return {"cluster": describe(tx, existing, ctx, ["SETTINGS", "CONFIGURATIONS", "TAGS"])}
    cluster = Cluster(
        region=ctx.region, name=name, created_at=ctx.now, **{"settings": _settings([]), **wanted}
    )
    tx.put(cluster)
    return {"cluster": describe(tx, cluster, ctx, ["SETTINGS", "CONFIGURATIONS", "TAGS"])}


def update_cluster(tx: Tx, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """UpdateCluster."""
    cluster = msgspec.structs.replace(require(tx, params["cluster"], ctx), **_changes(params))
    tx.put(cluster)
    return {"cluster": describe(tx, cluster, ctx, ["SETTINGS", "CONFIGURATIONS", "TAGS"])}


def update_cluster_settings(tx: Tx, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """UpdateClusterSettings."""
    return update_cluster(tx, {"cluster": params["cluster"], "settings": params["settings"]}, ctx)


def put_cluster_capacity_providers(tx: Tx, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """PutClusterCapacityProviders: both lists are replaced."""
    cluster = require(tx, params["cluster"], ctx)
    providers = capacity.check_providers(params["capacityProviders"])
    in_use = {
        item["capacityProvider"]
        for service in tx.scan(Service, ctx.region, cluster.name)
        if service.status == "ACTIVE"
        for item in service.capacity_provider_strategy
    }
    if gone := sorted(in_use - set(providers)):
        raise InvalidParameterException(
            f"The specified capacity provider is in use and cannot be removed: {', '.join(gone)}."
        )
    changed = msgspec.structs.replace(
        cluster,
        capacity_providers=providers,
        default_capacity_provider_strategy=capacity.check_strategy(
            params["defaultCapacityProviderStrategy"], providers
        ),
    )
    tx.put(changed)
    return {"cluster": describe(tx, changed, ctx, ["SETTINGS", "CONFIGURATIONS", "TAGS"])}


def delete_cluster(tx: Tx, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """DeleteCluster: it must have no active services and no tasks; it stays describable as INACTIVE."""
    cluster = require(tx, params["cluster"], ctx)
    if any(service.status == "ACTIVE" for service in tx.scan(Service, ctx.region, cluster.name)):
        raise ClusterContainsServicesException
    if any(
        task.last_status not in ("STOPPED", "DELETED") for task in tx.scan(Task, ctx.region, cluster.name)
    ):
        raise ClusterContainsTasksException
    inactive = msgspec.structs.replace(cluster, status="INACTIVE")
    tx.put(inactive)
    return {"cluster": describe(tx, inactive, ctx, ["SETTINGS"])}


def describe_clusters(tx: Reader, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """DescribeClusters: the default cluster when none is named."""
    asked = params.get("clusters") or [DEFAULT]
    if len(asked) > DESCRIBE_AT_MOST:
        raise InvalidParameterException(f"Clusters cannot have more than {DESCRIBE_AT_MOST} elements.")
    found, failures = [], []
    for identifier in asked:
        cluster = _find(tx, identifier, ctx)
        if cluster is not None:
            found.append(describe(tx, cluster, ctx, params.get("include", ())))
            continue
        full = identifier if arn.looks_like_arn(identifier) else None
        failures.append(
            {"arn": full or arn.cluster_arn(ctx.region, identifier, ctx.account), "reason": "MISSING"}
        )
    return {"clusters": found, "failures": failures}


def list_clusters(tx: Reader, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """ListClusters: the ACTIVE ones."""
    arns = [
        arn.cluster_arn(ctx.region, cluster.name, ctx.account)
        for cluster in tx.scan(Cluster, ctx.region)
        if cluster.status == "ACTIVE"
    ]
    page, token = pages.page("ListClusters", arns, params)
    return {"clusterArns": page, **({"nextToken": token} if token else {})}


def describe_capacity_providers(tx: Reader, params: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """DescribeCapacityProviders: FARGATE and FARGATE_SPOT, all there are."""
    providers: Sequence[str] = capacity.FARGATE_PROVIDERS
    if "cluster" in params:
        providers = require(tx, params["cluster"], ctx).capacity_providers
    found, failures = [], []
    for asked in params.get("capacityProviders") or providers:
        name = asked.rpartition("/")[2] if arn.looks_like_arn(asked) else asked
        if name in providers:
            found.append(name)
        else:
            failures.append({"arn": _provider_arn(asked, ctx), "reason": "MISSING"})
    described = {capacity.describe(name, ctx)["capacityProviderArn"]: name for name in found}
    page, token = pages.page("DescribeCapacityProviders", list(described), params)
    return {
        "capacityProviders": [capacity.describe(described[item], ctx) for item in page],
        "failures": failures,
        **({"nextToken": token} if token else {}),
    }


def describe(tx: Reader, cluster: Cluster, ctx: Context, include: Sequence[str] = ()) -> dict[str, Any]:
    """Return the API's Cluster; `include` as in DescribeClusters."""
    tasks = tx.scan(Task, cluster.region, cluster.name)
    services = tx.scan(Service, cluster.region, cluster.name)
    described: dict[str, Any] = {
        "clusterArn": arn.cluster_arn(cluster.region, cluster.name, ctx.account),
        "clusterName": cluster.name,
        "status": cluster.status,
        "registeredContainerInstancesCount": 0,
        "runningTasksCount": sum(map(is_running, tasks)),
        "pendingTasksCount": sum(map(is_pending, tasks)),
        "activeServicesCount": sum(service.status == "ACTIVE" for service in services),
        "statistics": _statistics(tasks, services) if "STATISTICS" in include else [],
        "tags": tags.to_list(cluster.tags) if "TAGS" in include else [],
        "settings": cluster.settings if "SETTINGS" in include else [],
        "capacityProviders": cluster.capacity_providers,
        "defaultCapacityProviderStrategy": cluster.default_capacity_provider_strategy,
    }
    if cluster.configuration is not None and "CONFIGURATIONS" in include:
        described["configuration"] = cluster.configuration
    if cluster.service_connect_defaults is not None:
        described["serviceConnectDefaults"] = cluster.service_connect_defaults
    return described


def _find(tx: Reader, identifier: str, ctx: Context) -> Cluster | None:
    try:
        return tx.get(Cluster, ctx.region, name_of(identifier, ctx))
    except ClusterNotFoundException:
        return None


def _provider_arn(asked: str, ctx: Context) -> str:
    return asked if arn.looks_like_arn(asked) else arn.capacity_provider_arn(ctx.region, asked, ctx.account)


def _changes(params: dict[str, Any]) -> dict[str, Any]:
    """Return the members of the row that a request gives, checked."""
    wanted: dict[str, Any] = {}
    if "settings" in params:
        wanted["settings"] = _settings(params["settings"])
    if "configuration" in params:
        wanted["configuration"] = params["configuration"]
    if "serviceConnectDefaults" in params:
        # An empty namespace removes the default (API reference, ClusterServiceConnectDefaultsRequest).
        defaults = params["serviceConnectDefaults"]
        wanted["service_connect_defaults"] = defaults if defaults["namespace"] else None
    if "capacityProviders" in params:
        wanted["capacity_providers"] = capacity.check_providers(params["capacityProviders"])
    if "defaultCapacityProviderStrategy" in params:
        wanted["default_capacity_provider_strategy"] = capacity.check_strategy(
            params["defaultCapacityProviderStrategy"], wanted.get("capacity_providers", [])
        )
    return wanted


def _settings(given: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the cluster's settings: the given ones over the account's defaults."""
    value = "disabled"
    for setting in given:
        value = setting.get("value", "")
        if setting.get("name") != "containerInsights" or value not in INSIGHTS:
            raise InvalidParameterException(
                "Invalid cluster setting: containerInsights can be enhanced, enabled or disabled."
            )
    return [{"name": "containerInsights", "value": value}]


def _statistics(tasks: Sequence[Task], services: Sequence[Service]) -> list[dict[str, str]]:
    def kind(item: Task | Service) -> str:
        providers = item.capacity_provider_strategy if isinstance(item, Service) else []
        return "Fargate" if item.launch_type == "FARGATE" or providers else "EC2"

    counts = {}
    for platform in ("EC2", "Fargate"):
        mine = [task for task in tasks if kind(task) == platform]
        own = [service for service in services if kind(service) == platform]
        counts[f"running{platform}TasksCount"] = sum(map(is_running, mine))
        counts[f"pending{platform}TasksCount"] = sum(map(is_pending, mine))
        counts[f"active{platform}ServiceCount"] = sum(service.status == "ACTIVE" for service in own)
        counts[f"draining{platform}ServiceCount"] = sum(service.status == "DRAINING" for service in own)
    return [{"name": name, "value": str(count)} for name, count in counts.items()]
