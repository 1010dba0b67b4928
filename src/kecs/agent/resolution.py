"""What a forward leads to at one moment, and the words for a task that takes no connections. No I/O.

`kecs.agent.picture` makes it of the endpoints, `kecs.agent.runner` acts on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from kecs.agent.routes import matches
from kecs.agent.state import Entry
from kecs.client.endpoints import EndpointPort, EndpointTask
from kecs.client.rpc_types import ChosenTask, EndpointRow
from kecs.forward.machine import EndpointsReady, NoEndpoint, TargetGone
from kecs.forward.ports import port_text
from kecs.net.messages import Endpoint


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a forward leads to now."""

    endpoints: tuple[Endpoint, ...]
    """For the relay loop: ready ones and draining ones."""
    rows: tuple[EndpointRow, ...]
    """For people: those, and the ones that are not ready."""
    verdict: EndpointsReady | NoEndpoint | TargetGone
    """For the machine."""
    chosen: ChosenTask | None = None
    """The one task that was chosen, where there is a choice of one."""
    matched: int | None = None
    """How many tasks have the tags; None without tags."""
    older: frozenset[str] = frozenset()
    """Tasks that are ready and get no new connections, since another was chosen."""
    ended: Mapping[str, str] = field(default_factory=dict)
    """Task id -> why it is STOPPED, of those that could have been in here."""
    others: tuple[ChosenTask, ...] = ()
    """Those that are `older`, the newest first: who takes over when the chosen one fails its probe."""
    note: str | None = None
    """What a person should know although it serves; the reason of a forward that is ACTIVE."""


def any_ready(endpoints: Iterable[Endpoint]) -> bool:
    """Tell whether one of these takes new connections."""
    return any(not endpoint.draining for endpoint in endpoints)


def condition(entry: Entry, task: EndpointTask) -> str:
    """Say why this task takes no connections: its status, that it does not listen, or no way to it."""
    ports = list(_matching(entry, task))
    if task.last_status != "RUNNING" or not ports:
        return task.last_status
    if ports[0].ready:
        if entry.protocol == "udp":
            return "RUNNING, without a direct route (UDP has no tunnel)"
        return f"RUNNING, without a {'' if entry.route == 'auto' else entry.route + ' '}route"
    return f"RUNNING, not listening on {ports[0].container_port}"


def ports_text(ports: Iterable[EndpointPort]) -> str:
    """List the ports: `80, 8080, 53/udp`."""
    found = {(port.protocol, port.container_port) for port in ports}
    return ", ".join(port_text(number, kind) for kind, number in sorted(found))


def is_leaving(task: EndpointTask) -> bool:
    """Tell whether the task is on its way out: it gets no new connections."""
    return any(port.draining for port in task.ports) or task.last_status in _LEAVING


def why_ended(tasks: Iterable[EndpointTask]) -> dict[str, str]:
    """Return why each of the STOPPED tasks among these is."""
    return {task.task_id: task.stopped_reason or "" for task in tasks if task.last_status == "STOPPED"}


_LEAVING = frozenset({"DEACTIVATING", "STOPPING", "DEPROVISIONING"})


def _matching(entry: Entry, task: EndpointTask) -> Iterator[EndpointPort]:
    return (port for port in task.ports if matches(entry, port))
