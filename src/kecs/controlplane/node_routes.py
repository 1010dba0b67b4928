"""By which node ports a service or a standalone task is reached: at the nodes, and published on this machine.

A pure function of the rows, for `kecs.controlplane.endpoints` and the words of `explain`. On k3d a block of
node ports is published on 127.0.0.1 (docs/design/contracts.md, 2). What listens there is Docker, which
accepts also when the node behind it is lost, so a connect proves nothing: a published port is a route only
while all that the rows know says that it leads somewhere. What they know too late is the relay loop's to
find out (`kecs.net.places`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from kecs.client.endpoints import Route
from kecs.ecs.context import RuntimeTraits
from kecs.ecs.model import Node, NodePort

PUBLISHED_AT = "127.0.0.1"
"""Where node ports are published."""
Port = tuple[int, str]
"""(container port, protocol)."""


@dataclass(frozen=True)
class NodeRoutes:
    """What leads to the ports of a service or of a standalone task, whichever task it is."""

    routes: Mapping[Port, list[Route]] = field(default_factory=dict)
    """By the node ports that the cluster has, best first."""
    numbers: Mapping[Port, int] = field(default_factory=dict)
    """The node ports that the cluster has."""
    unpublished: Mapping[Port, str] = field(default_factory=dict)
    """Why a TCP port is not published on this machine, on a cluster that has published ones."""


def node_routes(rows: Iterable[NodePort], nodes: Collection[Node], traits: RuntimeTraits) -> NodeRoutes:
    """Return the routes by the applied ones of `rows`: each address of each ready node, then this machine."""
    addresses = [address for node in nodes if node.ready for address in node.addresses]
    routes: dict[Port, list[Route]] = {}
    numbers: dict[Port, int] = {}
    unpublished: dict[Port, str] = {}
    for row in rows:
        port = (row.container_port, row.protocol)
        if row.applied:
            numbers[port] = row.port
            routes[port] = [
                Route(kind="direct", host=address, port=row.port, by_node=True) for address in addresses
            ]
        if traits.published is None or row.protocol != "tcp":
            continue
        if why := why_unpublished(row, nodes, traits):
            unpublished[port] = why
        else:
            routes[port].append(
                Route(kind="direct", host=PUBLISHED_AT, port=row.port, by_node=True, published=True)
            )
    return NodeRoutes(routes, numbers, unpublished)


def why_unpublished(row: NodePort, nodes: Iterable[Node], traits: RuntimeTraits) -> str | None:
    """Say why a TCP node port leads nowhere on this machine, as a clause; None: it is published and serves.

    Call it where ports are published. Which node is behind them need not be known: then all have to be
    ready.
    """
    published = traits.published
    if published is None or row.port not in published:
        block = f"{published[0]}-{published[-1]}" if published else "none"
        return f"node port {row.port} is beyond the published ones, {block}"
    if not row.applied:
        return f"the cluster does not have node port {row.port} yet"
    ready = {node.name: node.ready for node in nodes}
    needed = [traits.published_by] if traits.published_by is not None else list(ready)
    if lost := [name for name in needed if not ready.get(name)]:
        return f"node {', '.join(lost)} is not ready"
    return None if needed else "no node is known"
