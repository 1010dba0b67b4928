"""What the agent knows of the endpoints, and what that means for each forward. No I/O in here.

`kecs.agent.resolver` feeds it the control plane's lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kecs.agent.routes import endpoints_of, matches
from kecs.agent.state import Entry
from kecs.client.endpoints import EndpointPort, EndpointsLine, EndpointTask, Target
from kecs.client.rpc_types import EndpointRow
from kecs.forward.machine import EndpointsReady, NoEndpoint, TargetGone
from kecs.net.messages import Endpoint

TargetKey = tuple[str, str, str | None, str | None]
"""(region, cluster, service, taskId) with one of the last two None."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a forward leads to now."""

    endpoints: tuple[Endpoint, ...]
    """For the relay loop: ready ones and draining ones."""
    rows: tuple[EndpointRow, ...]
    """For people: those, and the ones that are not ready."""
    verdict: EndpointsReady | NoEndpoint | TargetGone
    """For the machine."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a line changed."""

    targets: frozenset[TargetKey]
    tasks: frozenset[str]
    """Tasks that such a target has or had."""

    def concern(self, entry: Entry) -> bool:
        """Tell whether the forward's resolution may be another one now."""
        if entry.type == "task":
            return entry.task_id in self.tasks
        return (entry.region, entry.cluster, entry.service, None) in self.targets


class Picture:
    """All targets as of `version`."""

    def __init__(self) -> None:
        self.version: int | None = None
        """None until the first line."""
        self._targets: dict[TargetKey, Target] = {}
        self._owners: dict[str, TargetKey] = {}
        """Task id -> the target that it belongs to."""
        self._draining: set[str] = set()

    @property
    def draining(self) -> frozenset[str]:
        """Ids of the tasks that are leaving and must lose their connections."""
        return frozenset(self._draining)

    def apply(self, line: EndpointsLine) -> Changes:
        """Take a `snapshot` or a `change`; return what may be other than before."""
        new = {key_of(target): target for target in line.targets}
        gone = set(self._targets) - set(new) if line.type == "snapshot" else set(line.removed)
        changed = {key for key, target in new.items() if self._targets.get(key) != target}
        tasks: set[str] = set()
        for key in gone | changed:
            tasks |= self._forget(key)
        for key in changed:
            tasks |= self._remember(key, new[key])
        self.version = line.version
        return Changes(frozenset(gone | changed), frozenset(tasks))

    def resolve(self, entry: Entry) -> Resolution:
        """Work out what `entry` leads to. Call it when there is a version."""
        if entry.type == "task":
            return self._resolve_task(entry)
        target = self._targets.get((entry.region, entry.cluster, entry.service, None))
        if target is None:
            return Resolution((), (), NoEndpoint(f"service {entry.target} does not exist"))
        return _resolve_service(entry, target)

    def _resolve_task(self, entry: Entry) -> Resolution:
        assert entry.task_id is not None
        name = f"task {entry.task_id[:8]}"
        target = self._targets.get(self._owners.get(entry.task_id, ("", "", None, None)))
        task = next((one for one in target.tasks if one.task_id == entry.task_id), None) if target else None
        if target is None or task is None:
            return Resolution((), (), TargetGone(f"{name} is gone"))
        if task.last_status == "STOPPED":
            why = f": {task.stopped_reason}" if task.stopped_reason else ""
            return Resolution((), (), TargetGone(f"{name} is STOPPED{why}"))
        if not target.public:
            return Resolution((), (), NoEndpoint(f"assignPublicIp is off for {name}"))
        endpoints, rows = endpoints_of(entry, [task], alone=target.service is None)
        if _any_ready(endpoints):
            return Resolution(endpoints, rows, EndpointsReady())
        return Resolution(endpoints, rows, NoEndpoint(f"{name} is {_condition(entry, task)}"))

    def _forget(self, key: TargetKey) -> set[str]:
        target = self._targets.pop(key, None)
        tasks = {task.task_id for task in target.tasks} if target else set()
        for task in tasks:
            if self._owners.get(task) == key:
                del self._owners[task]
        self._draining -= tasks
        return tasks

    def _remember(self, key: TargetKey, target: Target) -> set[str]:
        self._targets[key] = target
        for task in target.tasks:
            self._owners[task.task_id] = key
            if _is_draining(task):
                self._draining.add(task.task_id)
        return {task.task_id for task in target.tasks}


def key_of(target: Target) -> TargetKey:
    """Return the key of `target`."""
    return (target.region, target.cluster, target.service, target.task_id)


def _resolve_service(entry: Entry, target: Target) -> Resolution:
    if not target.public:
        return Resolution((), (), NoEndpoint(f"assignPublicIp is off for service {entry.target}"))
    tasks = [task for task in target.tasks if task.last_status != "STOPPED"]
    endpoints, rows = endpoints_of(entry, tasks, alone=False)
    if _any_ready(endpoints):
        return Resolution(endpoints, rows, EndpointsReady())
    conditions = Counter(_condition(entry, task) for task in tasks)
    counted = ", ".join(f"{number} {condition}" for condition, number in sorted(conditions.items()))
    reason = f"no task of {entry.target} is ready ({counted or 'it has none'})"
    possible = [*target.ports, *(port for task in tasks for port in task.ports)]
    if possible and not any(matches(entry, port) for port in possible):
        asked = entry.target_port_name or entry.target_port
        known = ", ".join(sorted({str(port.container_port) for port in possible if port.protocol == "tcp"}))
        reason = f"{entry.target} has no port {asked} any more" + (f" (it has {known})" if known else "")
    return Resolution(endpoints, rows, NoEndpoint(reason))


def _any_ready(endpoints: Iterable[Endpoint]) -> bool:
    return any(not endpoint.draining for endpoint in endpoints)


def _condition(entry: Entry, task: EndpointTask) -> str:
    """Say why this task takes no connections: its status, that it does not listen, or no way to it."""
    ports = list(_matching(entry, task))
    if task.last_status != "RUNNING" or not ports:
        return task.last_status
    if ports[0].ready:
        return f"RUNNING, without a {'' if entry.route == 'auto' else entry.route + ' '}route"
    return f"RUNNING, not listening on {ports[0].container_port}"


def _matching(entry: Entry, task: EndpointTask) -> Iterator[EndpointPort]:
    return (port for port in task.ports if matches(entry, port))


def _is_draining(task: EndpointTask) -> bool:
    return any(port.draining for port in task.ports) or task.last_status == "DEACTIVATING"
