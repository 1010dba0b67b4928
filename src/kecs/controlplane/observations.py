"""From what the runtime sees to rows: whole states in, one transaction for all that wait.

A later observation of a task replaces an earlier one that was not applied yet: they are whole states. Two
kinds are answered instead of being applied: a task that was never run and that the runtime does not know
after a restart is run; a task whose port a stranger took is started on another port.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from kecs.controlplane.task_flow import Flow, put
from kecs.ecs import lifecycle
from kecs.ecs.context import Knobs
from kecs.ecs.model import LocalPort, Task
from kecs.ecs.state import Tx
from kecs.runtimes.base import Runtime, TaskObserved
from kecs.store.ecs import Store

PORT_TRIES = 3
"""So many times a task whose port a stranger took is started on another one."""
STARTING = frozenset({"PROVISIONING", "PENDING", "ACTIVATING"})
RETRY_AFTER = 1.0
"""Seconds until observations that could not be committed (a full disk) are tried again."""

_log = logging.getLogger(__name__)


class Observations:
    """Takes observations and commits what follows from them."""

    def __init__(self, store: Store, runtime: Runtime, knobs: Knobs, clock: Callable[[], float]) -> None:
        self._store, self._runtime, self._knobs, self._clock = store, runtime, knobs, clock
        self._waiting: dict[str, TaskObserved] = {}
        self._news = asyncio.Event()
        self._adopting: set[str] = set()
        self._adopted = asyncio.Event()
        self.flows: Callable[[str], Flow | None] = lambda _task_id: None
        """Finds the flow of a task; set once by the controller."""

    def expect(self, task_ids: frozenset[str]) -> None:
        """Begin an adoption: `adopted` waits for the first observation of each of these."""
        self._adopting = set(task_ids)
        if not self._adopting:
            self._adopted.set()

    async def adopted(self) -> None:
        """Wait until the first observation of each expected task is committed."""
        await self._adopted.wait()

    def take(self, seen: TaskObserved) -> None:
        """Take one observation; it is applied soon."""
        self._waiting[seen.task_id] = seen
        self._news.set()

    async def pump(self) -> None:
        """Take everything that the runtime sees, for ever."""
        async for seen in self._runtime.observations():
            self.take(seen)

    async def apply(self) -> None:
        """Commit what was taken, for ever. Transactions made together share one commit of the store."""
        while True:
            await self._news.wait()
            self._news.clear()
            batch, self._waiting = self._waiting, {}
            done = await asyncio.gather(*map(self._apply, batch.values()))
            self._adopting.difference_update(batch)
            if not self._adopting:
                self._adopted.set()
            if not all(done):
                await asyncio.sleep(RETRY_AFTER)

    async def _apply(self, seen: TaskObserved) -> bool:
        """Commit one observation; False: that failed, and it waits for the next round."""
        flow = self.flows(seen.task_id)
        if flow is None or self._is_answered(flow, seen):
            return True
        key = flow.key

        def commit(tx: Tx) -> None:
            task = tx.get(Task, *key)
            if task is not None:
                now = self._clock()
                put(tx, lifecycle.observe(task, as_observation(seen), now, self._knobs), now)

        try:
            await self._store.transact(commit)
        except Exception:  # noqa: BLE001 - a full disk, or a fault of ours in one task: nothing may be lost
            _log.exception("what was seen of task %s could not be committed: trying again", seen.task_id)
            self._waiting.setdefault(seen.task_id, seen)
            self._news.set()
            return False
        return True

    def _is_answered(self, flow: Flow, seen: TaskObserved) -> bool:
        """Answer an observation that calls for a start instead of an end."""
        task = self._store.state.get(Task, *flow.key)
        waits = task is not None and task.desired_status == "RUNNING" and task.last_status in STARTING
        if flow.adopting:
            flow.adopting = False
            flow.known = not seen.lost
            flow.changed.set()
            return waits and seen.lost
        if task is None or seen.port_taken is None or not waits or not self._may_change(flow, task, seen):
            return False
        if seen.ended:
            flow.port_tries += 1
            flow.taken, flow.known, flow.tried = seen.port_taken, False, False
            flow.changed.set()
        return True

    def _may_change(self, flow: Flow, task: Task, seen: TaskObserved) -> bool:
        """Tell whether the port that was taken is one that KECS chose, and another may be tried."""
        row = self._store.state.get(LocalPort, seen.port_taken or 0)
        return flow.port_tries < PORT_TRIES and row is not None and row.task_id == task.id


def as_observation(seen: TaskObserved) -> lifecycle.TaskObservation:
    """Translate what a runtime saw into what the pure rules take."""
    return lifecycle.TaskObservation(
        containers=[
            lifecycle.ContainerObservation(
                name=each.name,
                status=each.status,
                runtime_id=each.runtime_id or (str(each.pid) if each.pid else None),
                exit_code=each.exit_code,
                reason=each.reason,
                health=each.health,
                listening=each.listening,
                started_at=each.started_at,
                finished_at=each.finished_at,
            )
            for each in seen.containers
        ],
        ended=seen.ended,
        failure=seen.failure,
        lost=seen.lost,
        port_taken=seen.port_taken,
        leaving=seen.leaving,
        waiting=seen.waiting,
        placed=seen.placed,
    )
