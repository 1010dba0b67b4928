"""Requests and replies of the agent's JSON-RPC 2.0, used by both sides.

One JSON object a line on `agent.sock`. `docs/reference/rpc.md` is generated from `METHODS`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from kecs.client.endpoints import Route
from kecs.forward.spec import AutoSpec, ForwardSpec, RouteChoice


class Message(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of what crosses the wire: members in camelCase."""


class Empty(Message, frozen=True, kw_only=True):
    """No parameters, or nothing to say."""


class Hello(Message, frozen=True, kw_only=True):
    """Reply of `agent.hello`."""

    version: str
    """KECS's version: a client of another one says so and restarts the agent."""
    pid: int
    instance: str
    instance_id: str


class AgentStatus(Message, frozen=True, kw_only=True):
    """Reply of `agent.status`."""

    version: str
    pid: int
    started_at: float
    forwards: int
    controlplane: str
    """`connected` or why not."""
    memory: int
    """Resident bytes."""
    warnings: list[str] = []
    """What the person should know, e.g. that an unreadable file was moved aside."""
    names_port: int | None = None
    """The one port on which services answer by name; null when it is not open."""
    metrics: str | None = None
    """Where Prometheus reads the agent's metrics; null while they are not served."""


class Connections(Message, frozen=True, kw_only=True):
    """Connections of a forward, or the clients of a UDP forward: open now, in all, held now."""

    open: int = 0
    total: int = 0
    held: int = 0
    dropped: int = 0
    """Datagrams that nobody took; UDP only."""


class Bytes(Message, frozen=True, kw_only=True):
    """Bytes from clients (`in`) and to clients (`out`)."""

    in_: int = msgspec.field(default=0, name="in")
    out: int = 0


class LastError(Message, frozen=True, kw_only=True):
    """The last thing that went wrong and when (epoch seconds)."""

    message: str
    time: float


class EndpointRow(Message, frozen=True, kw_only=True):
    """One endpoint of a forward as `list` shows it."""

    task_id: str | None
    """None for a node's address or a published port: there Kubernetes chooses the task of each connection."""
    route: Route
    ready: bool
    draining: bool
    open: int = 0
    by_node: bool = False
    """It is a node's address or a published port: behind it Kubernetes chooses who takes a connection."""
    failing: str | None = None
    """What its probe answered, by which it is out of the balance."""


class ChosenTask(Message, frozen=True, kw_only=True):
    """The task that a forward by tags, or one with `autoReconnect: false`, leads to."""

    task_id: str
    created_at: float


class ForwardRow(Message, frozen=True, kw_only=True):
    """One row of `forward.list` (docs/design/contracts.md, section 3)."""

    id: str
    name: str
    type: str
    region: str
    cluster: str
    service: str | None
    task_id: str | None
    tags: dict[str, str]
    address: list[str]
    local_port: int
    target_port: int | str
    """Container port; the name of the port mapping while only that is known."""
    protocol: str
    state: str
    """STARTING, ACTIVE, WAITING, FAILED or ENDED."""
    reason: str | None
    endpoints: list[EndpointRow]
    route: str | None = None
    """What the next connection takes: `direct`, `published` (a node port on this machine), `tunnel`, or null
    while there is no way."""
    route_wanted: RouteChoice = "auto"
    """`--route`."""
    connections: Connections
    bytes: Bytes
    last_error: LastError | None
    created_at: float
    auto_reconnect: bool = True
    """False: it ends with its task."""
    owner: str | None = None
    """Real path of the file that defines it; null: by hand."""
    auto: bool = False
    """Made by `auto: true` of that file."""
    publish: int | None = None
    """Port of 127.0.0.1 that k3d's load balancer is to map to the service's node port."""
    matched: int | None = None
    """How many running tasks have its tags; null for a forward without tags."""
    chosen: ChosenTask | None = None
    """The task that was chosen; null while there is none, and for a service."""


class StartRequest(Message, frozen=True, kw_only=True):
    """`forward.start`: several specs are all started, or none."""

    forwards: list[ForwardSpec]
    wait: float | None = None
    """Seconds to wait for ACTIVE; None returns when the port listens."""
    owner: str | None = None
    """Real path of the file that defines it; None: by hand."""
    dry_run: bool = False
    """Start nothing and answer no forwards, but refuse what would be refused, unless a port is taken."""


class Started(Message, frozen=True, kw_only=True):
    """One forward of a `StartReply`; `created` is false when it was there already."""

    forward: ForwardRow
    created: bool


class StartReply(Message, frozen=True, kw_only=True):
    """Reply of `forward.start`."""

    forwards: list[Started]


class StopRequest(Message, frozen=True, kw_only=True):
    """`forward.stop`: by ids or names, or all."""

    forwards: list[str] = []
    all: bool = False


class ForwardRows(Message, frozen=True, kw_only=True):
    """Reply of `forward.list` and of `forward.stop` (what was stopped)."""

    forwards: list[ForwardRow]
    warnings: list[str] = []
    """As in `AgentStatus`: notes for standard error."""


