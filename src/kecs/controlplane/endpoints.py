"""From rows to endpoints: what the agent may connect to, as a pure function of the committed state.

`kecs.controlplane.hub` publishes what is computed here (docs/design/contracts.md, section 2). A target
is a service with its tasks, or one standalone task. A port of a local task is dialled where its process
listens; one of a Pod at each node's address by its node port, where it has one, and by a tunnel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kecs.client.endpoints import EndpointPort, EndpointTask, Route, Target
from kecs.ecs import container_definitions, lifecycle
from kecs.ecs.arn import parse_task_definition
from kecs.ecs.model import Key, Node, NodePort, Row, Service, Task, TaskDefinition, TaskPort
from kecs.ecs.state import Reader

TargetKey = tuple[str, str, str | None, str | None]
"""(region, cluster, service, taskId) with one of the last two None."""
Doors = Mapping[tuple[int, str], list[Route]]
"""Routes by node port, by (container port, protocol)."""
Changes = Mapping[tuple[type[Row], Key], tuple[Row | None, Row | None]]
"""What a commit changed: (old, new) row by kind and key."""

LEAVING = frozenset({"DEACTIVATING", "STOPPING", "DEPROVISIONING"})
REACHABLE = frozenset({"RUNNING", *LEAVING})


def key_of(target: Target) -> TargetKey:
    """Return the key of `target`."""
    return (target.region, target.cluster, target.service, target.task_id)


def all_targets(state: Reader) -> dict[TargetKey, Target]:
    """Compute every target of `state`."""
    tasks: dict[TargetKey, list[Task]] = {}
    for task in state.scan(Task):
        tasks.setdefault(_key_of_task(task), []).append(task)
    found = {
        _key_of_service(service): _service_target(state, service, tasks.get(_key_of_service(service), []))
        for service in state.scan(Service)
        if service.status != "INACTIVE"
    }
    for key, members in tasks.items():
        if key[3] is not None:
            found[key] = _task_target(state, members[0])
    return found


def target_at(state: Reader, key: TargetKey) -> Target | None:
    """Compute the target with this key, or None when there is none (any more)."""
    region, cluster, name, task_id = key
    if task_id is not None:
        task = state.get(Task, region, cluster, task_id)
        return _task_target(state, task) if task is not None else None
    service = state.get(Service, region, cluster, name or "")
    if service is None or service.status == "INACTIVE":
        return None
    tasks = [task for task in state.scan(Task, region, cluster) if task.service == name]
    return _service_target(state, service, tasks)


def touched(changes: Changes) -> set[TargetKey]:
    """Return the keys of the targets that a commit may have changed."""
    keys: set[TargetKey] = set()
    for old, new in changes.values():
        for row in (old, new):
            if isinstance(row, Service):
                keys.add(_key_of_service(row))
            elif isinstance(row, Task):
                keys.add(_key_of_task(row))
            elif isinstance(row, NodePort):
                keys.add((row.region, row.cluster, row.service or None, row.task_id or None))
    return keys


def nodes_changed(changes: Changes) -> bool:
    """Tell whether a commit changed a node: that may touch every target with a node port."""
    return any(kind is Node for kind, _ in changes)


def definition_of(state: Reader, region: str, arn: str) -> TaskDefinition | None:
    """Return the revision that a task definition's ARN names."""
    family, revision = parse_task_definition(arn)
    return state.get(TaskDefinition, region, family, revision) if revision is not None else None


def _key_of_service(service: Service) -> TargetKey:
    return (service.region, service.cluster, service.name, None)


def _key_of_task(task: Task) -> TargetKey:
    return (task.region, task.cluster, task.service, None if task.service else task.id)


def _service_target(state: Reader, service: Service, tasks: Iterable[Task]) -> Target:
    definition = definition_of(state, service.region, service.task_definition)
    awsvpc = (service.network_configuration or {}).get("awsvpcConfiguration") or {}
    doors = _doors(state, service.region, service.cluster, service.name, "")
    return Target(
        region=service.region,
        cluster=service.cluster,
        service=service.name,
        task_id=None,
        public=service.public,
        tasks=[_task(task, doors) for task in tasks],
        ports=list(_possible_ports(definition)),
        subnets=list(awsvpc.get("subnets", [])),
        security_groups=list(awsvpc.get("securityGroups", [])),
        kept_port=service.kept_port,
    )


def _task_target(state: Reader, task: Task) -> Target:
    definition = definition_of(state, task.region, task.task_definition)
    return Target(
        region=task.region,
        cluster=task.cluster,
        service=None,
        task_id=task.id,
        public=task.public,
        tasks=[_task(task, _doors(state, task.region, task.cluster, "", task.id))],
        ports=list(_possible_ports(definition)),
    )


def _possible_ports(definition: TaskDefinition | None) -> Iterator[EndpointPort]:
    containers = definition.definition.get("containerDefinitions", []) if definition is not None else []
    for container in containers:
        for port, _, protocol, name in container_definitions.ports_of(container):
            yield EndpointPort(
                name=name,
                container=container["name"],
                container_port=port,
                protocol="udp" if protocol == "udp" else "tcp",
                ready=False,
                draining=False,
                routes=[],
            )


def _doors(state: Reader, region: str, cluster: str, service: str, task_id: str) -> Doors:
    """Return the routes by applied node ports: one for each address of each node that is ready."""
    rows = [row for row in state.scan(NodePort, region, cluster, service, task_id) if row.applied]
    if not rows:
        return {}
    addresses = [address for node in state.scan(Node) if node.ready for address in node.addresses]
    return {
        (row.container_port, row.protocol): [
            Route(kind="direct", host=address, port=row.port, by_node=True) for address in addresses
        ]
        for row in rows
    }


def _task(task: Task, doors: Doors) -> EndpointTask:
    return EndpointTask(
        task_id=task.id,
        created_at=task.created_at,
        tags=task.tags,
        last_status=task.last_status,
        stopped_reason=task.stopped_reason,
        ports=[_port(task, port, doors) for port in task.ports],
    )


def _port(task: Task, port: TaskPort, doors: Doors) -> EndpointPort:
    reachable = task.last_status in REACHABLE and (task.pod is not None or port.host_port != 0)
    return EndpointPort(
        name=port.name,
        container=port.container,
        container_port=port.container_port,
        protocol=port.protocol,
        ready=reachable and port.ready,
        draining=lifecycle.is_draining(task),
        routes=_routes(task, port, doors) if reachable else [],
    )


def _routes(task: Task, port: TaskPort, doors: Doors) -> list[Route]:
    """Return the ways to a port, best first."""
    if task.pod is None:
        return [Route(kind="direct", host=port.host, port=port.host_port)]
    direct = doors.get((port.container_port, port.protocol), [])
    if port.protocol == "udp":
        return list(direct)  # Kubernetes forwards TCP only
    tunnel = Route(kind="tunnel", namespace=task.namespace, pod=task.pod, port=port.container_port)
    return [*direct, tunnel]
