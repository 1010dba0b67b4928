"""The controller: carries committed rows out, and commits what comes of it. Level-triggered.

It looks at what *is*, never at what happened: each commit marks the services it touched as dirty, one task
plans them (`kecs.ecs.scheduler.plan`), each living ECS task has a flow (`task_flow`), and what the runtime
sees comes back as observations. Killed at any point, the next process begins with all services dirty and
ends at the same place.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

from kecs import aio
from kecs.controlplane.endpoints import Changes, definition_of
from kecs.controlplane.exposures import Exposures
from kecs.controlplane.hub import Hub
from kecs.controlplane.images import Brings
from kecs.controlplane.nodes import follow_nodes
from kecs.controlplane.observations import Observations
from kecs.controlplane.ps import short_name
from kecs.controlplane.task_flow import OVER, Environments, TaskFlows
from kecs.controlplane.task_images import TaskImages
from kecs.controlplane.task_ports import TaskPorts
from kecs.controlplane.timers import Timers
from kecs.ecs import deployments, events, lifecycle, node_ports, scheduler
from kecs.ecs.context import Context
from kecs.ecs.errors import LimitExceededException
from kecs.ecs.model import Key, Service, Task
from kecs.ecs.state import Reader, Tx
from kecs.ecs.tasks import host_port_conflict, new_task
from kecs.runtimes.base import Exposes, Runtime
from kecs.store.ecs import Store

ANY_REGION = ""
"""Knobs are the same in every region."""
ADOPTION = 1.0
"""Longest wait, in seconds, for the runtime's first word on the tasks of the process before this one."""
RETRY_AFTER = 1.0
"""Seconds until a plan that could not be committed (a full disk) is made again."""

_log = logging.getLogger(__name__)


