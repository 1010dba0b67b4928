"""What a port-forward file may say: its keys, their types and limits.

Three things are made of these types: the reading of such a file (`kecs.forward.file`), its JSON Schema and
its reference page (`scripts.reference`). `UNSET` is a key that is not there; the texts below the keys are
what an editor shows. `words` of a `Meta` say what is right, for the message about what is wrong.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from kecs.forward.spec import (
    HOLD_CONNECTIONS,
    HOLD_SECONDS,
    LONGEST_IDLE,
    MAX_PORT,
    SHORTEST_IDLE,
    Notify,
    Probe,
    Protocol,
    Retry,
    RouteChoice,
)

_NAME_OF_ECS = "1 to 255 letters, digits, `_` and `-`"
Port = Annotated[int, Meta(ge=1, le=MAX_PORT, extra={"words": f"a port from 1 to {MAX_PORT}"})]
PortName = Annotated[
    str,
    Meta(
        pattern="^(?![0-9]+$)[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$",
        extra={"words": "the name of a port mapping (a number is written without quotes)"},
    ),
]
ForwardName = Annotated[
    str,
    Meta(
        pattern="^(?!agent$)(?!pf-[0-9a-f]{8}$)[A-Za-z0-9._-]{1,63}$",
        extra={
            "words": "a forward's name: 1 to 63 letters, digits, `.`, `_` and `-`; not `agent`, nor an id"
        },
    ),
]
Cluster = Annotated[
    str, Meta(pattern="^[A-Za-z0-9_-]{1,255}$", extra={"words": f"a cluster's name: {_NAME_OF_ECS}"})
]
Service = Annotated[
    str, Meta(pattern="^[A-Za-z0-9_-]{1,255}$", extra={"words": f"a service's name: {_NAME_OF_ECS}"})
]
Task = Annotated[
    str,
    Meta(pattern="^[0-9a-f]{8,32}$", extra={"words": "a task's id, or the first 8 or more digits of it"}),
]
Region = Annotated[str, Meta(pattern="^[a-z0-9-]{1,64}$", extra={"words": "a region such as `us-east-1`"})]
Address = Annotated[
    str,
    Meta(
        extra={"words": "an IP address of this machine"},
        extra_json_schema={"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
    ),
]


Idle = Annotated[float, Meta(ge=SHORTEST_IDLE, le=LONGEST_IDLE)]


class Hold(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How new connections wait while no task is ready."""

    seconds: Annotated[float, Meta(ge=0, le=3600)] = HOLD_SECONDS
    """So long a connection waits until it is closed."""
    connections: Annotated[int, Meta(ge=0, le=65536)] = HOLD_CONNECTIONS
    """So many wait at once."""


class Options(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What `defaults` may say for all forwards, and each forward for itself: its own word wins.

    `hold`, `retry`, `probe` and `notify` are put together key by key; `probe: null` and `notify: null` take
    away what the defaults say.
    """

    region: Region | UnsetType = UNSET
    """Region of the target; the instance's own by default."""
    address: Annotated[list[Address], Meta(min_length=1)] | Address | UnsetType = UNSET
    """Addresses to listen on, one or a list; `127.0.0.1`, and `::1` where IPv6 exists, by default."""
    balance: Literal["least-connections"] | UnsetType = UNSET
    """Which task takes a new connection: the one with the fewest open. There is no other way yet."""
    hold: Hold | UnsetType = UNSET
    """How new connections wait while no task is ready."""
    idle: Idle | UnsetType = UNSET
    """Seconds after which a UDP client that is silent is forgotten; 60 by default."""
    retry: Retry | UnsetType = UNSET
    """When the local port is taken: how it is tried again."""
    route: RouteChoice | UnsetType = UNSET
    """How tasks are reached: `direct` dials an address, `tunnel` goes through the API server of Kubernetes,
    `auto` takes what works."""
    notify: Notify | UnsetType | None = UNSET
    """Who is told that the forward reconnects, is back, or has failed; nobody by default."""
    probe: Probe | UnsetType | None = UNSET
    """How each task is asked whether it can serve; without it, whether it listens is all that counts."""
    auto_reconnect: bool | UnsetType = UNSET
    """`false` pins the first task that is chosen: the forward ends with it."""


class Forward(Options, frozen=True, kw_only=True, rename="camel"):
    """One forward. One of type `service` names a `service`, one of type `task` a `task` or `tags`."""

    name: ForwardName
    """How `list`, `stop` and `logs` call it; no two have the same."""
    type: Literal["service", "task"]
    """What it leads to: all tasks of a service, or one task."""
    cluster: Cluster = "default"
    """ECS cluster of the target."""
    service: Service | UnsetType = UNSET
    """Name of the service; it need not exist yet."""
    task: Task | UnsetType = UNSET
    """Id of the task, or the first 8 or more digits of it."""
    tags: Annotated[dict[str, str], Meta(min_length=1)] | UnsetType = UNSET
    """The newest running task that has all of them."""
    strict: bool | UnsetType = UNSET
    """More than one task with the `tags` is an error."""
    local_port: Port | UnsetType = UNSET
    """Port on this machine; chosen once and kept when it is left out."""
    publish: Port | UnsetType = UNSET
    """Port of 127.0.0.1 on k3d's load balancer too, for a service: Docker holds it, KECS runs or not."""
    target_port: Port | PortName
    """Container port, or the name of its port mapping."""
    protocol: Protocol | UnsetType = UNSET
    """Of the port, `tcp` by default. A UDP forward has no `probe` and holds nothing: datagrams that no task
    takes are dropped, and counted."""


class Document(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A port-forward file: the forwards of `kecs port-forward run --config FILE`."""

    version: Annotated[Literal["1", 1], Meta(extra={"words": '`"1"`, the one format that this KECS reads'})]
    """The format: `"1"`."""
    defaults: Options | UnsetType = UNSET
    """What holds for each forward that does not say otherwise, and for those of `auto`."""
    forwards: list[Forward] = []
    """The forwards, in the order in which the plan shows them."""
    auto: bool = False
    """Forwards to all public services of the `clusters`, as they appear, each with a port that it keeps."""
    clusters: Annotated[list[Cluster], Meta(min_length=1)] | UnsetType = UNSET
    """Clusters of `auto`; by default those that the forwards name, or `default`."""
    names: bool = False
    """Open the one port on which services answer by name: `http://<service>.<cluster>.localhost:<port>/`."""
    region: Region | UnsetType = UNSET
    """Region of all targets, unless `defaults` or a forward says another."""
