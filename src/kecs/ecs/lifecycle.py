"""The life of a task, as a table and pure functions: PROVISIONING … RUNNING … STOPPED.

The controller calls `observe` with what the runtime saw and `request_stop` / `begin_stopping` for a
planned stop; every function returns the task's next row and never talks to anything. Observations are
whole states: they may repeat, arrive late or skip states, and a task still only ever moves forward.
Sources: ECS Developer Guide, task-lifecycle-explanation and stopped-task-error-codes; for RUNNING and
for the order of a planned stop docs/design/contracts.md, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import msgspec

from kecs.ecs.context import Knobs
from kecs.ecs.model import Container, HealthStatus, Task, TaskPort, TaskStatus

replace = msgspec.structs.replace

NEXT: Mapping[TaskStatus, tuple[TaskStatus, ...]] = {
    "PROVISIONING": ("PENDING", "STOPPING"),
    "PENDING": ("ACTIVATING", "STOPPING"),
    "ACTIVATING": ("RUNNING", "DEACTIVATING", "STOPPING"),
    "RUNNING": ("DEACTIVATING", "STOPPING"),
    "DEACTIVATING": ("STOPPING",),
    "STOPPING": ("DEPROVISIONING",),
    "DEPROVISIONING": ("STOPPED",),
    "STOPPED": (),
}
"""The legal transitions. A planned stop of what may have connections passes DEACTIVATING, an unplanned
end does not. DELETED is no status that a described task ever has."""

ORDER: Mapping[str, int] = {status: place for place, status in enumerate(get_args(TaskStatus))}
"""Place of each status in the life."""

_ATTACHMENT: Mapping[str, str] = {
    "PENDING": "ATTACHING", "ACTIVATING": "ATTACHED", "DEPROVISIONING": "DETACHED", "STOPPED": "DELETED",
}  # fmt: skip
"""Status that the network interface of an awsvpc task gets when the task enters a status."""

_CONTAINER_ORDER = {"PENDING": 0, "RUNNING": 1, "STOPPED": 2}

ESSENTIAL_EXITED = "Essential container in task exited"
FAILED_TO_START = "Task failed to start"
FAILED_HEALTH_CHECKS = "Task failed container health checks"
STOPPED_BY_USER = "Task stopped by user"
LOST = "Task was lost: the runtime no longer knows it, or what watched over it died"
"""ECS has no words for this; the stop code is InfrastructureHealth, also where somebody else ends it."""


class ContainerObservation(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime sees of one container (mirror of `runtimes.base.ContainerObserved`)."""

    name: str
    status: Literal["PENDING", "RUNNING", "STOPPED"] = "PENDING"
    runtime_id: str | None = None
    exit_code: int | None = None
    reason: str | None = None
    health: HealthStatus = "UNKNOWN"
    listening: list[tuple[str, int]] = []
    """(host to dial, TCP port)."""
    started_at: float | None = None
    finished_at: float | None = None


