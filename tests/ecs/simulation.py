"""A fake clock and a fake runtime that drive `plan`, `observe` and `request_stop` as the controller does.

A revision of the service behaves as its `Behaviour` says. After every plan the promises that hold at all
times are checked, so every scenario is a test of them too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from kecs.ecs import deployments, events, lifecycle, rolling, scheduler
from kecs.ecs.context import Knobs
from kecs.ecs.lifecycle import ContainerObservation, TaskObservation
from kecs.ecs.model import Container, Service, Task, TaskPort

replace = msgspec.structs.replace
START = 1_000_000.0
FORGOTTEN_AFTER = 100.0
PORT = 80


@dataclass(frozen=True)
class Behaviour:
    """What the tasks of one revision do; seconds since they were given to the runtime."""

    runs_at: float = 0.1
    listens_at: float = 0.5
    exits_at: float | None = None
    exit_code: int = 1
    failure: str | None = None
    """Cannot start, seen at `runs_at`."""
    health_check: bool = False
    healthy_at: float = 1.0
    sick_at: float | None = None
    stop_takes: float = 0.3

    def moments(self) -> list[float]:
        """Return when something changes."""
        times = [self.runs_at, self.listens_at, self.exits_at, self.sick_at]
        times += [self.healthy_at if self.health_check else None]
        return [at for at in times if at is not None]


GOOD = Behaviour()


class Simulation:
    """One service, its tasks and the time."""

    def __init__(
        self,
        *,
        desired: int = 2,
        minimum: int | None = 100,
        maximum: int | None = 200,
        behaviour: Behaviour = GOOD,
        breaker: dict[str, object] | None = None,
        drain: float = 0.2,
        knobs: Knobs | None = None,
        **members: object,
    ) -> None:
        self.now = START
        self.knobs = knobs or Knobs()
        self.drain = drain
        self.tasks: dict[str, Task] = {}
        """All there ever were."""
        self.known: dict[str, Task] = {}
        """Those that are not forgotten: a STOPPED one can be described for a while."""
        self.behaviours: dict[str, Behaviour] = {}
        self.overrides: dict[str, Behaviour] = {}
        """Behaviour of single tasks, by id."""
        self.begun: dict[str, float] = {}
        self.stop_ordered: dict[str, float] = {}
        self.draining: dict[str, float] = {}
        self.wake_at: float | None = None
        self.plans = 0
        self.started = 0
        self.least_healthy: int | None = None
        """Fewest healthy tasks since `watch_healthy`."""
        self._ids = itertools.count(1)
        configuration: dict[str, object] = {"minimumHealthyPercent": minimum, "maximumPercent": maximum}
        if breaker is not None:
            configuration["deploymentCircuitBreaker"] = breaker
        service = Service(
            region="eu-north-1",
            cluster="default",
            name="web",
            task_definition="web:1",
            desired_count=desired,
            deployment_configuration=configuration,
            created_at=self.now,
            **members,
        )
        self.service = service
        self.deploy(behaviour)

    # What a user does

    def deploy(self, behaviour: Behaviour = GOOD) -> str:
        """Roll out a next revision; return the deployment's id."""
        revision = f"web:{len(self.behaviours) + 1}"
        self.behaviours[revision] = behaviour
        service = replace(self.service, task_definition=revision)
        made = deployments.new_deployment(
            service, deployment_id=deployments.deployment_id(self.new_id), now=self.now
        )
        self.service = deployments.with_new_deployment(service, made, self.now)
        self.plan()
        return made.id

    def scale(self, desired: int) -> None:
        """Change the desired count alone."""
        self.service = replace(self.service, desired_count=desired, steady=False)
        self.plan()

    def delete(self) -> None:
        """DeleteService with force."""
        self.service = replace(self.service, status="DRAINING")
        self.plan()

    def stop_task(self, task_id: str) -> None:
        """StopTask."""
        self.put(
            lifecycle.request_stop(self.tasks[task_id], "UserInitiated", "Task stopped by user", self.now)
        )
        self.plan()

    # What the controller does

    def new_id(self) -> str:
        return f"{next(self._ids):032x}"

    def plan(self) -> None:
        """Plan, check the promises, carry out, and plan once more: nothing more is asked."""
        before = self.healthy()
        old = [
            task.id
            for task in self.known.values()
            if (task.stopped_at or self.now) < self.now - FORGOTTEN_AFTER
        ]
        for task_id in old:
            del self.known[task_id]
        tasks = list(self.known.values())
        found = scheduler.plan(self.service, tasks, self.now, self.knobs, self.new_id)
        self.plans += 1
        self._carry_out(found)
        self._check(before, found)
        again = scheduler.plan(self.service, list(self.known.values()), self.now, self.knobs, self.new_id)
        assert (again.start, again.stop) == ((), ()), "a plan that was carried out asks for more"
        assert again.service == self.service, "planning again changes the service"

    def _carry_out(self, found: scheduler.Plan) -> None:
        self.service, self.wake_at = found.service, found.wake_at
        for stop in found.stop:
            self.put(lifecycle.request_stop(self.tasks[stop.task_id], stop.stop_code, stop.reason, self.now))
        made = [self._make(start) for start in found.start]
        self.service = events.tasks_started(self.service, made, self.now, self.new_id)

    def _make(self, start: scheduler.StartTask) -> str:
        task_id = self.new_id()
        checked = self.behaviours[start.task_definition_arn].health_check
        self.tasks[task_id] = self.known[task_id] = Task(
            region="eu-north-1",
            cluster="default",
            id=task_id,
            service="web",
            started_by=start.deployment_id,
            group="service:web",
            task_definition=start.task_definition_arn,
            family="web",
            revision=int(start.task_definition_arn.partition(":")[2]),
            containers=[Container(name="web", id="c", image="web", has_health_check=checked)],
            ports=[TaskPort(container="web", container_port=PORT, host_port=PORT)],
            created_at=self.now,
        )
        self.begun[task_id] = self.now
        self.started += 1
        return task_id

    def _check(self, healthy_before: int, found: scheduler.Plan) -> None:
        bounds = rolling.Bounds.of(self.service)
        healthy = self.healthy()
        if healthy < healthy_before and self.service.status == "ACTIVE":
            assert healthy >= bounds.minimum, "our own stops left too few healthy tasks"
        if found.start:
            assert len(self.live()) <= bounds.maximum, "more tasks than maximumPercent allows"
        if found.wake_at is not None:
            assert found.wake_at > self.now, "a wake-up in the past would be a busy loop"
        assert sum(item.status == "PRIMARY" for item in self.service.deployments) == (
            self.service.status != "INACTIVE"
        )
        if self.least_healthy is not None:
            self.least_healthy = min(self.least_healthy, healthy)

    def put(self, task: Task) -> None:
        old = self.tasks[task.id]
        assert lifecycle.ORDER[task.last_status] >= lifecycle.ORDER[old.last_status]
        self.tasks[task.id] = self.known[task.id] = task
        if task.last_status == "DEACTIVATING":
            self.draining.setdefault(task.id, self.now)
        if task.last_status == "STOPPING":
            self.stop_ordered.setdefault(task.id, self.now)

    # The time

    def step(self, until: float) -> bool:
        """Go to the next moment at which something happens, at most `until`; False when nothing does."""
        moments = [self.wake_at, *(at for task in self._unfinished() for at in self._moments(task))]
        later = [at for at in moments if at is not None and at > self.now]
        if not later or min(later) > until:
            self.now = until
            return False
        self.now = min(later)
        for task in self._unfinished():
            if task.last_status == "DEACTIVATING" and self.now >= self.draining[task.id] + self.drain:
                self.put(lifecycle.begin_stopping(task, self.now))
            self.put(lifecycle.observe(self.tasks[task.id], self._seen(task), self.now, self.knobs))
        self.plan()
        return True

    def run(self, seconds: float = 300.0) -> None:
        """Let time pass."""
        until = self.now + seconds
        while self.step(until):
            assert self.plans < 20_000, "it never comes to rest"

    def run_until(self, condition: Callable[[], bool], seconds: float = 300.0) -> None:
        """Let time pass until `condition` holds."""
        until = self.now + seconds
        while not condition():
            assert self.step(until), f"it did not come within {seconds} s: {self.messages()[:5]}"

    def _behaviour(self, task: Task) -> Behaviour:
        return self.overrides.get(task.id, self.behaviours[task.task_definition])

    def _moments(self, task: Task) -> list[float | None]:
        times: list[float | None] = [
            self.begun[task.id] + moment for moment in self._behaviour(task).moments()
        ]
        times.append(lifecycle.next_wake(task, self.now, self.knobs))
        if task.id in self.draining:
            times.append(self.draining[task.id] + self.drain)
        if task.id in self.stop_ordered:
            times.append(self.stop_ordered[task.id] + self._behaviour(task).stop_takes)
        return times

    def _seen(self, task: Task) -> TaskObservation:
        does, age = self._behaviour(task), self.now - self.begun[task.id] + 1e-9
        ordered = self.stop_ordered.get(task.id)
        ended = ordered is not None and self.now >= ordered + does.stop_takes
        if does.failure is not None and age >= does.runs_at:
            return TaskObservation(failure=does.failure, ended=True)
        exited = does.exits_at is not None and age >= does.exits_at
        if exited or ended:
            code = does.exit_code if exited else 143
            gone = ContainerObservation(
                name="web", status="STOPPED", exit_code=code if age >= does.runs_at else None
            )
            return TaskObservation(containers=[gone], ended=True)
        if age < does.runs_at:
            return TaskObservation(containers=[ContainerObservation(name="web")])
        sick = does.sick_at is not None and age >= does.sick_at
        passing = "HEALTHY" if age >= does.healthy_at else "UNKNOWN"
        seen = ContainerObservation(
            name="web",
            status="RUNNING",
            health="UNHEALTHY" if sick else passing,
            listening=[("127.0.0.1", PORT)] if age >= does.listens_at else [],
            started_at=self.begun[task.id] + does.runs_at,
        )
        return TaskObservation(containers=[seen])

    # What a user sees

    def _unfinished(self) -> list[Task]:
        return [task for task in self.known.values() if task.last_status != "STOPPED"]

    def live(self) -> list[Task]:
        """Tasks that are meant to run."""
        return [task for task in self._unfinished() if task.desired_status == "RUNNING"]

    def healthy(self) -> int:
        return sum(lifecycle.task_is_healthy(task, self.now) for task in self.known.values())

    def primary(self) -> deployments.Deployment:
        found = deployments.primary(self.service)
        assert found is not None
        return found

    def stable(self) -> bool:
        """What `services_stable` waits for, and COMPLETED."""
        running, _ = deployments.counts(self.known.values())
        return (
            len(self.service.deployments) == 1
            and running == deployments.wanted(self.service)
            and self.primary().rollout_state == "COMPLETED"
        )

    def revisions(self) -> dict[str, int]:
        """Tasks that are meant to run, by revision."""
        found: dict[str, int] = {}
        for task in self.live():
            found[task.task_definition] = found.get(task.task_definition, 0) + 1
        return found

    def messages(self) -> list[str]:
        """Events, newest first, without the name of the service."""
        return [event.message.removeprefix("(service web) ") for event in self.service.events]

    def reasons(self) -> set[tuple[str | None, str | None]]:
        """(stopCode, stoppedReason) of the tasks that were stopped."""
        return {
            (task.stop_code, task.stopped_reason)
            for task in self.tasks.values()
            if task.stop_code is not None
        }
