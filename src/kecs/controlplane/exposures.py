"""Makes the cluster's network follow the rows. Level-triggered, as the controller is.

Each ECS service with ports has a Kubernetes Service, and so has each public standalone task. What is wanted
is a pure function of the committed state (`wanted`); what the cluster has is asked once, at the start, and
from then on known, until `drift` says that somebody changed it. Node ports are rows, which
`kecs.ecs.node_ports` chooses: here they are applied, and replaced when the cluster says that one is taken.
Used by the controller where the runtime `Exposes`; on `local` there is nothing of the kind.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from functools import partial

import msgspec

from kecs import aio
from kecs.controlplane.endpoints import Changes, TargetKey
from kecs.controlplane.timers import Timers
from kecs.ecs import events, names, node_ports
from kecs.ecs.context import Context
from kecs.ecs.errors import LimitExceededException
from kecs.ecs.model import NodePort, Service, Task
from kecs.ecs.state import Reader, Tx
from kecs.errors import KecsError
from kecs.runtimes.base import ExposedPort, Exposes, Exposure, NodePortTakenError
from kecs.store.ecs import Store

AT_ONCE = 8
"""So many are applied at a time."""
RETRY_AFTER = (0.5, 1.0, 2.0, 5.0)
"""Delays, in seconds, before what failed is tried again: the last one is how late a cluster that comes back
is noticed."""
REFUSED_FOR = 300.0
"""Seconds for which a number that the cluster refused is not chosen again."""

_log = logging.getLogger(__name__)


class Exposures:
    """Applies exposures of one instance. Lives on the event loop."""

    def __init__(
        self,
        store: Store,
        runtime: Exposes,
        context: Callable[[str], Context],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._runtime, self._context, self._clock = store, runtime, context, clock
        self._known: dict[TargetKey, Exposure | None] = {}
        """What the cluster has; None: something, but it is not known to be as wanted."""
        self._drifted: set[TargetKey] = set()
        self._dirty: set[TargetKey] = set()
        self._running: dict[TargetKey, asyncio.Task[None]] = {}
        self._refused: dict[int, float] = {}
        self._failures: dict[TargetKey, int] = {}
        self._troubles: dict[TargetKey, str] = {}
        self._is_open = False
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._alarms: Timers[TargetKey] = Timers(self.wake, clock)

    async def run(self) -> None:
        """Begin, then apply again what somebody else changed or deleted, for ever."""
        await self._begin()
        async for place in self._runtime.drift():
            key = next((key for key in self._known if self._place(key) == place), None)
            if key is not None:
                _log.warning("the Service %s/%s was changed by somebody else: applied again", *place)
                self._drifted.add(key)
                await self._doubt(key)
                self.wake(key)

    async def close(self) -> None:
        """Let go; what is applied stays."""
        self._is_open = False
        self._alarms.clear()
        await aio.cancel(*self._running.values())

    def wake(self, key: TargetKey) -> None:
        """Look at a service or standalone task soon."""
        self._dirty.add(key)
        if self._is_open and key not in self._running:
            name = f"exposure of {key[2] or key[3]}"
            self._running[key] = aio.create_task(self._settle_until_clean(key), name=name)

    def trouble(self, key: TargetKey) -> str | None:
        """Return why the cluster does not have yet what is wanted, in a sentence; None: nothing is wrong."""
        return self._troubles.get(key)

    def on_commit(self, changes: Changes) -> None:
        """Look at what a commit may have changed."""
        for old, new in changes.values():
            row = new or old
            if isinstance(row, Service):
                self.wake((row.region, row.cluster, row.name, None))
            elif isinstance(row, NodePort):
                self.wake((row.region, row.cluster, row.service or None, row.task_id or None))
            elif isinstance(row, Task) and row.service is None and row.public:
                self.wake((row.region, row.cluster, None, row.id))

    async def _doubt(self, key: TargetKey) -> None:
        """Let nobody go by node ports that may be gone: a published one accepts all the same."""
        try:
            await self._store.transact(partial(_note_unapplied, key=key))
        except KecsError as error:
            _log.error("that a Service was changed could not be committed: %s", error.message)

    async def _begin(self) -> None:
        """Learn what the cluster has, take away what nobody wants, and begin with everything."""
        failures = 0
        while True:
            try:
                found = await self._runtime.exposures()
                break
            except Exception as error:  # noqa: BLE001 - the cluster cannot be reached, whatever says so
                delay = RETRY_AFTER[min(failures, len(RETRY_AFTER) - 1)]
                failures += 1
                _log.warning("the Services cannot be listed, trying again in %g s: %s", delay, error)
                await asyncio.sleep(delay)
        for exposure in found:
            key = (exposure.region, exposure.cluster, exposure.service, exposure.task_id)
            if self._place(key) == exposure.key:
                self._known[key] = _in_order(exposure)
        self._is_open = True
        state = self._store.state
        everything: set[TargetKey] = set()
        everything |= {(row.region, row.cluster, row.name, None) for row in state.scan(Service)}
        everything |= {
            (row.region, row.cluster, None, row.id) for row in state.scan(Task) if row.service is None
        }
        for key in everything | self._known.keys() | self._dirty:
            self.wake(key)

    async def _settle_until_clean(self, key: TargetKey) -> None:
        try:
            while key in self._dirty:
                self._dirty.discard(key)
                async with self._at_once:
                    await self._attempt(key)
        finally:
            del self._running[key]

    async def _attempt(self, key: TargetKey) -> None:
        """Make one step towards what is wanted; a failure is kept for `trouble` and tried again later."""
        try:
            await self._step(key)
        except Exception as error:  # noqa: BLE001 - the cluster, the disk, or a fault of ours in this one
            self._fail(key, error)
        else:
            self._failures.pop(key, None)
            self._troubles.pop(key, None)

    async def _step(self, key: TargetKey) -> None:
        try:
            await self._settle(key)
        except NodePortTakenError as error:
            if not await self._move(key, error.port):
                raise
            self.wake(key)

    def _fail(self, key: TargetKey, error: Exception) -> None:
        count = self._failures.get(key, 0)
        delay = RETRY_AFTER[min(count, len(RETRY_AFTER) - 1)]
        self._failures[key] = count + 1
        self._troubles[key] = f"the cluster does not expose it: {error}"
        _log.warning("%s cannot be exposed, trying again in %g s: %s", key[2] or key[3], delay, error)
        self._alarms.set(key, self._clock() + delay)

    async def _settle(self, key: TargetKey) -> None:
        want = wanted(self._store.state, key, self._context(key[0]))
        if want is None:
            if key in self._known:
                await self._runtime.withdraw(*self._place(key))
                del self._known[key]
                self._drifted.discard(key)
            return
        if want != self._known.get(key) or key in self._drifted:
            self._drifted.discard(key)
            self._known[key] = None  # whatever comes of it: it may be there from now on
            await self._runtime.expose(want)
            self._known[key] = want
        applied = {port.node_port for port in want.ports}
        if any(row.port in applied and not row.applied for row in _rows(self._store.state, key)):
            await self._store.transact(partial(_note_applied, key=key, numbers=applied))

    async def _move(self, key: TargetKey, number: int) -> bool:
        """Commit another node port for one that is taken; False: there is none to be had."""
        now = self._clock()
        self._refused = {each: at for each, at in self._refused.items() if at > now - REFUSED_FOR}
        self._refused[number] = now

        def commit(tx: Tx) -> bool:
            return _move_row(tx, key, number, self._refused.keys(), self._context(key[0]))

        return await self._store.transact(commit)

    def _place(self, key: TargetKey) -> tuple[str, str]:
        return place_of(key, self._context(key[0]))


def wanted(state: Reader, key: TargetKey, ctx: Context) -> Exposure | None:
    """Return what the cluster should have for a service or a standalone task; None: nothing."""
    ports = _wanted_ports(state, key)
    if not ports:
        return None
    namespace, name = place_of(key, ctx)
    region, cluster, service, task_id = key
    exposure = Exposure(
        namespace=namespace,
        name=name,
        region=region,
        cluster=cluster,
        service=service,
        task_id=task_id,
        ports=ports,
    )
    return _in_order(exposure)


def place_of(key: TargetKey, ctx: Context) -> tuple[str, str]:
    """Return (namespace, name) of the Kubernetes Service of a service or a standalone task."""
    region, cluster, service, task_id = key
    namespace = names.namespace(ctx.runtime.instance, ctx.runtime.instance_id, region, cluster)
    if service is not None:
        return namespace, names.service_name(service)
    return namespace, names.task_service_name(task_id or "")


def _wanted_ports(state: Reader, key: TargetKey) -> list[ExposedPort]:
    """Return the ports with their node ports; a public port that could not get one is left out."""
    rows = [
        ExposedPort(container_port=row.container_port, protocol=row.protocol, node_port=row.port)
        for row in _rows(state, key)
    ]
    region, cluster, name, _ = key
    if name is None:
        return rows
    service = state.get(Service, region, cluster, name)
    if service is None or service.status == "INACTIVE":
        return []
    return rows or [
        ExposedPort(container_port=port, protocol="udp" if protocol == "udp" else "tcp")
        for port, protocol in node_ports.ports_of_service(state, service)
    ]


def _rows(state: Reader, key: TargetKey) -> list[NodePort]:
    region, cluster, service, task_id = key
    return state.scan(NodePort, region, cluster, service or "", task_id or "")


def _in_order(exposure: Exposure) -> Exposure:
    ports = sorted(exposure.ports, key=lambda port: (port.container_port, port.protocol))
    return msgspec.structs.replace(exposure, ports=ports)


def _note_applied(tx: Tx, key: TargetKey, numbers: set[int | None]) -> None:
    for row in _rows(tx, key):
        if row.port in numbers:
            tx.put(msgspec.structs.replace(row, applied=True))


def _note_unapplied(tx: Tx, key: TargetKey) -> None:
    for row in _rows(tx, key):
        if row.applied:
            tx.put(msgspec.structs.replace(row, applied=False))


def _move_row(tx: Tx, key: TargetKey, number: int, refused: Collection[int], ctx: Context) -> bool:
    """Give the row with this number another one; a service says so in its events."""
    row = next((row for row in _rows(tx, key) if row.port == number), None)
    if row is None:
        return False
    service = tx.get(Service, row.region, row.cluster, row.service)
    try:
        moved = node_ports.move(tx, row, refused, ctx)
    except LimitExceededException as error:
        if service is not None:
            tx.put(events.cannot_expose(service, error.message, ctx.now, ctx.new_id))
        return False
    if service is not None:
        service = events.node_port_moved(service, row.container_port, number, moved.port, ctx.now, ctx.new_id)
        tx.put(service)
    return True