class TaskObservation(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of what the runtime sees of one task (mirror of `runtimes.base.TaskObserved`)."""

    containers: list[ContainerObservation] = []
    ended: bool = False
    failure: str | None = None
    lost: bool = False
    port_taken: int | None = None
    leaving: str | None = None
    waiting: str | None = None
    placed: bool = True


def advance(task: Task, goal: TaskStatus, now: float) -> Task:
    """Walk to `goal` by legal transitions, noting what belongs to each; a goal behind changes nothing."""
    return _changed(task, _advance(task, goal, now))


def observe(task: Task, seen: TaskObservation, now: float, knobs: Knobs) -> Task:
    """Apply what the runtime saw; once `ended` or `lost` was seen the task is STOPPED for good.

    `desired_status` STOPPED in the result of a task that was meant to run says that it ends by itself:
    the caller stops what is left of it without waiting for connections.
    """
    if task.last_status == "STOPPED":
        return task
    merged = _with_containers(replace(task, waiting=seen.waiting), seen, now)
    if merged.desired_status == "RUNNING":
        merged = _advance(merged, "ACTIVATING" if seen.placed else "PENDING", now)
    merged = _settle(merged, now, knobs)
    merged = _with_verdict(merged, seen, now)
    return _changed(task, _with_udp_ports(_descend(merged, seen, now)))


def tick(task: Task, now: float, knobs: Knobs) -> Task:
    """Apply the passing of time alone: call it when `next_wake` is reached."""
    if task.last_status == "STOPPED":
        return task
    return _changed(task, _with_udp_ports(_settle(task, now, knobs)))


def request_stop(task: Task, stop_code: str, reason: str, now: float) -> Task:
    """Ask for a planned stop; the first one to ask gives code and reason.

    RUNNING (or something of it listens already) -> DEACTIVATING, where it waits until the forwards let
    go of it; before that -> STOPPING at once.
    """
    if task.desired_status == "STOPPED":
        return task
    return _changed(task, _asked_to_stop(task, stop_code, reason, now))


def begin_stopping(task: Task, now: float) -> Task:
    """DEACTIVATING -> STOPPING: the forwards have let go, the stop signal follows."""
    if task.desired_status == "RUNNING":
        return task
    return _changed(task, _advance(task, "STOPPING", now))


def begin_again(task: Task) -> Task:
    """Forget what was seen of the containers of a task that is run anew before it was RUNNING.

    So it is when a stranger took its port, or when the control plane died before the runtime was told.
    """
    if task.desired_status == "STOPPED" or ORDER[task.last_status] >= ORDER["RUNNING"]:
        return task
    containers = [
        replace(
            item, last_status="PENDING", exit_code=None, reason=None, runtime_id=None, listening=[],
            health_status="UNKNOWN", started_at=None,
        )
        for item in task.containers
    ]  # fmt: skip
    ports = [replace(port, ready=False) for port in task.ports]
    fresh = replace(task, containers=containers, ports=ports, execution_stopped_at=None)
    return _changed(task, replace(fresh, health_status="UNKNOWN"))


def next_wake(task: Task, now: float, knobs: Knobs) -> float | None:
    """Return when `tick`, or `task_is_healthy`, changes by time alone; it may lie in the past."""
    if task.desired_status == "STOPPED":
        return None
    if task.last_status == "RUNNING":
        return task.healthy_at if task.healthy_at is not None and task.healthy_at > now else None
    if _has_started(task):
        return _all_run_since(task) + knobs.ready_timeout
    return None


def task_is_healthy(task: Task, now: float) -> bool:
    """Tell whether the task counts as healthy for its deployment.

    RUNNING and meant to be, and either all health checks of essential containers have passed or, when it
    has none, `healthy_after` has gone by since RUNNING (AWS: 40 s; docs/design/contracts.md, section 7).
    """
    running = task.last_status == "RUNNING" and task.desired_status == "RUNNING"
    return running and task.healthy_at is not None and task.healthy_at <= now


def is_draining(task: Task) -> bool:
    """Tell whether the task's endpoints get no new connections any more."""
    return task.desired_status == "STOPPED" or ORDER[task.last_status] > ORDER["RUNNING"]


def endpoint_ready(task: Task, port: TaskPort) -> bool:
    """Tell whether connections to this port of the task are answered; draining is another matter."""
    return port.ready and task.last_status != "STOPPED"


def _asked_to_stop(task: Task, stop_code: str, reason: str, now: float) -> Task:
    asked = replace(task, desired_status="STOPPED", stop_code=stop_code, stopped_reason=reason)
    reachable = task.last_status == "RUNNING" or any(port.ready for port in task.ports)
    return _advance(asked, "DEACTIVATING" if reachable else "STOPPING", now)


def _changed(before: Task, after: Task) -> Task:
    """Count the change in `version`, if it is one."""
    return before if after == before else replace(after, version=before.version + 1)


def _advance(task: Task, goal: TaskStatus, now: float) -> Task:
    while ORDER[task.last_status] < ORDER[goal]:
        # The furthest step that does not overshoot: up to RUNNING state by state, down by the short way.
        steps = [status for status in NEXT[task.last_status] if ORDER[status] <= ORDER[goal]]
        task = _entered(task, max(steps, key=ORDER.__getitem__), now)
    return task


def _entered(task: Task, status: TaskStatus, now: float) -> Task:
    """Enter `status` and note what belongs to it."""
    task = replace(task, last_status=status)
    if status in _ATTACHMENT:
        task = replace(task, attachments=_attachments(task, _ATTACHMENT[status]))
    if status == "ACTIVATING":
        return replace(task, connectivity_at=now, pull_started_at=now)
    if status == "RUNNING":
        return replace(task, started_at=now)
    if status in {"DEACTIVATING", "STOPPING"}:
        # What never got as far as counting as healthy never will.
        healthy_at = None if task.healthy_at is None or task.healthy_at > now else task.healthy_at
        stopping_at = now if task.stopping_at is None else task.stopping_at
        return replace(task, stopping_at=stopping_at, healthy_at=healthy_at)
    if status == "STOPPED":
        return replace(task, stopped_at=now)
    return task


def _attachments(task: Task, status: str) -> list[dict[str, object]]:
    return [
        {**item, "status": status} if item.get("type") == "ElasticNetworkInterface" else item
        for item in task.attachments
    ]


def _with_containers(task: Task, seen: TaskObservation, now: float) -> Task:
    """Take over what was seen of containers and TCP ports."""
    by_name = {item.name: item for item in seen.containers}
    over = seen.ended or seen.lost
    containers = [
        _merged(item, by_name.get(item.name), over=over, since=task.created_at, now=now)
        for item in task.containers
    ]
    hosts = [pair for item in seen.containers for pair in item.listening]
    task = replace(task, containers=containers)
    open_ports = {number for item in containers for number in item.listening}
    in_pod = task.pod is not None
    ports = [
        port if port.protocol == "udp" else _tcp_port(port, open_ports, hosts, in_pod=in_pod)
        for port in task.ports
    ]
    stopped_at = task.execution_stopped_at
    if stopped_at is None:
        stopped_at = _execution_stopped_at(task, by_name, now)
    return replace(task, ports=ports, execution_stopped_at=stopped_at, health_status=_health(containers))


def _execution_stopped_at(task: Task, seen: Mapping[str, ContainerObservation], now: float) -> float | None:
    """Return when the first essential container that had run stopped; None while none has.

    Not before the task was RUNNING, which is said when it is seen and may be after that container's end.
    """
    since = task.started_at or task.created_at
    ends = [
        max(since, item.started_at, found.finished_at or now if (found := seen.get(item.name)) else now)
        for item in task.containers
        if item.essential and item.last_status == "STOPPED" and item.started_at is not None
    ]
    return min(now, *ends) if ends else None


def _merged(
    container: Container, seen: ContainerObservation | None, *, over: bool, since: float, now: float
) -> Container:
    """Take over what was seen of one container, unless it is older than what is known.

    It began between `since` and `now`, whatever a runtime says whose clock differs or counts whole seconds.
    """
    if seen is not None and _CONTAINER_ORDER[seen.status] >= _CONTAINER_ORDER[container.last_status]:
        ran = seen.status == "RUNNING" or seen.started_at is not None or seen.exit_code is not None
        began = container.started_at
        if began is None and ran:
            began = max(since, min(now, seen.started_at if seen.started_at is not None else now))
        running = seen.status == "RUNNING"
        container = replace(
            container,
            last_status=seen.status,
            runtime_id=seen.runtime_id or container.runtime_id,
            exit_code=seen.exit_code if container.exit_code is None else container.exit_code,
            reason=seen.reason if container.reason is None else container.reason,
            health_status=_container_health(container, seen),
            listening=sorted({number for _, number in seen.listening}) if running else [],
            started_at=began,
        )
    if over:
        container = replace(container, last_status="STOPPED", listening=[])
    return container


def _container_health(container: Container, seen: ContainerObservation) -> HealthStatus:
    if not container.has_health_check:
        return "UNKNOWN"
    # One that ended is no longer checked: what was last known stays.
    return seen.health if seen.status == "RUNNING" else container.health_status


def _tcp_port(
    port: TaskPort, open_ports: set[int], hosts: list[tuple[str, int]], *, in_pod: bool
) -> TaskPort:
    """Ready is what something of the task listens on, wherever: the host that answers is kept with it.

    A local process listens on its host port; in a Pod, whose network is its own, it is the node that has
    the host port.
    """
    number = port.container_port if in_pod else port.host_port or port.container_port
    if number not in open_ports:
        return replace(port, ready=False)
    found = sorted({host for host, listening in hosts if listening == number})
    if found and port.host not in found:
        return replace(port, ready=True, host="127.0.0.1" if "127.0.0.1" in found else found[0])
    return replace(port, ready=True)


def _with_udp_ports(task: Task) -> Task:
    """UDP shows no listener to look for: it is ready while its container and the task run."""
    up = task.last_status in {"RUNNING", "DEACTIVATING"}
    running = {item.name for item in task.containers if item.last_status == "RUNNING"}
    ports = [
        replace(port, ready=up and port.container in running) if port.protocol == "udp" else port
        for port in task.ports
    ]
    return replace(task, ports=ports)


def _health(containers: list[Container]) -> HealthStatus:
    """Roll up: only essential containers with a health check count (API reference, Task.healthStatus)."""
    found = {item.health_status for item in containers if item.essential and item.has_health_check}
    if "UNHEALTHY" in found:
        return "UNHEALTHY"
    return "HEALTHY" if found == {"HEALTHY"} else "UNKNOWN"


def _settle(task: Task, now: float, knobs: Knobs) -> Task:
    """Move a task that is meant to run towards RUNNING, as far as what is known of it allows."""
    if task.desired_status == "STOPPED":
        return task
    if task.pull_stopped_at is None and any(item.last_status != "PENDING" for item in task.containers):
        task = replace(task, pull_stopped_at=now)
    if task.last_status == "ACTIVATING" and _is_up(task, now, knobs):
        # One that ran and ended between two observations was RUNNING when it began, not when it was seen.
        task = _advance(task, "RUNNING", now if task.execution_stopped_at is None else _all_run_since(task))
    return _with_healthy_at(task, now, knobs)


def _with_healthy_at(task: Task, now: float, knobs: Knobs) -> Task:
    if task.last_status != "RUNNING" or task.started_at is None:
        return task
    if not any(item.essential and item.has_health_check for item in task.containers):
        if task.healthy_at is not None:
            return task
        return replace(task, healthy_at=task.started_at + knobs.healthy_after * knobs.time_scale)
    if task.health_status == "UNHEALTHY":
        return replace(task, healthy_at=None)
    if task.health_status == "HEALTHY" and task.healthy_at is None:
        return replace(task, healthy_at=now)
    # UNKNOWN after HEALTHY: the checks began anew because the control plane did; no reason to doubt it.
    return task


def _has_started(task: Task) -> bool:
    """Tell whether all containers run or have run; a non-essential one may have failed to start."""
    return bool(task.containers) and all(
        item.last_status != "PENDING" and (item.started_at is not None or not item.essential)
        for item in task.containers
    )


def _all_run_since(task: Task) -> float:
    return max(item.started_at or 0.0 for item in task.containers)


def _is_up(task: Task, now: float, knobs: Knobs) -> bool:
    """All its containers run, and the essential ones listen or have had `ready_timeout` for it."""
    if not _has_started(task):
        return False
    ended = task.execution_stopped_at
    if ended is not None and ended < _all_run_since(task):
        return False  # one had ended before the last one ran: they never ran together
    if all(_listens(task, item) for item in task.containers if item.essential):
        return True
    return ended is None and now >= _all_run_since(task) + knobs.ready_timeout


def _listens(task: Task, container: Container) -> bool:
    """Tell whether the container listens on one of its TCP port mappings, or has none."""
    mine = [port.ready for port in task.ports if port.container == container.name and port.protocol == "tcp"]
    return not mine or any(mine)


def _with_verdict(task: Task, seen: TaskObservation, now: float) -> Task:
    """Say why a task that was meant to run ends, if it does."""
    verdict = None if task.desired_status == "STOPPED" else _verdict(task, seen)
    if verdict is None:
        return task
    code, reason = verdict
    if seen.leaving is not None and not (seen.ended or seen.lost):
        return _asked_to_stop(task, code, reason, now)  # it still serves, and the forwards let go of it
    return _advance(
        replace(task, desired_status="STOPPED", stop_code=code, stopped_reason=reason), "STOPPING", now
    )


def _verdict(task: Task, seen: TaskObservation) -> tuple[str, str] | None:
    """Return stop code and reason of an unplanned end."""
    ended = [item for item in task.containers if item.essential and item.last_status == "STOPPED"]
    if seen.leaving is not None:
        return "InfrastructureHealth", seen.leaving
    if seen.lost:
        return "InfrastructureHealth", seen.failure or LOST
    if seen.failure is not None:
        started = task.started_at is not None
        return ("EssentialContainerExited" if started else "TaskFailedToStart"), seen.failure
    if seen.port_taken is not None:
        taken = f"ResourceInitializationError: port {seen.port_taken} was taken by another program"
        return "TaskFailedToStart", taken
    never_ran = [item for item in ended if item.started_at is None]
    if never_ran and len(never_ran) == len(ended):
        reason = next((item.reason for item in never_ran if item.reason), FAILED_TO_START)
        return "TaskFailedToStart", reason
    if ended or seen.ended:
        return "EssentialContainerExited", ESSENTIAL_EXITED
    return None


def _descend(task: Task, seen: TaskObservation, now: float) -> Task:
    """Move a task that is ending as far down as what was seen allows."""
    if seen.ended or seen.lost:
        return _advance(task, "STOPPED", now)
    gone = any(item.essential and item.last_status == "STOPPED" for item in task.containers)
    # Ended while it drained: nothing is left to wait for. STOPPED waits for `ended` all the same, because
    # processes that no container's end shows may still be there.
    return _advance(task, "STOPPING", now) if gone and task.desired_status == "STOPPED" else task
