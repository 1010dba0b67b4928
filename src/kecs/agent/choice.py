"""Which one task a forward leads to: the newest with its tags, or the first for `autoReconnect: false`.

No I/O; `kecs.agent.picture` asks. The newest task that is RUNNING and ready takes the new connections; the
others that are ready keep the ones that they have, as draining tasks do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from kecs.agent.resolution import Resolution, any_ready, condition, is_leaving, ports_text, why_ended
from kecs.agent.routes import endpoints_of, matches
from kecs.agent.state import Entry
from kecs.client.endpoints import EndpointTask, Target
from kecs.client.rpc_types import ChosenTask, EndpointRow
from kecs.forward.machine import EndpointsReady, NoEndpoint
from kecs.forward.spec import tags_text
from kecs.net.messages import Endpoint


class Candidate(NamedTuple):
    """A task that could be chosen, with the target that it belongs to."""

    target: Target
    task: EndpointTask


def has_tags(task: EndpointTask, tags: Mapping[str, str]) -> bool:
    """Tell whether the task has all of these tags."""
    return all(task.tags.get(key) == value for key, value in tags.items())


def is_alive(task: EndpointTask) -> bool:
    """Tell whether the task counts as one that matches: neither STOPPED nor on its way there."""
    return task.last_status != "STOPPED" and not is_leaving(task)


def newest_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Sort by `createdAt`; equally old ones by id, so that the choice never flickers."""
    return sorted(candidates, key=lambda one: (one.task.created_at, one.task.task_id), reverse=True)


def resolve_one(entry: Entry, candidates: Sequence[Candidate]) -> Resolution:
    """Choose among `candidates`, which may be of any status."""
    alive = [one for one in newest_first(candidates) if is_alive(one.task)]
    ambiguous = entry.strict and bool(entry.tags) and len(alive) > 1
    chosen: Candidate | None = None
    endpoints: list[Endpoint] = []
    rows: list[EndpointRow] = []
    older: list[ChosenTask] = []
    for one in newest_first(candidates):
        if not one.target.public or one.task.last_status == "STOPPED":
            continue
        to_it, shown = endpoints_of(entry, [one.task], alone=one.target.service is None)
        rows += shown
        if chosen is None and not ambiguous and one.task.last_status == "RUNNING" and any_ready(to_it):
            chosen = one
        elif any_ready(to_it):
            older.append(_chosen(one))
            to_it = tuple(replace(each, draining=True) for each in to_it)
        endpoints += to_it
    return Resolution(
        tuple(endpoints),
        tuple(rows),
        EndpointsReady() if chosen else NoEndpoint(_why_none(entry, alive, ambiguous=ambiguous)),
        _chosen(chosen) if chosen else None,
        len(alive) if entry.tags else None,
        frozenset(one.task_id for one in older),
        why_ended(one.task for one in candidates),
        tuple(older) if chosen else (),
    )


def _chosen(one: Candidate) -> ChosenTask:
    return ChosenTask(task_id=one.task.task_id, created_at=one.task.created_at)


def _why_none(entry: Entry, alive: Sequence[Candidate], *, ambiguous: bool) -> str:
    """Say for what the forward waits; `alive` are the newest first."""
    if not alive:
        return f"no task {_of(entry)} exists"
    if ambiguous:
        ids = ", ".join(one.task.task_id[:8] for one in alive)
        return f"{len(alive)} tasks {_of(entry)} exist ({ids}), and `strict` allows one"
    public = [one for one in alive if one.target.public]
    if not public:
        return f"assignPublicIp is off for task {alive[0].task.task_id[:8]}"
    target, task = public[0]
    name = f"task {task.task_id[:8]}" + (f" (the newest of {len(alive)})" if len(alive) > 1 else "")
    ports = task.ports or target.ports
    if ports and not any(matches(entry, port) for port in ports):
        known = ports_text(ports)
        return f"{name} has no port {entry.port_text}" + (f" (it has {known})" if known else "")
    return f"{name} is {condition(entry, task)}"


def _of(entry: Entry) -> str:
    if entry.tags:
        return f"with {tags_text(entry.tags)} in the cluster {entry.cluster}"
    return f"of {entry.target}"
