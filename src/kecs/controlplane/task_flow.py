"""What is done for one task at each status of its life: a loop that looks at the row and takes one step.

The row is the truth: it is committed first, then the step it calls for is taken, then the loop waits until
the row has changed. A crash between any two lines and a restart lead to the same end. What the runtime sees
comes back through `kecs.controlplane.observations`, never through here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from kecs import aio
from kecs.controlplane.endpoints import Changes, definition_of
from kecs.controlplane.environment import MissingResourceError
from kecs.controlplane.hub import Hub
from kecs.controlplane.specs import task_spec
from kecs.controlplane.task_images import TaskImages
from kecs.controlplane.task_ports import NoPortLeftError, TaskPorts, release
from kecs.ecs import lifecycle, node_ports
from kecs.ecs.context import Knobs
from kecs.ecs.model import Key, Task, TaskDefinition
from kecs.ecs.state import Tx
from kecs.runtimes.base import Runtime, TaskObserved, TaskSpec
from kecs.store.ecs import Store

RETRY_AFTER = (0.5, 1.0, 2.0, 5.0, 15.0, 30.0)
"""Delays, in seconds, before a step that failed unexpectedly is taken again."""
OVER = frozenset({"STOPPED", "DELETED"})

Environments = Callable[[Task, TaskDefinition], Mapping[str, Mapping[str, str]]]
"""Resolves the variables of each container. Raises `MissingResourceError`."""

_log = logging.getLogger(__name__)


@dataclass
class Flow:
    """One task in this process's hands."""

    key: Key
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    runner: asyncio.Task[None] | None = None
    adopting: bool = False
    """The runtime was asked whether it lives, and has not answered yet."""
    known: bool = False
    """The runtime was told to run it, or found it alive."""
    tried: bool = False
    """The runtime was told to run it at least once: it may have begun to, even where that failed."""
    stop_ordered: bool = False
    port_tries: int = 0
    """How often it was started on another port because a stranger had taken its own."""
    taken: int | None = None
    """The port that a stranger took; another one is due before the next start."""
    trouble: str | None = None
    """Why the step that is due could not be taken; it is tried again."""
    images: tuple[str, ...] = ()
    """Images that it waits for."""