class GetRequest(Message, frozen=True, kw_only=True):
    """`forward.get` and `forward.watch`: by id or name."""

    forward: str


class ConnectionEvent(Message, frozen=True, kw_only=True):
    """A line that `forward.watch` streams, for `--foreground`: a connection (of UDP, a client) or a state."""

    type: str
    """`opened`, `ended` or `state`."""
    time: float
    forward: str
    protocol: str | None = None
    """Of a connection."""
    number: int | None = None
    peer: str | None = None
    why: str | None = None
    received: int | None = None
    sent: int | None = None
    seconds: float | None = None
    row: ForwardRow | None = None


class ApplyRequest(Message, frozen=True, kw_only=True):
    """`forward.apply`: make the forwards of a file be what the file says, and touch no others."""

    owner: str
    """Real path of the file."""
    forwards: list[ForwardSpec] = []
    auto: AutoSpec | None = None
    names: bool = False
    """Services shall answer by name."""
    dry_run: bool = False
    """Answer the plan, and change nothing."""
    wait: float | None = None
    """Seconds to wait until all serve; None returns when the ports listen."""


class Step(Message, frozen=True, kw_only=True):
    """What a plan does with one forward: starts it, changes it, keeps it, or stops it."""

    sign: Literal["+", "~", "=", "-"]
    name: str
    target: str
    """`prod/web:80`."""
    changes: list[str] = []
    """What a `~` changes: `localPort 8080 -> 8081`."""
    forward: ForwardRow | None = None
    """As it is now; null for a `+` of a dry run, and for a `-` the row as it was."""


class ApplyReply(Message, frozen=True, kw_only=True):
    """Reply of `forward.apply`: the plan, in the order of the file, and stopped forwards last."""

    steps: list[Step]
    names_port: int | None = None
    warnings: list[str] = []
    """Notes for standard error."""


class DownRequest(Message, frozen=True, kw_only=True):
    """`forward.down`: stop all forwards of a file, and its `auto` and `names`."""

    owner: str
    """Real path of the file; it need not exist any more."""


class ExportReply(Message, frozen=True, kw_only=True):
    """Reply of `forward.export`: what forwards that have not ended were asked to be, oldest first."""

    forwards: list[ForwardSpec]
    """Each with its name, its port and its region."""
    names: bool = False
    """Services answer by name."""


class ForwardsChanged(Message, frozen=True, kw_only=True):
    """What `forward.subscribe` streams: forwards that are new or other than before, and ids that are gone."""

    forwards: list[ForwardRow] = []
    removed: list[str] = []


class ForwardEvent(Message, frozen=True, kw_only=True):
    """One thing that happened to a forward."""

    time: float
    kind: str
    """`state`, `endpoint` or `refused`."""
    text: str


class HistoryReply(Message, frozen=True, kw_only=True):
    """Reply of `forward.history`: the last events, oldest first, since the agent started."""

    events: list[ForwardEvent]


class NamesRequest(Message, frozen=True, kw_only=True):
    """`names.open` and `names.close`: for a file, or (empty) for a person."""

    owner: str = ""


class NamesReply(Message, frozen=True, kw_only=True):
    """Reply of `names.open` and `names.close`: the port, null when it is closed."""

    port: int | None


class Failure(Message, frozen=True, kw_only=True):
    """`error.data` of a JSON-RPC error: a `KecsError` on its way to the person."""

    hint: str | None = None
    exit_code: int = 1


METHODS: dict[str, tuple[type[Message], type[Message]]] = {
    "agent.hello": (Empty, Hello),
    "agent.status": (Empty, AgentStatus),
    "agent.shutdown": (Empty, Empty),
    "forward.start": (StartRequest, StartReply),
    "forward.stop": (StopRequest, ForwardRows),
    "forward.list": (Empty, ForwardRows),
    "forward.get": (GetRequest, ForwardRow),
    "forward.watch": (GetRequest, ForwardRow),
    "forward.apply": (ApplyRequest, ApplyReply),
    "forward.down": (DownRequest, ForwardRows),
    "forward.subscribe": (Empty, ForwardRows),
    "forward.history": (GetRequest, HistoryReply),
    "forward.export": (Empty, ExportReply),
    "names.open": (NamesRequest, NamesReply),
    "names.close": (NamesRequest, NamesReply),
}
"""Method name -> (parameters, result). `forward.watch` answers the row, then streams notifications
`{"jsonrpc": "2.0", "method": "forward.event", "params": ConnectionEvent}` until the client leaves;
`forward.subscribe` likewise `"forward.changed"` with `ForwardsChanged`."""

ERROR_CODE = -32000
"""JSON-RPC code of a `KecsError`; its `data` is a `Failure`."""


def to_json(value: Any) -> Any:
    """Turn a message into plain JSON values, members in camelCase."""
    return msgspec.to_builtins(value)