class Controller:
    """Everything that moves services and tasks of one instance. Lives on the event loop."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        hub: Hub,
        *,
        ports: TaskPorts,
        environments: Environments,
        context: Callable[[str], Context],
        exposes: Exposes | None = None,
        images: Brings | None = None,
        clock: Callable[[], float] = time.time,
        plans: bool = True,
    ) -> None:
        """`exposes` is the runtime again where it has a network of its own; `images` where it has images."""
        self._store, self._runtime, self._hub = store, runtime, hub
        self._context, self._clock = context, clock
        self._knobs = context(ANY_REGION).knobs
        self._observations = Observations(store, runtime, self._knobs, clock)
        self._images = TaskImages(store, images, clock) if images is not None else None
        seen = self._observations.take
        self._flows = TaskFlows(
            store, runtime, hub, ports, environments, self._knobs, clock, seen, self._images
        )
        self._observations.flows = self._flows.get
        self._dirty: set[Key] = set()
        self._due: set[Key] = set()
        self._news = asyncio.Event()
        self._some_task_stopped = asyncio.Event()
        self._planning = plans
        self._follows = False
        self._service_alarms: Timers[Key] = Timers(self.wake, clock)
        self._task_alarms: Timers[Key] = Timers(self._time_has_come, clock)
        self.exposures = Exposures(store, exposes, context, clock) if exposes is not None else None
        """None where the runtime has no network of its own."""
        self._exposes = exposes
        self._workers: list[asyncio.Task[None]] = []
        self.failed = asyncio.Event()
        """Set when a worker ended that must not: the process is of no use any more."""

    def follow(self) -> None:
        """Let endpoints follow the rows; nothing else is done before `open`."""
        if not self._follows:
            self._follows = True
            self._store.subscribe(self._on_commit)

    async def open(self) -> None:
        """Take up the work: adopt what lives, continue what was begun, plan everything."""
        self.follow()
        alive = [task for task in self._store.state.scan(Task) if task.last_status not in OVER]
        expected = frozenset(task.id for task in alive if task.last_status != "PROVISIONING")
        self._observations.expect(expected)
        stopped = [task.id for task in self._store.state.scan(Task) if task.last_status in OVER]
        await self._runtime.open(sorted(expected), stopped)
        self._flows.begin(expected)
        self._work(self._observations.pump(), "observations of the runtime")
        self._work(self._observations.apply(), "commits of observations")
        try:
            async with asyncio.timeout(ADOPTION):
                await self._observations.adopted()
        except TimeoutError:
            _log.warning("the runtime has not told of all tasks within %g s", ADOPTION)
        state = self._store.state
        for task in state.scan(Task):
            self._set_alarm(task)
        for service in state.scan(Service):
            self.wake(service.key)
        self._work(self._do_what_is_due(), "planner of services")
        if self.exposures is not None and self._exposes is not None and self._planning:
            self._work(self.exposures.run(), "exposures")
            self._work(follow_nodes(self._store, self._exposes), "nodes of the cluster")

    async def close(self) -> None:
        """Let go; tasks go on by themselves."""
        self._service_alarms.clear()
        self._task_alarms.clear()
        await aio.cancel(*self._workers)
        if self.exposures is not None:
            await self.exposures.close()
        await self._flows.close()
        if self._images is not None:
            await self._images.close()

    def held(self, task: Task) -> str | None:
        """Return what a task waits for before it is started, and how far that is; None: for nothing."""
        return self._flows.held(task.id)

    def troubles(self, row: Service | Task) -> list[str]:
        """Return what this process knows of why a service or a task is not as wanted, a sentence each."""
        service = row.name if isinstance(row, Service) else None
        key = (row.region, row.cluster, service, None if isinstance(row, Service) else row.id)
        exposed = self.exposures.trouble(key) if self.exposures is not None else None
        tasks = [row.id] if isinstance(row, Task) else [task.id for task in _tasks_of(self._store.state, row)]
        found = [exposed, *(self._flows.trouble(task_id) for task_id in tasks)]
        return list(dict.fromkeys(each for each in found if each is not None))

    def wake(self, service: Key) -> None:
        """Plan a service soon."""
        self._dirty.add(service)
        self._news.set()

    async def stop_all_tasks(self, reason: str) -> AsyncIterator[tuple[int, int]]:
        """Stop every task and start none; yield (stopped, all) whenever that changes, until all have.

        Services keep what they want: at the next start they start tasks again.
        """
        plans, self._planning = self._planning, False
        try:
            async for progress in self._stop_all(reason):
                yield progress
        except BaseException:
            self._planning = plans  # nothing is half-stopped for ever: services get what they want again
            self._news.set()
            raise

    async def _stop_all(self, reason: str) -> AsyncIterator[tuple[int, int]]:
        asked: set[Key] = set()
        before = None
        while True:
            self._some_task_stopped.clear()
            alive = {task.key for task in self._store.state.scan(Task) if task.last_status not in OVER}
            if not alive <= asked:
                asked |= alive
                await self._store.transact(partial(self._request_stops, reason=reason))
                continue
            now = (len(asked) - len(alive), len(asked))
            if now != before:
                yield now
            if not alive:
                await self._runtime.settled()
                return
            before = now
            await self._some_task_stopped.wait()

    def _request_stops(self, tx: Tx, reason: str) -> None:
        for task in tx.scan(Task):
            if task.last_status not in OVER:
                tx.put(lifecycle.request_stop(task, "UserInitiated", reason, self._clock()))

    def _work(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        worker = aio.create_task(coroutine, name=name)
        worker.add_done_callback(self._ended)
        self._workers.append(worker)

    def _ended(self, worker: asyncio.Task[None]) -> None:
        """Without one of its workers a control plane would only look alive: it must be started anew."""
        if not worker.cancelled():
            self.failed.set()

    def _on_commit(self, changes: Changes) -> None:
        self._hub.apply(self._store.state, changes)
        self._flows.on_commit(changes)
        if self.exposures is not None:
            self.exposures.on_commit(changes)
        for old, new in changes.values():
            row = new or old
            if isinstance(row, Service):
                self.wake(row.key)
            elif isinstance(row, Task):
                self._on_task(row, is_gone=new is None)

    def _on_task(self, task: Task, *, is_gone: bool) -> None:
        if task.service is not None:
            self.wake((task.region, task.cluster, task.service))
        if is_gone or task.last_status in OVER:
            self._task_alarms.set(task.key, None)
            self._some_task_stopped.set()
        else:
            self._set_alarm(task)

    def _set_alarm(self, task: Task) -> None:
        when = None if task.last_status in OVER else lifecycle.next_wake(task, self._clock(), self._knobs)
        self._task_alarms.set(task.key, when)

    def _time_has_come(self, key: Key) -> None:
        self._due.add(key)
        self._news.set()
        task = self._store.state.get(Task, *key)
        if task is not None and task.service is not None:
            self.wake((task.region, task.cluster, task.service))

    async def _do_what_is_due(self) -> None:
        """Work off the tasks whose time has come and the dirty services, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            due, self._due = self._due, set()
            await asyncio.gather(*map(self._tick, due))
            if self._planning:
                dirty, self._dirty = self._dirty, set()
                await asyncio.gather(*map(self._plan, dirty))

    async def _tick(self, key: Key) -> None:
        """Apply the passing of time to one task."""

        def commit(tx: Tx) -> None:
            if (task := tx.get(Task, *key)) is not None:
                tx.put(lifecycle.tick(task, self._clock(), self._knobs))

        try:
            await self._store.transact(commit)
        except Exception:  # noqa: BLE001 - a full disk, or a fault of ours in one task
            _log.exception("the time of task %s could not be committed: trying again", key[2])
            self._task_alarms.set(key, self._clock() + RETRY_AFTER)

    async def _plan(self, key: Key) -> None:
        """Plan one service and carry the plan out, all in one transaction."""

        def commit(tx: Tx) -> float | None:
            return plan_service(tx, key, self._context(str(key[0])))

        try:
            wake_at = await self._store.transact(commit)
        except Exception:  # noqa: BLE001 - a fault of ours in one service must not stop the others
            _log.exception("service %s could not be planned: trying again", key[2])
            wake_at = self._clock() + RETRY_AFTER
        self._service_alarms.set(key, wake_at)


