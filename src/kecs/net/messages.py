"""What asyncio and the relay loop say to each other (docs/design/contracts.md, section 1).

All are immutable and cross two queues. Sockets travel with `Listen` and `Carry` only; from then on the loop
owns them. Endpoints are plain addresses: the loop knows no ECS.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kecs.net import latency
from kecs.net.latency import Durations

if TYPE_CHECKING:
    from kecs.net.carrier import Carrier


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place that can take connections of a forward."""

    id: str
    """Opaque to the loop (the agent uses the task id)."""
    host: str
    port: int
    draining: bool = False
    """No new connections; existing ones go on."""
    rank: int = 0
    """Places of the lowest rank that can take a connection take it; others are tried when those fail."""
    carrier: str = ""
    """Name of the carrier through which `port` is reached (`Carry`); empty: it is dialled at `host`."""
    patience: float | None = None
    """Seconds for a connect; None: the loop's own."""
    doubt: float | None = None
    """Who accepts there does so before it knows whether there is anybody behind, and ends the connection when
    there is not. For so many seconds nothing is sent, unless something was heard: what ends in that time
    delivered nothing, and goes elsewhere. None: a connect proves that somebody is there."""


@dataclass(frozen=True, slots=True)
class HoldLimits:
    """How long and how many connections wait while no endpoint is there."""

    seconds: float = 30.0
    connections: int = 1024


@dataclass(frozen=True, slots=True)
class Datagrams:
    """How a UDP forward tells its clients apart, and how many it knows at once."""

    idle: float = 60.0
    """Seconds without a datagram, in either direction, after which a client is forgotten."""
    clients: int = 1024
    """One more, and the one is forgotten that was silent longest."""


# To the loop


@dataclass(frozen=True, slots=True)
class Listen:
    """Take these bound sockets and serve them; `forward` is the forward's id.

    They listen (TCP), or with `datagrams` they are UDP's. One without sockets is reached by names only
    (`Names`); or it exists, and its limits are other ones from now on.
    """

    forward: str
    sockets: tuple[socket.socket, ...]
    hold: HoldLimits = field(default_factory=HoldLimits)
    datagrams: Datagrams | None = None
    """None: TCP. A forward that changes from one to the other ends what it had open."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """From now on the forward has exactly these endpoints (ready ones and draining ones)."""

    forward: str
    version: int
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Barrier:
    """Answer `Seen(version)`: every message before this one is in effect."""

    version: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close the forward's listeners; its connections at once, or only the held ones."""

    forward: str
    connections: bool = True


@dataclass(frozen=True, slots=True)
class Query:
    """Answer `Stats(token)` with the counters of all forwards."""

    token: int


@dataclass(frozen=True, slots=True)
class OpenFront:
    """Take these listening sockets as the one port for all names, beside those that it has."""

    sockets: tuple[socket.socket, ...]


@dataclass(frozen=True, slots=True)
class CloseFront:
    """Close the one port for all names. Connections that came by it go on."""


@dataclass(frozen=True, slots=True)
class Names:
    """From now on these hosts (in lower case, without port) lead to these forwards, by id, and no others."""

    forwards: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Watch:
    """Report (or stop reporting) each connection of the forward as `Opened` and `Ended`."""

    forward: str
    on: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """Close everything and end the thread."""


@dataclass(frozen=True, slots=True)
class Carry:
    """Use this finished connection for endpoints whose `carrier` is `name`, beside those it has."""

    name: str
    carrier: Carrier


@dataclass(frozen=True, slots=True)
class Retire:
    """Open nothing more on the carriers of `name`; each is closed when its last connection has ended."""

    name: str


@dataclass(frozen=True, slots=True)
class Awake:
    """The machine has slept: ask every carrier for a sign of life, and try lost places, now."""


ToLoop = (
    Listen
    | Snapshot
    | Barrier
    | Close
    | Query
    | OpenFront
    | CloseFront
    | Names
    | Watch
    | Stop
    | Carry
    | Retire
    | Awake
)

# From the loop


@dataclass(frozen=True, slots=True)
class Seen:
    """All messages before `Barrier(version)` are in effect."""

    version: int


@dataclass(frozen=True, slots=True)
class Drained:
    """No connection of this forward is open to a draining endpoint any more (said once)."""

    forward: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A connect to an endpoint failed; `time` is epoch seconds.

    `endpoint` is empty when it was not the endpoint's fault: this process has no descriptors left, so
    that new connections have to wait.
    """

    forward: str
    endpoint: str
    error: str
    time: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """The number of held connections went from 0 to more, or back to 0."""

    forward: str
    held: int


@dataclass(frozen=True, slots=True)
class Counters:
    """Counters of one forward. `received` came from clients, `sent` went to them (bytes).

    What a connection is to TCP, to UDP is a client's address that has sent something and is not forgotten.
    """

    open: int = 0
    total: int = 0
    held: int = 0
    received: int = 0
    sent: int = 0
    expired: int = 0
    """Held connections that were closed because nothing came in time, or there were too many."""
    by_endpoint: tuple[tuple[str, int], ...] = ()
    """Open connections by endpoint id."""
    taking: tuple[str, ...] = ()
    """Ids of the endpoints of which one takes the next connection."""
    failed: int = 0
    """Connections that a defect of the loop ended; each is in the log."""
    dial: Durations = latency.NONE
    """How long dials took that led somewhere, on direct routes: a tunnel never says so."""
    first_byte: Durations = latency.NONE
    """From being accepted to the target's first byte: held, dialled, and the client's own words included."""
    dropped: int = 0
    """Datagrams of a UDP forward that nobody took: no endpoint, a full buffer, or too long for the way."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Answer to `Query`: counters by forward id."""

    token: int
    forwards: dict[str, Counters]


@dataclass(frozen=True, slots=True)
class Opened:
    """A watched forward's connection was accepted; `number` counts from 1 in each forward."""

    forward: str
    number: int
    peer: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A watched forward's connection ended; `why` is `closed`, `reset`, or an error's text.

    Of a UDP client it is `idle`, or why it was forgotten before.
    """

    forward: str
    number: int
    why: str
    received: int
    sent: int
    seconds: float


@dataclass(frozen=True, slots=True)
class CarrierLost:
    """A carrier has ended that was not retired; `left` more of the same name still serve."""

    name: str
    why: str
    left: int


@dataclass(frozen=True, slots=True)
class Congested:
    """All `carriers` of this name have a stream that holds up the others: one more would help."""

    name: str
    carriers: int


@dataclass(frozen=True, slots=True)
class Died:
    """The loop's thread ended by a failure: the process must exit non-zero and be started again."""

    error: str


FromLoop = Seen | Drained | Refused | Waiting | Stats | Opened | Ended | CarrierLost | Congested | Died
