"""What `kecs explain` says besides where tasks are pods: places, probes, node ports and routes. Pure.

Called by `kecs.controlplane.explain`, in whose words it speaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kecs.controlplane.node_routes import PUBLISHED_AT, why_unpublished
from kecs.ecs.context import RuntimeTraits
from kecs.ecs.model import Container, Node, NodePort, Service, Task, TaskPort
from kecs.ecs.state import Reader


def without_a_place(tasks: Iterable[Task]) -> Iterator[str]:
    """Tell of tasks that no node takes."""
    for task in tasks:
        if task.waiting and task.last_status != "STOPPED":
            yield f"task {task.id[:8]} has no place to run yet: {task.waiting}"


def where(task: Task) -> Iterator[str]:
    """Tell which pod a task is."""
    if task.pod is not None and task.last_status != "STOPPED":
        yield f"its pod is {task.namespace}/{task.pod}"


def silent(container: Container, port: TaskPort, task: Task) -> str:
    """Tell of a port whose readiness probe has not passed. What else listens in a pod cannot be seen."""
    return (
        f"container {container.name} does not answer on {port.container_port}: its readiness probe has not "
        f"passed [task {task.id[:8]}]"
    )


def node_ports(state: Reader, row: Service | Task, traits: RuntimeTraits) -> Iterator[str]:
    """Tell by which node ports a service or a standalone task is reached, and which are not there yet."""
    service, task_id = (row.name, "") if isinstance(row, Service) else ("", row.id)
    if isinstance(row, Task) and row.service is not None:
        return
    rows = state.scan(NodePort, row.region, row.cluster, service, task_id)
    addresses = [address for node in state.scan(Node) if node.ready for address in node.addresses]
    for each in rows:
        what = f"port {each.container_port}/{each.protocol}"
        if not each.applied:
            yield f"{what} is to have node port {each.port}, which the cluster does not have yet"
        elif addresses:
            yield f"{what} has node port {each.port} on {', '.join(addresses)}"
        else:
            yield f"{what} has node port {each.port}, and no node is ready"
        if traits.published is not None and each.protocol == "tcp" and each.applied:
            why = why_unpublished(each, state.scan(Node), traits)
            here = (
                f"is published on {PUBLISHED_AT}:{each.port}" if why is None else f"is not published: {why}"
            )
            yield f"{what} {here}"


def tunnels(task: Task) -> Iterator[str]:
    """Tell which ports are reached by a tunnel, too."""
    ports = [str(port.container_port) for port in task.ports if port.ready and port.protocol == "tcp"]
    if ports and task.last_status == "RUNNING":
        yield f"a tunnel to the pod reaches port {', '.join(ports)}"


def advice(tasks: Iterable[Task], *, unready: bool) -> Iterator[str]:
    """Tell what helps."""
    waiting = next((task for task in tasks if task.waiting and task.last_status != "STOPPED"), None)
    if waiting is not None:
        yield (
            f"`kubectl --namespace {waiting.namespace} describe pod {waiting.pod}` shows what the scheduler "
            "says; ask for less cpu or memory, or give the cluster more"
        )
    if unready:
        yield "let the process listen on its containerPort on all addresses (0.0.0.0), not on 127.0.0.1 only"
