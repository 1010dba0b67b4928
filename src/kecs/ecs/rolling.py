"""How many tasks to start and which to stop, within minimumHealthyPercent and maximumPercent.

Called by `ecs.scheduler` alone. One rule serves scaling, rolling updates and the replacement of unhealthy
tasks. The newest deployment is filled as far as `maximum` leaves room; what is not part of it goes as soon
as it is not needed for `minimum`, and earlier only where room must be made.

Tasks that are being stopped (DEACTIVATING, STOPPING) count neither as running nor against `maximum`,
which AWS defines over RUNNING and PENDING tasks. DAEMON is the exception: there is one task on a node, so
the old one must be STOPPED before the new one starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from kecs.ecs.deployments import wanted
from kecs.ecs.lifecycle import task_is_healthy
from kecs.ecs.model import Service, Task


class Grade(IntEnum):
    """What a task that is meant to run is worth, in the order in which tasks are given up."""

    PENDING = 0
    UNHEALTHY = 1
    WARMING = 2
    """RUNNING, not yet counted as healthy."""
    HEALTHY = 3


@dataclass(frozen=True)
class Bounds:
    """The numbers a deployment moves between."""

    desired: int
    minimum: int
    """Healthy tasks that our own stops leave."""
    maximum: int
    """Tasks on their way to RUNNING or there."""
    one_node: bool = False
    """DAEMON."""
    grace: float = 0.0
    """healthCheckGracePeriodSeconds: so long after its start an UNHEALTHY task is left alone."""

    @classmethod
    def of(cls, service: Service) -> Bounds:
        """Read them off a service; a minimum above, or a maximum below desired could never be met."""
        desired = wanted(service)
        daemon = service.scheduling_strategy == "DAEMON"
        configuration = service.deployment_configuration
        lowest = configuration.get("minimumHealthyPercent")
        highest = configuration.get("maximumPercent")
        lowest = (0 if daemon else 100) if lowest is None else int(lowest)
        highest = (100 if daemon else 200) if highest is None else int(highest)
        return cls(
            desired=desired,
            minimum=min(desired, -(-desired * lowest // 100)),
            maximum=max(desired, desired * highest // 100),
            one_node=daemon,
            grace=float(service.health_check_grace_period_seconds),
        )


@dataclass(frozen=True)
class Moves:
    """What to do now."""

    start: int
    stop: list[Task]
    unhealthy: frozenset[str]
    """Ids among `stop` that go because they failed their health checks."""
    missing: int
    """Tasks that the newest deployment lacks, `start` included."""
    stuck: bool
    """Something is missing, nothing can be done about it, and waiting will not change that."""


def grade(task: Task, now: float, grace: float) -> Grade:
    """Grade a task whose desired status is RUNNING."""
    if task.health_status == "UNHEALTHY" and now >= (task.started_at or task.created_at) + grace:
        return Grade.UNHEALTHY
    if task.last_status != "RUNNING":
        return Grade.PENDING
    return Grade.HEALTHY if task_is_healthy(task, now) else Grade.WARMING


def moves(newest: str, tasks: Sequence[Task], bounds: Bounds, now: float, *, may_start: bool) -> Moves:
    """Choose the next moves; `newest` is the PRIMARY deployment's id.

    `may_start` is False while starts are throttled, or the deployment FAILED: then no room is made either.
    """
    live = [task for task in tasks if task.desired_status == "RUNNING" and task.last_status != "STOPPED"]
    stopping = sum(task.desired_status == "STOPPED" and task.last_status != "STOPPED" for task in tasks)
    grades = {task.id: grade(task, now, bounds.grace) for task in live}
    fresh = [task for task in live if task.started_by == newest]
    good = [task for task in fresh if grades[task.id] is not Grade.UNHEALTHY]
    kept = {task.id for task in good}
    missing = max(0, bounds.desired - len(good))
    room = bounds.maximum - len(live) - (stopping if bounds.one_node else 0)
    floor = _Floor(
        grades=grades,
        bounds=bounds,
        healthy=sum(found is Grade.HEALTHY for found in grades.values()),
        running=sum(task.last_status == "RUNNING" for task in live),
        need=missing - room if may_start else 0,
    )
    candidates = [task for task in live if task.id not in kept]
    stop = _given_up(floor, candidates, newest)
    if may_start and missing and not any(grades[task.id] in {Grade.PENDING, Grade.WARMING} for task in fresh):
        going = {task.id for task in stop}
        lacking = 1 - (bounds.maximum - len(live) + len(stop))
        stop += _one_by_one([task for task in candidates if task.id not in going], grades, lacking)
    surplus = sorted(good, key=lambda task: (grades[task.id], -task.created_at, task.id))
    stop += surplus[: max(0, len(good) - bounds.desired)]
    if not bounds.one_node:
        room += len(stop)
    start = min(missing, max(0, room)) if may_start else 0
    waiting = stopping or any(found in {Grade.PENDING, Grade.WARMING} for found in grades.values())
    return Moves(
        start=start,
        stop=stop,
        unhealthy=frozenset(
            task.id for task in stop if task.started_by == newest and grades[task.id] is Grade.UNHEALTHY
        ),
        missing=missing,
        stuck=bool(missing and may_start and not start and not stop and not waiting),
    )


@dataclass
class _Floor:
    """What is left while tasks are given up one after the other."""

    grades: dict[str, Grade]
    bounds: Bounds
    healthy: int
    running: int
    need: int
    """Tasks to be stopped only to make room for others."""
    stopped: list[Task] = field(default_factory=list)

    def allows(self, task: Task, newest: str) -> bool:
        """Tell whether `task` may and should go."""
        found = self.grades[task.id]
        runs = task.last_status == "RUNNING"
        if not runs and task.started_by != newest:
            return True
        if found is Grade.HEALTHY:
            useful = self.healthy > self.bounds.desired or self.need > 0
            return useful and self.healthy - 1 >= self.bounds.minimum
        if not (self.healthy >= self.bounds.desired or self.need > 0):
            return False
        return not runs or self.running - 1 >= self.bounds.minimum

    def give_up(self, task: Task) -> None:
        """Count `task` as stopped."""
        self.stopped.append(task)
        self.healthy -= self.grades[task.id] is Grade.HEALTHY
        self.running -= task.last_status == "RUNNING"
        self.need -= 1


def _given_up(floor: _Floor, candidates: Sequence[Task], newest: str) -> list[Task]:
    """Choose among tasks of older deployments and unhealthy ones: the least worth first, then the oldest."""
    order = sorted(
        candidates,
        key=lambda task: (floor.grades[task.id], task.started_by == newest, task.created_at, task.id),
    )
    for task in order:
        if floor.allows(task, newest):
            floor.give_up(task)
    return floor.stopped


def _one_by_one(left: Sequence[Task], grades: dict[str, Grade], lacking: int) -> list[Task]:
    """Choose unhealthy tasks to make room for one replacement, where nothing else can.

    "If maximumPercent doesn't allow the scheduler to start replacement tasks, the scheduler stops the
    unhealthy tasks one-by-one" (API reference, minimumHealthyPercent): they do not count as healthy anyway.
    """
    unhealthy = [task for task in left if grades[task.id] is Grade.UNHEALTHY]
    unhealthy.sort(key=lambda task: (task.created_at, task.id))
    return unhealthy[: max(0, lacking)]
