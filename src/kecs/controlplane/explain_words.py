"""Sentences that several parts of `kecs explain` use: why a task ended, what does not listen. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kecs.controlplane import explain_pods
from kecs.ecs.model import Container, Task, TaskPort

LAST_STOPPED = 3
"""How many stopped tasks are named."""


def exit_of(container: Container) -> str:
    """Say why a container ended; empty when there is nothing to say."""
    if container.reason:
        return f"{container.name}: {container.reason}"
    return f"{container.name} ended with exit code {container.exit_code}" if container.exit_code else ""


def exits_of(task: Task) -> str:
    """Say why each container of a task ended."""
    return ", ".join(said for container in task.containers if (said := exit_of(container)))


def newest_stopped(tasks: Iterable[Task]) -> list[Task]:
    """Return the tasks that stopped last, the newest first."""
    stopped = [task for task in tasks if task.last_status == "STOPPED"]
    return sorted(stopped, key=lambda task: task.stopped_at or 0.0, reverse=True)[:LAST_STOPPED]


def stopped(tasks: Iterable[Task]) -> Iterator[str]:
    """Tell of the tasks that stopped last, and why."""
    for task in newest_stopped(tasks):
        why = task.stopped_reason or task.stop_code or "no reason is known"
        exits = exits_of(task)
        detail = f" ({exits})" if exits else ""
        yield f"task {task.id[:8]} of {task.family}:{task.revision} has stopped: {why}{detail}"


def unready(task: Task) -> Iterator[tuple[Container, TaskPort]]:
    """Yield (container, port) for each TCP port of a running container on which nothing listens."""
    containers = {container.name: container for container in task.containers}
    for port in task.ports:
        container = containers.get(port.container)
        if container is None or container.last_status != "RUNNING":
            continue
        if port.protocol == "tcp" and not port.ready:
            yield container, port


def not_listening(tasks: Iterable[Task]) -> Iterator[str]:
    """Tell of ports on which nothing listens, and on which ones something does."""
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


def not_public(awsvpc: bool) -> str:
    """Tell that no forward may lead there."""
    if awsvpc:
        return "it is not public: assignPublicIp is not ENABLED, so no port forward can reach it"
    return "it is not public: only network mode awsvpc has assignPublicIp, so no port forward can reach it"
