"""What `kecs explain` says of a service or a task, from the committed state and `Troubles`. Pure.

Facts come most important first, one sentence each; advice names the command that helps. The words that are
shared are in `explain_words`, what happened when in `explain_events`, what helps in `explain_advice`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kecs.client.admin_types import Explain
from kecs.controlplane import explain_advice, explain_events, explain_pods, without_effect
from kecs.controlplane.endpoints import LOCAL, REACHABLE, definition_of
from kecs.controlplane.explain_words import exit_of, not_listening, not_public, stopped
from kecs.controlplane.lookup import find_service, find_task, nothing_found
from kecs.controlplane.ps import short_name, tasks_of
from kecs.ecs import deployments
from kecs.ecs.context import RuntimeTraits
from kecs.ecs.model import Deployment, Service, Task, TaskDefinition
from kecs.ecs.state import Reader

Troubles = Callable[[Service | Task], list[str]]
"""Tells what keeps a row from being as wanted and stands in no row, a sentence each."""


def no_troubles(_row: Service | Task) -> list[str]:
    """Tell of nothing."""
    return []


def explain_service(
    state: Reader,
    region: str,
    cluster: str,
    name: str,
    troubles: Troubles = no_troubles,
    *,
    traits: RuntimeTraits = LOCAL,
) -> Explain:
    """Explain a service. Raises `KecsError` when there is none."""
    service = find_service(state, region, cluster, name)
    if service is None:
        raise nothing_found(state, region, cluster, name, "service")
    tasks = tasks_of(service, state.scan(Task, service.region, service.cluster))
    alive = [task for task in tasks if task.last_status != "STOPPED"]
    definition = definition_of(state, service.region, service.task_definition)
    facts = [
        _standing(service, tasks),
        *troubles(service),
        *explain_pods.without_a_place(alive),
        *not_listening(alive),
        *(_own_ports(definition) if any(task.pod is None for task in alive) else ()),
        *explain_pods.node_ports(state, service, traits),
        *_deployments(service),
        *stopped(tasks),
        *([] if service.public else [not_public(service.network_configuration is not None)]),
    ]
    return Explain(
        title=f"service {service.cluster}/{service.name} in {service.region}",
        facts=facts,
        without_effect=[
            *without_effect.of_service(service, traits.name),
            *without_effect.of_definition(definition, traits.name),
        ],
        advice=list(explain_advice.for_service(service, tasks)),
        timeline=explain_events.of_service(service, tasks),
        opens=_opens_service(service),
        region=service.region,
        cluster=service.cluster,
        service=service.name,
    )


def explain_task(
    state: Reader,
    region: str,
    cluster: str,
    name: str,
    troubles: Troubles = no_troubles,
    *,
    traits: RuntimeTraits = LOCAL,
) -> Explain:
    """Explain a task by id, unique prefix or ARN. Raises `KecsError` when there is none."""
    task = find_task(state, region, cluster, name)
    if task is None:
        raise nothing_found(state, region, cluster, name, "task")
    definition = definition_of(state, task.region, task.task_definition)
    facts = [
        _task_standing(task),
        *troubles(task),
        *explain_pods.without_a_place([task]),
        *explain_pods.where(task),
        *_container_facts(task),
        *not_listening([task]),
        *(_own_ports(definition) if task.pod is None else ()),
        *_port_facts(state, task, traits),
        *([] if task.public else [not_public(task.network_mode == "awsvpc")]),
    ]
    return Explain(
        title=f"task {task.cluster}/{task.id} in {task.region}",
        facts=facts,
        without_effect=list(without_effect.of_definition(definition, traits.name)),
        advice=list(explain_advice.for_tasks([task])),
        timeline=explain_events.of_tasks([task]),
        opens=_opens_task(task),
        region=task.region,
        cluster=task.cluster,
        service=task.service,
        task_id=task.id,
    )


def _standing(service: Service, tasks: list[Task]) -> str:
    running, pending = deployments.counts(tasks)
    what = f"{running} of {service.desired_count} tasks are running, {pending} pending"
    if service.status == "ACTIVE":
        return f"the service is ACTIVE with {short_name(service.task_definition)}: {what}"
    return f"the service is {service.status} (it was deleted): {what}"


def _deployments(service: Service) -> Iterator[str]:
    for deployment in service.deployments:
        if deployment.rollout_state == "COMPLETED":
            continue
        failed = f", {deployment.failed_tasks} tasks failed" if deployment.failed_tasks else ""
        yield f"{_named(deployment)} is {deployment.rollout_state}{failed}: {deployment.rollout_state_reason}"
    for deployment in (*service.deployments, *service.history):
        if deployment.rollout_state == "FAILED":
            back = deployments.primary(service)
            if back is not None and back.id != deployment.id:
                yield (
                    f"the circuit breaker gave up {_named(deployment)} and rolled back to "
                    f"{short_name(back.task_definition)}"
                )
            return


def _named(deployment: Deployment) -> str:
    return f"deployment {deployment.id} of {short_name(deployment.task_definition)}"


def _own_ports(definition: TaskDefinition | None) -> Iterator[str]:
    """Tell of a definition that sets PORT, which KECS would set to where it looks for the container."""
    containers = definition.definition.get("containerDefinitions", []) if definition is not None else []
    for container in containers:
        for pair in container.get("environment", []):
            if pair.get("name") == "PORT" and container.get("portMappings"):
                value = pair.get("value")
                yield (
                    f"the definition of container {container['name']} sets PORT to {value} itself, "
                    "so it is not told its port on this machine that way"
                )


def _port_facts(state: Reader, task: Task, traits: RuntimeTraits) -> Iterator[str]:
    if task.pod is not None:
        yield from explain_pods.node_ports(state, task, traits)
        yield from explain_pods.tunnels(task)
        return
    for port in task.ports:
        if port.ready and task.last_status in REACHABLE:
            yield (
                f"port {port.container_port}/{port.protocol} of container {port.container} answers on "
                f"{port.host}:{port.host_port}"
            )


def _task_standing(task: Task) -> str:
    what = f"the task is {task.last_status}"
    if task.last_status == "STOPPED":
        return f"{what} ({task.stop_code}): {task.stopped_reason or 'no reason is known'}"
    if task.desired_status == "STOPPED":
        return f"{what} on its way to STOPPED: {task.stopped_reason or 'no reason is known'}"
    if task.last_status == "ACTIVATING":
        return f"{what}: it is RUNNING once its containers run and listen on their ports"
    return what


def _container_facts(task: Task) -> Iterator[str]:
    for container in task.containers:
        health = f", {container.health_status}" if container.has_health_check else ""
        said = exit_of(container)
        detail = f" ({said.removeprefix(container.name).lstrip(': ')})" if said else ""
        yield f"container {container.name} is {container.last_status}{health}{detail}"


def _opens_service(service: Service) -> str | None:
    if not service.public or service.status != "ACTIVE":
        return None
    return f"`kecs port-forward start service {service.cluster}/{service.name}` opens a port to it"


def _opens_task(task: Task) -> str | None:
    if not task.public or task.last_status != "RUNNING":
        return None
    return f"`kecs port-forward start task {task.cluster}/{task.id[:8]}` opens a port to it"
