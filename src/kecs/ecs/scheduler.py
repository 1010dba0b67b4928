"""What a service needs next: `plan` compares what is asked for with the tasks there are.

The controller calls `plan` after each change of the service or of one of its tasks and at `wake_at`, and
carries the result out in the same transaction: it stores `Plan.service`, makes a task for each `start`
(and says so with `events.tasks_started`, since only it knows their ids; or calls `could_not_place`) and
calls `lifecycle.request_stop` for each `stop`. A plan that was carried out asks for nothing more until
something changes. Pure: no I/O, no clock, no randomness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from kecs.ecs import circuit_breaker, deployments, events, rolling
from kecs.ecs.context import Knobs
from kecs.ecs.lifecycle import FAILED_HEALTH_CHECKS, task_is_healthy
from kecs.ecs.model import Deployment, Service, Task

NewId = Callable[[], str]
replace = msgspec.structs.replace


class StartTask(msgspec.Struct, frozen=True, kw_only=True):
    """Make one more task of this deployment."""

    deployment_id: str
    task_definition_arn: str


class StopTask(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for the planned stop of this task."""

    task_id: str
    stop_code: str
    reason: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The service's next row and what to do; carried out whole or not at all."""

    service: Service
    start: tuple[StartTask, ...] = ()
    stop: tuple[StopTask, ...] = ()
    wake_at: float | None = None
    """Epoch seconds: the earliest time when another plan may differ though nothing was observed."""


def plan(service: Service, tasks: Sequence[Task], now: float, knobs: Knobs, new_id: NewId) -> Plan:  # noqa: ARG001
    """Decide what the service needs; `tasks` are all of its tasks that are not forgotten, STOPPED too.

    `knobs` is not needed yet: `lifecycle` has put `healthy_after` into each task's `healthy_at` already.
    """
    newest = deployments.primary(service)
    if service.status != "ACTIVE":
        return _drain(service, newest, tasks, now, new_id)
    if newest is None:
        return Plan(service=service)  # another deployment controller: its tasks are not ours to start
    service, newest = _with_failures(service, newest, tasks, now, new_id)
    bounds = rolling.Bounds.of(service)
    failed = newest.rollout_state == "FAILED"
    throttled = newest.next_start_at > now
    found = rolling.moves(newest.id, tasks, bounds, now, may_start=not (failed or throttled))
    start = StartTask(deployment_id=newest.id, task_definition_arn=newest.task_definition)
    service = _with_stops_told(service, found, now, new_id)
    service = deployments.without_ended(service, tasks, now)
    service = _with_desired_counts(service, tasks, found, bounds, now)
    service = _with_outcome(service, tasks, found, bounds, now, new_id)
    return Plan(
        service=service,
        start=(start,) * found.start,
        stop=tuple(_stop(task, newest.id, unhealthy=task.id in found.unhealthy) for task in found.stop),
        wake_at=_wake_at(newest, tasks, found, bounds, now),
    )


def could_not_place(service: Service, deployment: str, reason: str, now: float, new_id: NewId) -> Service:
    """Record that a `StartTask` could not be made into a task: it is tried again later, ever more slowly.

    `reason` without a full stop, e.g. "port 8080 of this machine is in use".
    """
    found = deployments.primary(service)
    if found is None or found.id != deployment:
        return service
    service = deployments.with_deployment(
        service, circuit_breaker.one_more(found, now, deployments.wanted(service))
    )
    return events.cannot_place(service, reason, now, new_id)


def _drain(
    service: Service, newest: Deployment | None, tasks: Sequence[Task], now: float, new_id: NewId
) -> Plan:
    """Stop everything of a deleted service; it is INACTIVE when nothing of it is left."""
    live = [task for task in tasks if task.desired_status == "RUNNING" and task.last_status != "STOPPED"]
    service = events.tasks_stopped(service, [task.id for task in live], now, new_id)
    if newest is not None and newest.desired_count:
        service = deployments.with_deployment(service, replace(newest, desired_count=0, updated_at=now))
    if service.status == "DRAINING" and all(task.last_status == "STOPPED" for task in tasks):
        ended = service.deployments
        service = deployments.retired(
            replace(service, status="INACTIVE", deployments=[], steady=False), ended, now
        )
    known = newest.id if newest is not None else service.name
    return Plan(service=service, stop=tuple(_stop(task, known, unhealthy=False) for task in live))


