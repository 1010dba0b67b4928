"""The endpoints: where ECS and forwards meet (docs/design/contracts.md, section 2).

The control plane publishes them on `GET /_kecs/endpoints`, the agent follows them. JSON members are
these names in camelCase.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Route(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One way to a port: `direct` (dial host:port) or `tunnel` (Kubernetes port-forward)."""

    kind: Literal["direct", "tunnel"]
    host: str | None = None
    port: int
    namespace: str | None = None
    pod: str | None = None
    published: bool = False
    """A direct one at which something accepts before it knows whether there is anybody behind: a connect
    proves nothing."""
    unpublished: str | None = None
    """Of a tunnel, on a cluster that has published ports: why none of them leads to this port."""
    by_node: bool = False
    """The address is a node's, with a node port: behind it Kubernetes chooses the task."""


class EndpointPort(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One port mapping of a task."""

    name: str | None
    container: str
    container_port: int
    protocol: Literal["tcp", "udp"]
    ready: bool
    draining: bool
    routes: list[Route]
    node_port: int | None = None
    """In `Target.ports`: the port of each node that leads to it, once the cluster has it."""


class EndpointTask(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One task behind a target; a STOPPED one is shown as long as it can be described."""

    task_id: str
    created_at: float
    tags: dict[str, str]
    last_status: str
    stopped_reason: str | None
    ports: list[EndpointPort]


class Target(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A service with its tasks, or one standalone task."""

    region: str
    cluster: str
    service: str | None
    task_id: str | None
    public: bool
    tasks: list[EndpointTask]
    ports: list[EndpointPort] = []
    """Port mappings of the current task definition (not ready, no routes): what can be asked for,
    known even while no task exists."""
    subnets: list[str] = []
    """Of its `awsvpcConfiguration`: a refusal names the command that sets `assignPublicIp` without
    losing them."""
    security_groups: list[str] = []
    kept_port: int | None = None
    """The port of this machine on which the agent listens for the service, for other tasks."""


class EndpointsLine(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One line of the stream.

    `snapshot` holds all targets, `change` the targets that changed whole, with those that are gone
    named in `removed` as (region, cluster, service, taskId); `ping` comes every 5 s when nothing did.
    """

    type: Literal["snapshot", "change", "ping"]
    version: int
    targets: list[Target] = []
    removed: list[tuple[str, str, str | None, str | None]] = []