class TaskFlows:
    """The flows of all tasks that are not STOPPED."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        hub: Hub,
        ports: TaskPorts,
        environments: Environments,
        knobs: Knobs,
        clock: Callable[[], float],
        observed: Callable[[TaskObserved], None],
        images: TaskImages | None = None,
    ) -> None:
        """`images` brings what a task runs to where it runs; None: that is nobody's work here."""
        self._store, self._runtime, self._hub, self._ports = store, runtime, hub, ports
        self._images = images
        self._environments, self._knobs, self._clock = environments, knobs, clock
        self._observed = observed
        self._flows: dict[str, Flow] = {}
        self._has_begun = False
        self._steps: dict[str, Callable[[Flow, Task], Awaitable[None]]] = {
            "PROVISIONING": self._provision,
            "PENDING": self._run,
            "ACTIVATING": self._run,
            "DEACTIVATING": self._leave_forwards,
            "STOPPING": self._stop,
            "DEPROVISIONING": self._stop,
        }

    def begin(self, adopting: frozenset[str]) -> None:
        """Take every living task of the committed state in hand; `adopting` were asked of the runtime."""
        self._has_begun = True
        for task in self._store.state.scan(Task):
            if task.last_status not in OVER and task.id not in self._flows:
                self._take(task, adopting=task.id in adopting)

    def on_commit(self, changes: Changes) -> None:
        """Take new tasks in hand and let the flows of changed ones look again."""
        if not self._has_begun:
            return
        for old, new in changes.values():
            row = new or old
            if not isinstance(row, Task):
                continue
            if row.id in self._flows:
                self._flows[row.id].changed.set()
            elif new is not None and row.last_status not in OVER:
                self._take(row, adopting=False)

    def get(self, task_id: str) -> Flow | None:
        """Return the flow of a task that is not STOPPED."""
        return self._flows.get(task_id)

    def trouble(self, task_id: str) -> str | None:
        """Return why a task does not get on, in a sentence; None: nothing is known that it could be."""
        flow = self._flows.get(task_id)
        if flow is not None and flow.trouble is None and (held := self.held(task_id)) is not None:
            return f"task {task_id[:8]} has not started yet: {held}"
        return flow.trouble if flow is not None else None

    def held(self, task_id: str) -> str | None:
        """Return what a task waits for before it is started, and how far that is; None: for nothing."""
        flow = self._flows.get(task_id)
        if flow is None or self._images is None:
            return None
        return self._images.progress(flow.images)

    async def close(self) -> None:
        """Let go of all tasks; they go on by themselves."""
        await aio.cancel(*(flow.runner for flow in self._flows.values() if flow.runner is not None))
        self._flows.clear()

    def _take(self, task: Task, *, adopting: bool) -> None:
        flow = self._flows[task.id] = Flow(task.key, adopting=adopting)
        flow.runner = aio.create_task(self._drive(flow, task.id), name=f"task {task.id[:8]}")

    async def _drive(self, flow: Flow, task_id: str) -> None:
        failures = 0
        while True:
            flow.changed.clear()
            task = self._store.state.get(Task, *flow.key)
            if task is None or task.last_status in OVER:
                del self._flows[task_id]
                return
            step = self._steps.get(task.last_status)
            try:
                if step is not None:
                    await step(flow, task)
            except Exception as error:  # noqa: BLE001 - a full disk, the cluster, or a fault of ours
                delay = RETRY_AFTER[min(failures, len(RETRY_AFTER) - 1)]
                if failures == 0:
                    _log.exception("task %s at %s: trying again", task_id, task.last_status)
                failures += 1
                flow.trouble = f"task {task_id[:8]} is held up at {task.last_status}: {error}"
                await asyncio.sleep(delay)
                continue
            failures, flow.trouble = 0, None
            await flow.changed.wait()

    async def _provision(self, flow: Flow, task: Task) -> None:
        """Give it its ports: bound and released here, committed with the next status."""
        try:
            ports = self._ports.choose(self._store.state, task)
        except NoPortLeftError as error:
            self._fail(task, str(error))
            return

        def commit(tx: Tx) -> None:
            now = tx.get(Task, *flow.key)
            if now is None or now.last_status != "PROVISIONING" or now.desired_status == "STOPPED":
                return
            self._ports.commit(tx, now, ports)
            tx.put(lifecycle.advance(msgspec.structs.replace(now, ports=ports), "PENDING", self._clock()))

        try:
            await self._store.transact(commit)
        finally:
            self._ports.give_back(ports)

    async def _run(self, flow: Flow, task: Task) -> None:
        """Start it, unless it was started or the runtime still looks for it."""
        if flow.known or flow.adopting or task.desired_status == "STOPPED":
            return
        if flow.taken is not None:
            await self._change_port(flow, task, flow.taken)
            return
        definition = definition_of(self._store.state, task.region, task.task_definition)
        if definition is None:
            self._fail(task, f"CannotStartContainerError: there is no task definition {task.task_definition}")
            return
        try:
            environments = self._environments(task, definition)
        except MissingResourceError as error:
            self._fail(task, str(error))
            return
        spec = await self._with_images(
            flow, task, task_spec(task, definition, environments, time_scale=self._knobs.time_scale)
        )
        if spec is None:
            return
        flow.known = flow.tried = True
        try:
            await self._runtime.run(spec)
        except BaseException:
            flow.known = False
            raise

    async def _with_images(self, flow: Flow, task: Task, spec: TaskSpec) -> TaskSpec | None:
        """Have its images brought; return the order with what was tried, None when the row has changed."""
        if self._images is None:
            return spec
        flow.images = tuple(dict.fromkeys(one.image for one in spec.containers))
        bringing = aio.create_task(self._images.bring(task, spec), name=f"images of task {task.id[:8]}")
        changed = aio.create_task(flow.changed.wait(), name=f"change of task {task.id[:8]}")
        try:
            await asyncio.wait({bringing, changed}, return_when=asyncio.FIRST_COMPLETED)
            return await bringing if bringing.done() else None
        finally:
            flow.images = ()
            await aio.cancel(bringing, changed)

    async def _change_port(self, flow: Flow, task: Task, taken: int) -> None:
        """Give it another port for the one that a stranger took; the new row then calls for a start."""
        without = [
            msgspec.structs.replace(port, host_port=0) if port.host_port == taken else port
            for port in task.ports
        ]
        ports = self._ports.choose(self._store.state, msgspec.structs.replace(task, ports=without))

        def commit(tx: Tx) -> None:
            row = tx.get(Task, *flow.key)
            if row is None or row.desired_status == "STOPPED":
                return
            release(tx, row, self._clock(), taken)
            self._ports.commit(tx, row, ports)
            tx.put(msgspec.structs.replace(row, ports=ports, version=row.version + 1))

        try:
            await self._store.transact(commit)
            flow.taken = None
        finally:
            self._ports.give_back(ports)

    async def _leave_forwards(self, _flow: Flow, task: Task) -> None:
        """Wait until no forward uses it; its endpoints are published as draining already."""
        if task.public and any(port.ready for port in task.ports):
            await self._hub.out_of_forwards(task.id, self._knobs.drain)
        await self._change(task, "DEACTIVATING", lambda row: lifecycle.begin_stopping(row, self._clock()))

    async def _stop(self, flow: Flow, task: Task) -> None:
        if flow.stop_ordered or flow.adopting:
            return
        if not (flow.known or flow.tried):
            # It never came to the runtime, so nothing will be observed of it.
            self._observed(TaskObserved(task_id=task.id, ended=True))
            return
        flow.stop_ordered = True
        try:
            await self._runtime.stop(task.id)
        except BaseException:
            flow.stop_ordered = False
            raise

    async def _change(self, task: Task, at: str, to: Callable[[Task], Task]) -> None:
        """Commit `to(row)` unless the row has left status `at` meanwhile."""

        def commit(tx: Tx) -> None:
            row = tx.get(Task, *task.key)
            if row is not None and row.last_status == at:
                put(tx, to(row), self._clock())

        await self._store.transact(commit)

    def _fail(self, task: Task, reason: str) -> None:
        self._observed(TaskObserved(task_id=task.id, failure=reason, ended=True))


def put(tx: Tx, task: Task, now: float) -> None:
    """Write a task's row; one that is STOPPED gives its ports back in the same transaction."""
    tx.put(task)
    if task.last_status in OVER:
        release(tx, task, now)
        node_ports.free_task(tx, task)