def _with_failures(
    service: Service, newest: Deployment, tasks: Sequence[Task], now: float, new_id: NewId
) -> tuple[Service, Deployment]:
    """Count failing tasks; let the circuit breaker act. Return the PRIMARY deployment that comes of it."""
    desired = deployments.wanted(service)
    # Once it is COMPLETED the breaker no longer watches it, and only the throttle needs the count.
    resets = circuit_breaker.breaker(service).get("resetOnHealthyTask", True) is not False
    resets = resets or newest.rollout_state != "IN_PROGRESS"
    before = newest.failed_tasks
    newest = circuit_breaker.counted(newest, tasks, now, desired=desired, resets=resets)
    service = deployments.with_deployment(service, newest)
    if not circuit_breaker.trips(service, newest, desired):
        often = circuit_breaker.rounds(newest.failed_tasks, desired) >= circuit_breaker.NOTABLE_ROUNDS
        # Only a new failure is news: what failed before the service became steady is resolved.
        if often and newest.failed_tasks > before and newest.rollout_state != "FAILED":
            service = events.cannot_start_consistently(service, now, new_id)
        return service, newest
    newest = deployments.with_state(
        newest, "FAILED", "ECS deployment circuit breaker: tasks failed to start.", now
    )
    service = events.deployment_failed(deployments.with_deployment(service, newest), newest.id, now, new_id)
    target = deployments.last_stable(service)
    # A rollback that fails as well has nowhere better to go: it would go to the same revision again.
    if not circuit_breaker.breaker(service).get("rollback") or newest.is_rollback or target is None:
        return service, newest
    return _rolled_back(service, target, now, new_id)


def _rolled_back(
    service: Service, target: Deployment, now: float, new_id: NewId
) -> tuple[Service, Deployment]:
    """Start a new deployment of what `target` ran."""
    service = replace(
        service,
        task_definition=target.task_definition,
        launch_type=target.launch_type,
        platform_version=target.platform_version,
        capacity_provider_strategy=target.capacity_provider_strategy,
        network_configuration=target.network_configuration,
    )
    fresh = deployments.new_deployment(
        service,
        deployment_id=deployments.deployment_id(new_id),
        now=now,
        extra=target.extra,
        is_rollback=True,
    )
    reason = f"ECS deployment circuit breaker: rolling back to deploymentId {target.id}."
    fresh = replace(fresh, rollout_state_reason=reason)
    service = events.rolling_back(service, target.id, now, new_id)
    return deployments.with_new_deployment(service, fresh, now), fresh


def _stop(task: Task, newest: str, *, unhealthy: bool) -> StopTask:
    scaling = f"Scaling activity initiated by (deployment {newest})"
    reason = FAILED_HEALTH_CHECKS if unhealthy else scaling
    return StopTask(task_id=task.id, stop_code="ServiceSchedulerInitiated", reason=reason)


def _with_stops_told(service: Service, found: rolling.Moves, now: float, new_id: NewId) -> Service:
    for task_id in sorted(found.unhealthy):
        service = events.failed_health_checks(service, task_id, now, new_id)
    return events.tasks_stopped(service, [task.id for task in found.stop], now, new_id)


def _with_desired_counts(
    service: Service, tasks: Sequence[Task], found: rolling.Moves, bounds: rolling.Bounds, now: float
) -> Service:
    """Note that the PRIMARY deployment wants all, an older one what is left of it."""
    stopped = {task.id for task in found.stop}
    for item in service.deployments:
        left = sum(
            task.started_by == item.id and task.desired_status == "RUNNING" and task.id not in stopped
            for task in tasks
        )
        count = bounds.desired if item.status == "PRIMARY" else left
        if count != item.desired_count:
            service = deployments.with_deployment(service, replace(item, desired_count=count, updated_at=now))
    return service


def _with_outcome(
    service: Service,
    tasks: Sequence[Task],
    found: rolling.Moves,
    bounds: rolling.Bounds,
    now: float,
    new_id: NewId,
) -> Service:
    """Say what became of it: completed, steady, or stuck."""
    newest = deployments.primary(service)
    if newest is None:
        return service
    if found.stuck:
        service = events.blocked_by_configuration(service, now, new_id)
    alive = [task for task in tasks if task.last_status != "STOPPED"]
    reached = (
        not found.start
        and not found.stop
        and newest.rollout_state != "FAILED"
        and len(alive) == bounds.desired
        and all(task.started_by == newest.id and task_is_healthy(task, now) for task in alive)
    )
    if not reached:
        return replace(service, steady=False)
    if newest.rollout_state == "IN_PROGRESS":
        done = deployments.with_state(newest, "COMPLETED", f"ECS deployment {newest.id} completed.", now)
        service = events.deployment_completed(
            deployments.with_deployment(service, done), done.id, now, new_id
        )
    if not service.steady:
        service = events.steady_state(service, now, new_id)
    return replace(service, steady=True)


def _wake_at(
    newest: Deployment, tasks: Sequence[Task], found: rolling.Moves, bounds: rolling.Bounds, now: float
) -> float | None:
    """Return when time alone changes something: a task counts as healthy, a grace or a throttle ends."""
    live = [task for task in tasks if task.desired_status == "RUNNING" and task.last_status != "STOPPED"]
    times = [task.healthy_at for task in live if task.healthy_at is not None]
    times += [
        (task.started_at or task.created_at) + bounds.grace
        for task in live
        if task.health_status == "UNHEALTHY"
    ]
    if found.missing and newest.rollout_state != "FAILED":
        times.append(newest.next_start_at)
    return min((at for at in times if at > now), default=None)
