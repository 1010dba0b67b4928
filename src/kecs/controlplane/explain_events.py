"""What happened to services and tasks, as lines of a timeline, from their rows alone. Pure.

Called by `kecs.controlplane.explain` and `explain_tags`. The rows keep times and reasons as long as ECS shows
them: a hundred events of a service, a stopped task for an hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kecs.client.admin_types import ExplainEvent
from kecs.controlplane.explain_words import exits_of
from kecs.controlplane.ps import short_name
from kecs.ecs.model import Service, Task

LAST = 50
"""How many lines are told: the newest ones."""

_SAID_BY_TASKS = ("has started ", "has stopped ")
"""How events begin that only list tasks: each task's own lines say more."""


def of_service(service: Service, tasks: Iterable[Task]) -> list[ExplainEvent]:
    """Tell of a service's events, its deployments and its tasks, oldest first."""
    mark = f"(service {service.name}) "
    found = [
        ExplainEvent(time=event.created_at, source="service", text=event.message.removeprefix(mark))
        for event in service.events
        if not event.message.removeprefix(mark).startswith(_SAID_BY_TASKS)
    ]
    for each in (*service.deployments, *service.history):
        why = " to roll back" if each.is_rollback else ""
        found.append(
            ExplainEvent(
                time=each.created_at,
                source="service",
                text=f"deployment {each.id} of {short_name(each.task_definition)} began{why}",
            )
        )
    found += of_tasks(tasks)
    return _newest(found)


def of_tasks(tasks: Iterable[Task]) -> list[ExplainEvent]:
    """Tell of tasks: when each ran, was told to stop, has stopped, and why; oldest first."""
    return _newest([event for task in tasks for event in _of_task(task)])


def _of_task(task: Task) -> Iterator[ExplainEvent]:
    source, name = f"task {task.id[:8]}", f"{task.family}:{task.revision}"
    yield ExplainEvent(time=task.created_at, source=source, text=f"was made of {name}")
    if task.started_at is not None:
        yield ExplainEvent(time=task.started_at, source=source, text="is RUNNING")
    if task.stopping_at is not None and task.stopping_at != task.stopped_at:
        why = f": {task.stopped_reason}" if task.stopped_reason else ""
        yield ExplainEvent(time=task.stopping_at, source=source, text=f"is to stop{why}")
    if task.stopped_at is not None:
        why = f": {task.stopped_reason or task.stop_code or 'no reason is known'}"
        exits = exits_of(task)
        yield ExplainEvent(
            time=task.stopped_at, source=source, text=f"has stopped{why}" + (f" ({exits})" if exits else "")
        )


def _newest(found: list[ExplainEvent]) -> list[ExplainEvent]:
    return sorted(found, key=lambda event: event.time)[-LAST:]
