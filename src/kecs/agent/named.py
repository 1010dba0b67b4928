"""Services that are led to without a forward of their own: by name, or by the port that is kept for them.

What `kecs.agent.names` and `kecs.agent.kept` have in common. To the resolver and the relay loop each is like
a forward, with an entry that stands in no file.
"""

from __future__ import annotations

from kecs.agent.state import Entry
from kecs.client.endpoints import Target
from kecs.net.messages import Endpoint


class Named:
    """One service and what it leads to now."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.endpoints: tuple[Endpoint, ...] = ()
        self.awake = False
        """A client came for whom there was no direct way: from then on its tunnels are kept open."""

    @property
    def id(self) -> str:
        """Its id in the relay loop."""
        return self.entry.id


def entry_for(target: Target, identity: str, name: str, target_port: int, local_port: int = 1) -> Entry:
    """Return the entry; without a port of its own `local_port` says nothing."""
    return Entry(
        id=identity,
        name=name,
        type="service",
        region=target.region,
        cluster=target.cluster,
        service=target.service,
        local_port=local_port,
        target_port=target_port,
        created_at=0.0,
    )


def first_port(target: Target) -> int | None:
    """Return the container port that a service is known by: the first one of TCP that the definition maps."""
    ports = target.ports or [port for task in target.tasks for port in task.ports]
    return next((port.container_port for port in ports if port.protocol == "tcp"), None)
