"""What the agent knows of the endpoints, and what that means for each forward. No I/O in here.

`kecs.agent.resolver` feeds it the control plane's lines.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from kecs.agent.choice import Candidate, has_tags, is_alive, resolve_one
from kecs.agent.resolution import Resolution, any_ready, condition, ports_text, why_ended
from kecs.agent.routes import endpoints_of, matches
from kecs.agent.state import Entry
from kecs.client.endpoints import EndpointsLine, EndpointTask, Target
from kecs.client.rpc_types import ChosenTask
from kecs.forward.machine import EndpointsReady, NoEndpoint, TargetGone

TargetKey = tuple[str, str, str | None, str | None]
"""(region, cluster, service, taskId) with one of the last two None."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a line changed."""

    targets: frozenset[TargetKey]
    tasks: frozenset[str]
    """Tasks that such a target has or had."""
    clusters: frozenset[tuple[str, str]] = field(init=False)
    """(region, cluster) of those targets: a forward by tags may find its task in any of one."""

    def __post_init__(self) -> None:
        """Work out the clusters."""
        object.__setattr__(self, "clusters", frozenset((region, name) for region, name, _, _ in self.targets))

    def concern(self, entry: Entry) -> bool:
        """Tell whether the forward's resolution may be another one now."""
        if entry.type == "service" and entry.task_id is None:
            return (entry.region, entry.cluster, entry.service, None) in self.targets
        if entry.tags or not entry.has_whole_task_id:
            return (entry.region, entry.cluster) in self.clusters
        return entry.task_id in self.tasks


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

    def services(self) -> list[Target]:
        """Return all services."""
        return [target for key, target in self._targets.items() if key[2] is not None]

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

    def resolve(self, entry: Entry, *, within: bool = False) -> Resolution:
        """Work out what `entry` leads to. Call it when there is a version.

        `within`: for the other tasks of its cluster, to whom a service need not be public.
        """
        if entry.has_whole_task_id:
            return self._resolve_task(entry)
        if entry.type == "task":
            return self._resolve_tasks(entry)
        target = self._targets.get((entry.region, entry.cluster, entry.service, None))
        if target is None:
            return Resolution((), (), NoEndpoint(f"service {entry.target} does not exist"))
        if entry.auto_reconnect:
            return _resolve_service(entry, target, within=within)
        return resolve_one(entry, [Candidate(target, task) for task in target.tasks])

    def _resolve_tasks(self, entry: Entry) -> Resolution:
        """Choose a task by its tags, or by the first digits of its id."""
        here = self._in_cluster(entry)
        if entry.tags:
            return resolve_one(entry, [one for one in here if has_tags(one.task, entry.tags)])
        found = [one for one in here if one.task.task_id.startswith(entry.task_id or "")]
        if len(found) == 1:
            return resolve_one(entry, found)
        what = f"task {entry.task_id} does not exist"
        if found:
            what = f"{entry.task_id} begins the ids of {len(found)} tasks"
        return Resolution((), (), NoEndpoint(what))

    def _in_cluster(self, entry: Entry) -> list[Candidate]:
        where = (entry.region, entry.cluster)
        return [
            Candidate(target, task)
            for target in self._targets.values()
            if (target.region, target.cluster) == where
            for task in target.tasks
        ]

    def _resolve_task(self, entry: Entry) -> Resolution:
        assert entry.task_id is not None
        name = f"task {entry.task_id[:8]}"
        target = self._targets.get(self._owners.get(entry.task_id, ("", "", None, None)))
        task = next((one for one in target.tasks if one.task_id == entry.task_id), None) if target else None
        if target is None or task is None:
            return Resolution((), (), TargetGone(f"{name} is gone"))
        if (target.region, target.cluster) != (entry.region, entry.cluster):  # a file may say another place
            where = f"the cluster {entry.cluster} in {entry.region}"
            there = f"it is in {target.cluster} in {target.region}"
            return Resolution((), (), TargetGone(f"{name} is not in {where}: {there}"))
        if task.last_status == "STOPPED":
            why = f": {task.stopped_reason}" if task.stopped_reason else ""
            return Resolution((), (), TargetGone(f"{name} is STOPPED{why}"), ended=why_ended([task]))
        chosen = matched = None
        if entry.is_pinned:
            chosen = ChosenTask(task_id=task.task_id, created_at=task.created_at)
        if entry.tags:
            here = self._in_cluster(entry)
            matched = sum(has_tags(one.task, entry.tags) and is_alive(one.task) for one in here)
        if not target.public:
            why = f"assignPublicIp is off for {name}"
            return Resolution((), (), NoEndpoint(why), chosen, matched)
        endpoints, rows = endpoints_of(entry, [task], alone=target.service is None)
        verdict: EndpointsReady | NoEndpoint = EndpointsReady()
        if not any_ready(endpoints):
            verdict = NoEndpoint(f"{name} is {condition(entry, task)}")
        return Resolution(endpoints, rows, verdict, chosen, matched)

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


def _resolve_service(entry: Entry, target: Target, *, within: bool) -> Resolution:
    ended = why_ended(target.tasks)
    if not (target.public or within):
        why = f"assignPublicIp is off for service {entry.target}"
        return Resolution((), (), NoEndpoint(why), ended=ended)
    tasks = [task for task in target.tasks if task.last_status != "STOPPED"]
    endpoints, rows = endpoints_of(entry, tasks, alone=False)
    if any_ready(endpoints):
        return Resolution(endpoints, rows, EndpointsReady(), ended=ended)
    conditions = Counter(condition(entry, task) for task in tasks)
    counted = ", ".join(f"{number} {condition}" for condition, number in sorted(conditions.items()))
    reason = f"no task of {entry.target} is ready ({counted or 'it has none'})"
    possible = [*target.ports, *(port for task in tasks for port in task.ports)]
    if possible and not any(matches(entry, port) for port in possible):
        known = ports_text(possible)
        reason = f"{entry.target} has no port {entry.port_text} any more"
        reason += f" (it has {known})" if known else ""
    return Resolution(endpoints, rows, NoEndpoint(reason), ended=ended)


def _is_draining(task: EndpointTask) -> bool:
    return any(port.draining for port in task.ports) or task.last_status == "DEACTIVATING"
