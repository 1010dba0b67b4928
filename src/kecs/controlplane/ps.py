"""What `kecs ps` shows, from the committed state. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kecs.client.admin_types import Ps, PsPort, PsService, PsTask
from kecs.controlplane.endpoints import REACHABLE
from kecs.ecs import deployments
from kecs.ecs.model import NodePort, Service, Task
from kecs.ecs.state import Reader

Doors = Mapping[tuple[str, str, str, int, str], int]
"""Node port by (region, cluster, service or id of a standalone task, container port, protocol)."""


Held = Callable[[Task], str | None]
"""Tells what a task waits for before it is started and stands in no row."""


def not_held(_task: Task) -> str | None:
    """Tell of nothing."""
    return None


def ps(state: Reader, held: Held = not_held, *, stopped: bool) -> Ps:
    """Return services and tasks; `stopped` adds the tasks that have stopped."""
    tasks = state.scan(Task)
    doors = _doors(state)
    return Ps(
        services=[
            _service(service, tasks) for service in state.scan(Service) if service.status != "INACTIVE"
        ],
        tasks=[
            _task(task, doors, task.waiting or held(task))
            for task in tasks
            if stopped or task.last_status not in ("STOPPED", "DELETED")
        ],
    )


def tasks_of(service: Service, tasks: list[Task]) -> list[Task]:
    """Keep the tasks of `service`."""
    return [
        task
        for task in tasks
        if task.service == service.name and task.cluster == service.cluster and task.region == service.region
    ]


def short_name(arn: str) -> str:
    """Return what stands behind the last slash of an ARN: `family:revision` for a task definition."""
    return arn.rpartition("/")[2]


def _service(service: Service, tasks: list[Task]) -> PsService:
    own = tasks_of(service, tasks)
    running, pending = deployments.counts(own)
    primary = deployments.primary(service)
    return PsService(
        region=service.region,
        cluster=service.cluster,
        service=service.name,
        status=service.status,
        task_definition=short_name(service.task_definition),
        desired=service.desired_count,
        running=running,
        pending=pending,
        public=service.public,
        rollout_state=primary.rollout_state if primary else "",
        deployments=len(service.deployments),
    )


def _doors(state: Reader) -> Doors:
    return {
        (row.region, row.cluster, row.service or row.task_id, row.container_port, row.protocol): row.port
        for row in state.scan(NodePort)
        if row.applied
    }


def _task(task: Task, doors: Doors, waiting: str | None) -> PsTask:
    return PsTask(
        region=task.region,
        cluster=task.cluster,
        task_id=task.id,
        service=task.service,
        task_definition=f"{task.family}:{task.revision}",
        last_status=task.last_status,
        desired_status=task.desired_status,
        health_status=task.health_status,
        public=task.public,
        created_at=task.created_at,
        stopped_reason=task.stopped_reason,
        ports=[
            PsPort(
                container=port.container,
                container_port=port.container_port,
                protocol=port.protocol,
                name=port.name,
                host_port=port.host_port,
                ready=port.ready and task.last_status in REACHABLE,
                node_port=doors.get(
                    (task.region, task.cluster, task.service or task.id, port.container_port, port.protocol)
                ),
            )
            for port in task.ports
        ],
        namespace=task.namespace,
        pod=task.pod,
        waiting=waiting,
    )
