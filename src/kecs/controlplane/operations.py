"""Which function answers which operation of the ECS API: one table.

An operation that only reads is typed so (`Read`), and answered from the committed state at once;
one that writes runs as a transaction of the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kecs.ecs import clusters, resource_tags, services, task_definitions, tasks
from kecs.ecs.context import Context
from kecs.ecs.state import Reader, Tx

Params = dict[str, Any]
Result = dict[str, Any]


@dataclass(frozen=True)
class Read:
    """An operation that changes nothing."""

    function: Callable[[Reader, Params, Context], Result]


@dataclass(frozen=True)
class Write:
    """An operation that changes rows."""

    function: Callable[[Tx, Params, Context], Result]


Operation = Read | Write

OPERATIONS: Mapping[str, Operation] = {
    "CreateCluster": Write(clusters.create_cluster),
    "DeleteCluster": Write(clusters.delete_cluster),
    "DescribeClusters": Read(clusters.describe_clusters),
    "ListClusters": Read(clusters.list_clusters),
    "PutClusterCapacityProviders": Write(clusters.put_cluster_capacity_providers),
    "UpdateCluster": Write(clusters.update_cluster),
    "UpdateClusterSettings": Write(clusters.update_cluster_settings),
    "DescribeCapacityProviders": Read(clusters.describe_capacity_providers),
    "CreateService": Write(services.create_service),
    "DeleteService": Write(services.delete_service),
    "DescribeServices": Read(services.describe_services),
    "ListServices": Read(services.list_services),
    "UpdateService": Write(services.update_service),
    "DescribeTasks": Read(tasks.describe_tasks),
    "ListTasks": Read(tasks.list_tasks),
    "RunTask": Write(tasks.run_task),
    "StopTask": Write(tasks.stop_task),
    "DeleteTaskDefinitions": Write(task_definitions.delete_task_definitions),
    "DeregisterTaskDefinition": Write(task_definitions.deregister_task_definition),
    "DescribeTaskDefinition": Read(task_definitions.describe_task_definition),
    "ListTaskDefinitionFamilies": Read(task_definitions.list_task_definition_families),
    "ListTaskDefinitions": Read(task_definitions.list_task_definitions),
    "RegisterTaskDefinition": Write(task_definitions.register_task_definition),
    "ListTagsForResource": Read(resource_tags.list_tags_for_resource),
    "TagResource": Write(resource_tags.tag_resource),
    "UntagResource": Write(resource_tags.untag_resource),
}
"""By their AWS names. What the model has and this table has not is answered by `kecs.ecs.not_built`."""