def plan_service(tx: Tx, key: Key, ctx: Context) -> float | None:
    """Write what a service needs next; return when it may need something else by time alone."""
    service = tx.get(Service, *key)
    if service is None or service.status == "INACTIVE":
        return None
    tasks = _tasks_of(tx, service)
    plan = scheduler.plan(service, tasks, ctx.now, ctx.knobs, ctx.new_id)
    by_id = {task.id: task for task in tasks}
    for stop in plan.stop:
        tx.put(lifecycle.request_stop(by_id[stop.task_id], stop.stop_code, stop.reason, ctx.now))
    service = _with_started(tx, plan, ctx)
    waiting = [task.waiting for task in tasks if task.waiting and task.desired_status == "RUNNING"]
    if waiting:
        service = events.no_place(service, waiting[0], ctx.now, ctx.new_id)
    try:
        # What a deployment's end or a rollback changes; what a request changes was settled with it.
        node_ports.settle_service(tx, service, ctx)
    except LimitExceededException as error:
        service = events.cannot_expose(service, error.message, ctx.now, ctx.new_id)
    tx.put(service)
    return plan.wake_at


def _tasks_of(state: Reader, service: Service) -> list[Task]:
    return [
        task for task in state.scan(Task, service.region, service.cluster) if task.service == service.name
    ]


def _with_started(tx: Tx, plan: scheduler.Plan, ctx: Context) -> Service:
    """Make the tasks that a plan asks for; return the service that says so."""
    service, started = plan.service, []
    for start in plan.start:
        definition = definition_of(tx, service.region, start.task_definition_arn)
        taken = host_port_conflict(tx, definition, ctx) if definition is not None else None
        if definition is None or taken is not None:
            why = f"port {taken} of this machine is in use"
            if definition is None:
                why = f"there is no task definition {short_name(start.task_definition_arn)}"
            service = scheduler.could_not_place(service, start.deployment_id, why, ctx.now, ctx.new_id)
            continue
        deployment = deployments.find(service, start.deployment_id)
        task = new_task(
            tx,
            cluster=service.cluster,
            definition=definition,
            ctx=ctx,
            service=service,
            deployment=deployment,
        )
        tx.put(task)
        started.append(task.id)
    return events.tasks_started(service, started, ctx.now, ctx.new_id)
