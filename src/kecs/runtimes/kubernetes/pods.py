"""From a Pod of the cluster to what ECS wants to know of the task: `observe`. Pure.

`runtime.KubernetesRuntime` calls it with each state of a Pod that the cluster tells of, and again at
`next_look`. It needs nothing but the Pod (see `notes`), and `before`, when there is one, for a health check
that fails after it had passed and for a container that the kubelet does not find any more.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from kecs.runtimes.base import ContainerObserved, TaskObserved
from kecs.runtimes.kubernetes import identity, notes, reasons
from kecs.runtimes.kubernetes.notes import Note

Pod = Mapping[str, Any]
_OVER = ("Succeeded", "Failed")
replace = msgspec.structs.replace


def observe(pod: Pod, now: float, before: TaskObserved | None = None) -> TaskObserved:
    """Return the whole of what the Pod says of its task; `now` is in epoch seconds.

    `ended` when nothing of it runs any more. What ended the Pod as a whole is `leaving` when the cluster
    did, else `failure`; why no node has it yet is `waiting`.
    """
    status = pod.get("status") or {}
    known = {one.name: one for one in before.containers} if before is not None else {}
    noted = notes.of_pod(pod)
    seen = {note.name: _container(pod, note, now, known.get(note.name)) for note in noted}
    _block(noted, seen, now)
    ended = status.get("phase") in _OVER and not any(_runs(each) for each in _statuses(pod))
    containers = list(seen.values())
    return TaskObserved(
        task_id=task_id(pod),
        containers=_stopped(containers) if ended else containers,
        ended=ended,
        failure=reasons.of_refusal(status),
        leaving=reasons.of_disruption(status),
        placed=_placed(pod),
        waiting=reasons.unschedulable(status),
    )


def gone(
    task_id: str, last: TaskObserved | None, *, stopping: bool, why: str = reasons.POD_DELETED
) -> TaskObserved:
    """Return the last observation of a task whose Pod is not in the cluster any more.

    Exit codes that were never seen stay unknown. `stopping`: KECS itself had it deleted; else somebody
    else did, as `why` says, unless it had ended before.
    """
    seen = last if last is not None else TaskObserved(task_id=task_id, placed=False)
    seen = replace(seen, containers=_stopped(seen.containers), ended=True, waiting=None)
    if stopping or (last is not None and last.ended) or seen.failure or seen.leaving:
        return seen
    return replace(seen, leaving=why)


def why_leaving(pod: Pod) -> str:
    """Return why a Pod goes that KECS did not delete."""
    return reasons.of_deletion(pod.get("status") or {})


def has_secret(pod: Pod) -> bool:
    """Tell whether a Secret of the Pod's own name belongs to it."""
    name = pod["metadata"]["name"]
    return any(
        ((variable.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name") == name
        for container in _containers(pod)
        for variable in container.get("env") or []
    )


def task_id(pod: Pod) -> str:
    """Return the id of the task that a Pod is."""
    return str((pod["metadata"].get("labels") or {}).get(identity.TASK_ID, ""))


def next_look(pod: Pod, now: float) -> float | None:
    """Return when `observe` will say something else by the passing of time alone; None: never."""
    seen = {one.name: one for one in observe(pod, now).containers}
    times = [
        at
        for note in notes.of_pod(pod)
        for at in _deadlines(note, seen[note.name])
        if at > now and seen[note.name].status == "RUNNING"
    ]
    return min(times, default=None)


def _deadlines(note: Note, seen: ContainerObserved) -> Iterator[float]:
    if seen.started_at is None:
        return
    if note.unhealthy_after is not None and seen.health == "UNKNOWN":
        yield seen.started_at + note.unhealthy_after
    if note.start_timeout is not None:
        yield seen.started_at + note.start_timeout


def _container(pod: Pod, note: Note, now: float, before: ContainerObserved | None) -> ContainerObserved:
    status = next((one for one in _statuses(pod) if one["name"] == note.container), {})
    state = status.get("state") or {}
    first_end = (status.get("lastState") or {}).get("terminated")
    if first_end is not None or "terminated" in state:
        # A sidecar that the kubelet started again has ended all the same: its task ends with it.
        end = first_end or state["terminated"]
        return (
            _lost(note, end, before) if end.get("reason") == reasons.NOT_SEEN else _ended(note, status, end)
        )
    if "running" in state:
        return _running(pod, note, status, now, before)
    waiting = reasons.waiting(state.get("waiting") or {}, note.image_tried)
    if waiting is None:
        return ContainerObserved(name=note.name)
    return ContainerObserved(name=note.name, status="STOPPED", reason=waiting)


def _ended(note: Note, status: Mapping[str, Any], end: Mapping[str, Any]) -> ContainerObserved:
    ran = end.get("reason") not in reasons.NEVER_RAN
    return ContainerObserved(
        name=note.name,
        status="STOPPED",
        runtime_id=_runtime_id(end.get("containerID") or status.get("containerID")),
        exit_code=end.get("exitCode") if ran else None,
        reason=reasons.terminated(end),
        started_at=_epoch(end.get("startedAt")) if ran else None,
        finished_at=_epoch(end.get("finishedAt")),
    )


def _lost(note: Note, end: Mapping[str, Any], before: ContainerObserved | None) -> ContainerObserved:
    """Return the end of a container that the kubelet did not find: nothing is made up for it."""
    if before is None or before.status == "PENDING":
        return ContainerObserved(name=note.name, status="STOPPED")
    if before.status == "STOPPED":
        return before
    return replace(before, status="STOPPED", listening=[], reason=reasons.terminated(end))


def _running(
    pod: Pod, note: Note, status: Mapping[str, Any], now: float, before: ContainerObserved | None
) -> ContainerObserved:
    started_at = _epoch(status["state"]["running"].get("startedAt"))
    return ContainerObserved(
        name=note.name,
        status="RUNNING",
        runtime_id=_runtime_id(status.get("containerID")),
        started_at=started_at,
        health=_health(note, status, started_at, now, before),
        listening=_listening(pod, note, status),
    )


def _health(
    note: Note,
    status: Mapping[str, Any],
    started_at: float | None,
    now: float,
    before: ContainerObserved | None,
) -> Literal["HEALTHY", "UNHEALTHY", "UNKNOWN"]:
    if note.unhealthy_after is None:
        return "UNKNOWN"
    if status.get("ready"):
        return "HEALTHY"
    was_known = before is not None and before.status == "RUNNING" and before.health != "UNKNOWN"
    late = started_at is not None and now >= started_at + note.unhealthy_after
    return "UNHEALTHY" if was_known or late else "UNKNOWN"


def _listening(pod: Pod, note: Note, status: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return where the container answers, in the Pod's own network."""
    container = next((one for one in _containers(pod) if one["name"] == note.container), {})
    # See the table of `probes`: which probe knows of the ports.
    if "tcpSocket" in (container.get("startupProbe") or {}):
        listens = status.get("started")
    elif container.get("readinessProbe"):
        listens = status.get("ready")
    else:
        listens = True
    if not listens:
        return []
    address = (pod.get("status") or {}).get("podIP")
    return [
        (address, port["containerPort"])
        for port in container.get("ports") or []
        if address and port.get("protocol", "TCP") == "TCP"
    ]


def _block(noted: list[Note], seen: dict[str, ContainerObserved], now: float) -> None:
    """Mark as STOPPED what waits for something that cannot come to be any more, and say so."""
    by_name = {note.name: note for note in noted}
    changed = True
    while changed:
        changed = False
        for note in noted:
            if seen[note.name].status != "PENDING":
                continue
            for name, condition in note.depends_on:
                why = _never(by_name[name], seen[name], condition, now) if name in by_name else None
                if why is not None:
                    what = f"container ordering dependency [{name}] for target [{note.name}]"
                    reason = f"CannotStartContainerError: dependency graph: {why.format(what)}"
                    seen[note.name] = replace(seen[note.name], status="STOPPED", reason=reason)
                    changed = True
                    break


def _never(other: Note, seen: ContainerObserved, condition: str, now: float) -> str | None:
    """Return why `condition` of another container is never met, in the words of ECS's agent."""
    if seen.status == "STOPPED":
        ran = seen.started_at is not None
        if condition == "START" and ran:
            return None
        if condition in ("COMPLETE", "SUCCESS") and ran and seen.exit_code == 0:
            return None
        if condition == "COMPLETE" and ran:
            return (
                f"failed to resolve {{}}: it exited with {seen.exit_code}, and on Kubernetes it must with 0"
            )
        why = "did not exit successfully" if condition == "SUCCESS" else f"stopped before {condition}"
        return f"failed to resolve {{}} as dependency {why}"
    healthy = condition == "HEALTHY" and seen.health == "HEALTHY"
    late = None not in (other.start_timeout, seen.started_at) and now >= (seen.started_at or 0.0) + (
        other.start_timeout or 0.0
    )
    if late and condition != "START" and not healthy:
        return "{} has timed out"
    return None


def _placed(pod: Pod) -> bool:
    """Tell whether the Pod is bound to a node, or one has told of it."""
    return bool(pod["spec"].get("nodeName") or (pod.get("status") or {}).get("hostIP"))


def _stopped(containers: list[ContainerObserved]) -> list[ContainerObserved]:
    return [replace(one, status="STOPPED", listening=[]) for one in containers]


def _containers(pod: Pod) -> list[dict[str, Any]]:
    spec = pod.get("spec") or {}
    return [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]


def _statuses(pod: Pod) -> list[dict[str, Any]]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _runs(status: Mapping[str, Any]) -> bool:
    return "running" in (status.get("state") or {})


def _runtime_id(container_id: str | None) -> str | None:
    """Return the id of the container runtime, without `containerd://`."""
    return container_id.rpartition("//")[2] if container_id else None


def _epoch(text: str | None) -> float | None:
    """Return a time of Kubernetes (RFC 3339) in epoch seconds."""
    return datetime.datetime.fromisoformat(text).timestamp() if text else None
