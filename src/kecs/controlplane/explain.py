"""What `kecs explain` says of a service or a task, from the committed state and `Troubles`. Pure.

Facts come most important first, one sentence each; advice names the command that helps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from kecs.client.admin_types import Explain
from kecs.controlplane import explain_pods, without_effect
from kecs.controlplane.endpoints import REACHABLE, definition_of
from kecs.controlplane.lookup import find_service, find_task, nothing_found
from kecs.controlplane.ps import short_name, tasks_of
from kecs.ecs import deployments
from kecs.ecs.model import Container, Deployment, Service, Task, TaskDefinition, TaskPort
from kecs.ecs.state import Reader

LAST_STOPPED = 3
"""How many stopped tasks of a service are named."""
LAST_EVENTS = 3
"""How many events of a service that is not steady are named."""


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
    runtime: str = "local",
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
        *_not_listening(alive),
        *(_own_ports(definition) if any(task.pod is None for task in alive) else ()),
        *explain_pods.node_ports(state, service),
        *_deployments(service),
        *_stopped(tasks),
        *([] if service.public else [_not_public(service.network_configuration is not None)]),
        *(event.message for event in service.events[:LAST_EVENTS] if not service.steady),
    ]
    return Explain(
        title=f"service {service.cluster}/{service.name} in {service.region}",
        facts=facts,
        without_effect=[
            *without_effect.of_service(service, runtime),
            *without_effect.of_definition(definition, runtime),
        ],
        advice=list(_advice_for_service(service, tasks)),
    )


def explain_task(
    state: Reader,
    region: str,
    cluster: str,
    name: str,
    troubles: Troubles = no_troubles,
    *,
    runtime: str = "local",
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
        *_not_listening([task]),
        *(_own_ports(definition) if task.pod is None else ()),
        *_port_facts(state, task),
        *([] if task.public else [_not_public(task.network_mode == "awsvpc")]),
    ]
    return Explain(
        title=f"task {task.cluster}/{task.id} in {task.region}",
        facts=facts,
        without_effect=list(without_effect.of_definition(definition, runtime)),
        advice=list(_advice_for_task(task)),
    )


def unready(task: Task) -> Iterator[tuple[Container, TaskPort]]:
    """Yield (container, port) for each TCP port of a running container on which nothing listens."""
    containers = {container.name: container for container in task.containers}
    for port in task.ports:
        container = containers.get(port.container)
        if container is None or container.last_status != "RUNNING":
            continue
        if port.protocol == "tcp" and not port.ready:
            yield container, port


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


def _stopped(tasks: Iterable[Task]) -> Iterator[str]:
    stopped = [task for task in tasks if task.last_status == "STOPPED"]
    stopped.sort(key=lambda task: task.stopped_at or 0.0, reverse=True)
    for task in stopped[:LAST_STOPPED]:
        exits = ", ".join(_exit(container) for container in task.containers if _exit(container))
        why = task.stopped_reason or task.stop_code or "no reason is known"
        detail = f" ({exits})" if exits else ""
        yield f"task {task.id[:8]} of {task.family}:{task.revision} has stopped: {why}{detail}"


def _exit(container: Container) -> str:
    if container.reason:
        return f"{container.name}: {container.reason}"
    return f"{container.name} ended with exit code {container.exit_code}" if container.exit_code else ""


def _not_listening(tasks: Iterable[Task]) -> Iterator[str]:
    for task in tasks:
        for container, port in unready(task):
            if task.pod is not None:
                yield explain_pods.silent(container, port, task)
                continue
            heard = ", ".join(str(number) for number in container.listening)
            here = "" if port.host_port in (0, port.container_port) else (
                f"; on this machine {port.container_port} is port {port.host_port}, given to it as "
                f"PORT_{port.container_port}"
            )  # fmt: skip
            yield (
                f"container {container.name} does not listen on {port.container_port} "
                f"({f'it listens on {heard}' if heard else 'it does not listen'}){here} [task {task.id[:8]}]"
            )


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


def _port_facts(state: Reader, task: Task) -> Iterator[str]:
    if task.pod is not None:
        yield from explain_pods.node_ports(state, task)
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
        said = _exit(container)
        detail = f" ({said.removeprefix(container.name).lstrip(': ')})" if said else ""
        yield f"container {container.name} is {container.last_status}{health}{detail}"


def _not_public(awsvpc: bool) -> str:
    if awsvpc:
        return "it is not public: assignPublicIp is not ENABLED, so no port forward can reach it"
    return "it is not public: only network mode awsvpc has assignPublicIp, so no port forward can reach it"


def _advice_for_service(service: Service, tasks: list[Task]) -> Iterator[str]:
    where = f"{service.cluster}/{service.name}"
    if not service.public:
        yield make_public(service)
    yield from _advice_for_ports(tasks)
    if any(task.last_status == "STOPPED" for task in tasks):
        yield f"`kecs logs {where}` shows what the tasks wrote"
    if service.desired_count == 0 and service.status == "ACTIVE":
        yield (
            "nothing is wanted; start tasks by "
            f"`aws ecs update-service --cluster {service.cluster} --service {service.name} --desired-count 1`"
        )
    if service.public and service.status == "ACTIVE":
        yield f"`kecs port-forward start service {where}` opens a port to it"


def _advice_for_ports(tasks: list[Task]) -> Iterator[str]:
    pods = [task for task in tasks if task.pod is not None]
    yield from explain_pods.advice(pods, unready=any(True for task in pods for _ in unready(task)))
    if any(True for task in tasks if task.pod is None for _ in unready(task)):
        yield "let the process listen on the number in its variable PORT (or PORT_<containerPort>)"


def make_public(service: Service) -> str:
    """Return the advice that gives a service `assignPublicIp: ENABLED`."""
    awsvpc = (service.network_configuration or {}).get("awsvpcConfiguration")
    if not awsvpc:
        return "use a task definition with networkMode awsvpc, and create the service with assignPublicIp"
    subnets = ",".join(awsvpc.get("subnets", []))
    groups = awsvpc.get("securityGroups")
    also = f",securityGroups=[{','.join(groups)}]" if groups else ""
    return (
        f"make it public by `aws ecs update-service --cluster {service.cluster} --service {service.name} "
        f"--network-configuration 'awsvpcConfiguration={{subnets=[{subnets}]{also},assignPublicIp=ENABLED}}'`"
    )


def _advice_for_task(task: Task) -> Iterator[str]:
    yield from _advice_for_ports([task])
    yield f"`kecs logs {task.cluster}/{task.id[:8]}` shows what it wrote"
    if task.public and task.last_status == "RUNNING":
        yield f"`kecs port-forward start task {task.cluster}/{task.id[:8]}` opens a port to it"
