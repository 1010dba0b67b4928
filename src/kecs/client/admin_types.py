"""What the control plane answers on `controlplane.sock` below `/_kecs/`, beside the endpoints.

Every error there is a JSON object `{"message", "hint", "exitCode"}` (`Refusal`) with an HTTP status of
400 and above, so that the command line shows it as its own. Members are in camelCase.
"""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of what crosses the wire."""


class Refusal(Message, frozen=True, kw_only=True):
    """An error on its way to the person."""

    message: str
    hint: str | None = None
    exit_code: int = 1


class PeerStatus(Message, frozen=True, kw_only=True):
    """How the control plane sees the agent."""

    state: str
    """`connected`, `absent` (none is wanted), `starting`, or `BACKOFF`."""
    detail: str | None = None


class ClusterStatus(Message, frozen=True, kw_only=True):
    """How the control plane sees the cluster of its instance."""

    context: str
    server: str
    """URL of the API server."""
    connected: bool
    lost_at: float | None = None
    """Since when it cannot be reached; epoch seconds."""
    detail: str | None = None
    """Why it cannot be reached."""
    nodes: int = 0
    """As last seen."""
    nodes_ready: int = 0


class Status(Message, frozen=True, kw_only=True):
    """`GET /_kecs/status`."""

    version: str
    pid: int
    instance: str
    instance_id: str
    runtime: str
    region: str
    api_port: int
    started_at: float
    clusters: int
    services: int
    tasks_running: int
    tasks_pending: int
    memory: int
    """Resident bytes."""
    agent: PeerStatus
    cluster: ClusterStatus | None = None
    """None on `local`."""
    warnings: list[str] = []


class PsPort(Message, frozen=True, kw_only=True):
    """A port of a task."""

    container: str
    container_port: int
    protocol: str
    name: str | None
    host_port: int
    ready: bool
    node_port: int | None = None
    """Port of each node of the cluster that leads to it."""
    forward: str | None = None
    """Filled in by the command line from the agent's list."""


class PsTask(Message, frozen=True, kw_only=True):
    """A task in `kecs ps`."""

    region: str
    cluster: str
    task_id: str
    service: str | None
    task_definition: str
    """`family:revision`."""
    last_status: str
    desired_status: str
    health_status: str
    public: bool
    created_at: float
    stopped_reason: str | None
    ports: list[PsPort]
    namespace: str | None = None
    """Of its pod; None on `local`."""
    pod: str | None = None
    waiting: str | None = None
    """Why it has not started yet: no node takes it, or its image is on its way to the cluster."""


class PsService(Message, frozen=True, kw_only=True):
    """A service in `kecs ps`."""

    region: str
    cluster: str
    service: str
    status: str
    task_definition: str
    desired: int
    running: int
    pending: int
    public: bool
    rollout_state: str
    deployments: int
    forwards: list[str] = []
    """`127.0.0.1:PORT` of each forward that reaches it (`…/udp` for UDP); filled in by the command line."""
    url: str | None = None
    """By its name, while the agent serves names; filled in by the command line."""


class Ps(Message, frozen=True, kw_only=True):
    """`GET /_kecs/ps`: `?stopped=1` adds tasks that are STOPPED."""

    services: list[PsService]
    tasks: list[PsTask]


class ExplainEvent(Message, frozen=True, kw_only=True):
    """One line of a timeline: something that happened."""

    time: float
    """Epoch seconds."""
    source: str
    """To what it happened: `service`, `task 0123abcd`, `forward NAME`."""
    text: str


class Explain(Message, frozen=True, kw_only=True):
    """`GET /_kecs/explain?type=service|task|tags&cluster=C&name=N[&region=R]`; for tags, `name` is JSON."""

    title: str
    facts: list[str]
    """What is so, most important first; one sentence each."""
    without_effect: list[str]
    """Settings that are stored but do nothing here, with the reason."""
    advice: list[str]
    """What to do next, with commands."""
    timeline: list[ExplainEvent] = []
    """What happened, oldest first; the command line adds what happened to forwards."""
    opens: str | None = None
    """What opens a port to it; null when nothing can."""
    region: str = ""
    cluster: str = ""
    service: str | None = None
    """Its name, or the name of the task's service."""
    task_id: str | None = None


class StopProgress(Message, frozen=True, kw_only=True):
    """One line of the stream that `POST /_kecs/shutdown` answers; the last has `done`."""

    text: str
    done: bool = False


class LogLine(Message, frozen=True, kw_only=True, omit_defaults=True):
    """One line of `GET /_kecs/logs?cluster=C&name=N[&container=X][&region=R][&follow=1]`.

    `name` is a service, or a task by id, unique prefix or ARN. The answer is one JSON object a line, oldest
    first for each container; with `follow` it goes on until the client leaves, or no task can add more.
    """

    task_id: str
    container: str
    text: str
    """What the container wrote, without the newline; undecodable bytes are replaced."""
    error: Refusal | None = None
    """Why nothing more of this container can be read; then there is no text. Those of the others go on."""
