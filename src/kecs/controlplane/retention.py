"""What is forgotten, and when: stopped tasks, released ports, old tokens, ended services.

AWS keeps a stopped task describable for at least one hour (API reference, DescribeTasks); a released port
is not given again for a minute (docs/design/contracts.md, 3). One pass is a pure function of the rows and
the time; the controller runs it once in a while and tells the runtime which tasks were forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from kecs.controlplane.task_ports import KEPT_AFTER_RELEASE
from kecs.ecs.arn import parse_task_definition
from kecs.ecs.model import ClientToken, LocalPort, Service, Task, TaskDefinition
from kecs.ecs.state import Tx
from kecs.runtimes.base import Runtime
from kecs.store.ecs import Store

EVERY = 20.0
"""Seconds between two passes."""
STOPPED_TASKS = 3600.0
"""Seconds for which a stopped task can be described."""
INACTIVE_SERVICES = 86400.0
"""Seconds for which a deleted service can be described."""
CLIENT_TOKENS = 86400.0
"""Seconds for which a client token answers with its first result (as EC2's RunInstances)."""

_log = logging.getLogger(__name__)


async def retain(store: Store, runtime: Runtime, clock: Callable[[], float]) -> None:
    """Forget what is old, for ever."""
    while True:
        try:
            forgotten = await store.transact(lambda tx: forget_old(tx, clock()))
            for task_id in forgotten:
                await runtime.forget(task_id)
        except Exception:  # noqa: BLE001 - nothing depends on this pass, the next one tries again
            _log.exception("old rows could not be forgotten")
        await asyncio.sleep(EVERY)


def forget_old(tx: Tx, now: float) -> list[str]:
    """Delete what is older than it is kept; return the ids of the tasks among it."""
    forgotten = _tasks(tx, now)
    _ports(tx, now)
    for token in tx.scan(ClientToken):
        if token.created_at < now - CLIENT_TOKENS:
            tx.delete(token)
    for service in tx.scan(Service):
        if service.status == "INACTIVE" and _last_change(service) < now - INACTIVE_SERVICES:
            tx.delete(service)
    _task_definitions(tx, now)
    return forgotten


def _tasks(tx: Tx, now: float) -> list[str]:
    forgotten = []
    for task in tx.scan(Task):
        if task.last_status == "STOPPED" and (task.stopped_at or 0.0) < now - STOPPED_TASKS:
            tx.delete(task)
            forgotten.append(task.id)
    return forgotten


def _ports(tx: Tx, now: float) -> None:
    """Delete ports that were released long enough ago; release those whose task is gone by another way."""
    holders = {task.id for task in tx.scan(Task) if task.last_status != "STOPPED"}
    for row in tx.scan(LocalPort):
        if row.released_at is not None:
            if row.released_at < now - KEPT_AFTER_RELEASE:
                tx.delete(row)
        elif row.task_id not in holders:
            tx.put(msgspec.structs.replace(row, released_at=now))


def _last_change(service: Service) -> float:
    times = [each.updated_at for each in (*service.deployments, *service.history)]
    return max([service.created_at, *times, *(event.created_at for event in service.events[:1])])


def _task_definitions(tx: Tx, now: float) -> None:
    """Delete revisions whose deletion was asked for, once nothing refers to them (as AWS does)."""
    asked = [
        row
        for row in tx.scan(TaskDefinition)
        if row.status == "DELETE_IN_PROGRESS" and (row.delete_requested_at or now) < now - STOPPED_TASKS
    ]
    if not asked:
        return
    used = {(row.region, *parse_task_definition(row.task_definition)) for row in tx.scan(Task)}
    for service in tx.scan(Service):
        for deployment in (*service.deployments, *service.history):
            used.add((service.region, *parse_task_definition(deployment.task_definition)))
    for row in asked:
        if row.key not in used:
            tx.delete(row)
