"""From a port's routes to the relay loop's endpoints: what is tried first, what belongs to whom. No I/O.

`kecs.agent.picture` calls it. A local task is dialled where it listens. A Pod has up to three ways
(docs/design/contracts.md, 2): the address of each node with the Service's node port and the same port
published on this machine, behind which Kubernetes chooses the task, and a tunnel to this one Pod. So a
node's address is one endpoint, however many tasks are behind it, and belongs to none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kecs.agent.state import Entry
from kecs.client.endpoints import EndpointPort, EndpointTask, Route
from kecs.client.rpc_types import EndpointRow
from kecs.net.messages import Endpoint

PATIENCE = 1.0
"""Seconds for a connect to a node: then another one, then the tunnel (docs/design/contracts.md, 2)."""

DOUBT = 0.025
"""Seconds in which a published port ends a connection when nobody is behind it: the program that listens
there is told by the node at once. A client waits so long before its first byte is passed on."""

DIRECT, PUBLISHED, TUNNEL = 0, 1, 2
"""Ranks: what works directly is not sent through another program, nor through the API server."""

_NODE, _PUBLISHED = "node/", "published/"


@dataclass(frozen=True, slots=True)
class _Way:
    """One route of one port of one task."""

    task: str
    port: EndpointPort
    route: Route


def endpoints_of(
    entry: Entry, tasks: Iterable[EndpointTask], *, alone: bool
) -> tuple[tuple[Endpoint, ...], tuple[EndpointRow, ...]]:
    """Return what the relay loop may use for `entry`, and what people see.

    `alone`: it is one standalone task, so that its node port leads to nobody else.
    """
    ways = list(_ways(entry, tasks))
    anyone = entry.type == "service" and entry.auto_reconnect  # whichever task Kubernetes chooses is right
    nodes: dict[tuple[str, int, bool], list[_Way]] = {}
    endpoints: list[Endpoint] = []
    rows: list[EndpointRow] = []
    for way in ways:
        route = way.route
        if route.by_node:
            if (anyone or alone) and entry.route != "tunnel":
                nodes.setdefault((route.host or "", route.port, route.published), []).append(way)
        elif entry.route in ("auto", route.kind):
            rows.append(_row(way.task, route, [way]))
            if way.port.ready or way.port.draining:
                endpoints.append(_endpoint(way))
    for behind in nodes.values():
        row = _row(behind[0].task if alone else None, behind[0].route, behind)
        rows.append(row)
        if row.ready or row.draining:
            endpoints.append(_endpoint_of_a_node(row))
    return tuple(endpoints), tuple(rows)


def id_of(row: EndpointRow) -> str:
    """Return the id of the endpoint that `row` shows."""
    if row.task_id is None or row.by_node:
        prefix = _PUBLISHED if row.route.published else _NODE
        return f"{prefix}{row.route.host}:{row.route.port}"
    return row.task_id


def is_node(endpoint: str) -> bool:
    """Tell whether this is the id of a node's address or published port, and no task's."""
    return endpoint.startswith((_NODE, _PUBLISHED))


def kind_of(endpoint: Endpoint) -> str:
    """Return `direct`, `published` or `tunnel`."""
    if endpoint.carrier:
        return "tunnel"
    return "published" if endpoint.id.startswith(_PUBLISHED) else "direct"


def matches(entry: Entry, port: EndpointPort) -> bool:
    """Tell whether the forward leads to this port."""
    if port.protocol != entry.protocol:
        return False
    if entry.target_port_name is not None:
        return port.name == entry.target_port_name
    return port.container_port == entry.target_port


def _ways(entry: Entry, tasks: Iterable[EndpointTask]) -> Iterator[_Way]:
    for task in tasks:
        for port in task.ports:
            if matches(entry, port):
                for route in port.routes:
                    if route.host if route.kind == "direct" else route.pod:
                        yield _Way(task.task_id, port, route)


def _endpoint(way: _Way) -> Endpoint:
    route = way.route
    if route.kind == "tunnel":
        carrier = f"{route.namespace}/{route.pod}"
        return Endpoint(way.task, "", route.port, way.port.draining, TUNNEL, carrier)
    return Endpoint(way.task, route.host or "", route.port, way.port.draining)


def _endpoint_of_a_node(row: EndpointRow) -> Endpoint:
    route = row.route
    published = route.published
    return Endpoint(
        id_of(row),
        route.host or "",
        route.port,
        row.draining,
        PUBLISHED if published else DIRECT,
        patience=PATIENCE,
        doubt=DOUBT if published else None,
    )


def _row(task: str | None, route: Route, behind: list[_Way]) -> EndpointRow:
    """Return the row for a way to these: ready when one is, draining when no other is left."""
    ready = any(way.port.ready and not way.port.draining for way in behind)
    return EndpointRow(
        task_id=task,
        route=route,
        ready=ready or any(way.port.ready for way in behind),
        draining=not ready and any(way.port.draining for way in behind),
        by_node=route.by_node,
    )
