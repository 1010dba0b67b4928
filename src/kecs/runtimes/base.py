"""What the control plane needs of a runtime: it starts, stops, observes and exposes *tasks*.

Deployments, restarts and reasons are `kecs.ecs.scheduler`'s work. Observations are whole states, not
edges: losing one and seeing the next is the same as seeing both, so a reconnect needs no history.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any, Literal, Protocol

import msgspec


class PortSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A port of a container and the port of this machine that stands for it."""

    container_port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    name: str | None = None
    host_port: int = 0


class Dependency(msgspec.Struct, frozen=True, kw_only=True):
    """One item of a container's `dependsOn`."""

    container: str
    condition: Literal["START", "COMPLETE", "SUCCESS", "HEALTHY"]


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A container's health check; seconds, already multiplied by `time_scale`."""

    command: list[str]
    """As in the API: `CMD` and arguments, or `CMD-SHELL` and one string."""
    interval: float = 30.0
    timeout: float = 5.0
    retries: int = 3
    start_period: float = 0.0


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A container to run; overrides, environment files and secrets are already merged in."""

    name: str
    image: str
    essential: bool = True
    entry_point: list[str] = []
    command: list[str] = []
    environment: dict[str, str] = {}
    """Everything the process gets beyond what the runtime itself adds; `secrets` are in it, too."""
    secrets: list[str] = []
    """Names of those variables that came from `secrets`: a runtime that shows an environment hides them."""
    working_directory: str | None = None
    user: str | None = None
    depends_on: list[Dependency] = []
    health_check: HealthCheck | None = None
    stop_timeout: float = 30.0
    """Seconds from the stop signal to SIGKILL, already multiplied by `time_scale`."""
    start_timeout: float | None = None
    """Seconds from its own start within which it must be what others wait for (COMPLETE, SUCCESS,
    HEALTHY), else those give up (AWS API reference, ContainerDefinition); None: no limit."""
    ports: list[PortSpec] = []
    image_tried: str | None = None
    """What was done to bring its image to where it runs, for the error of a pull; None: nothing."""
    definition: dict[str, Any] = {}
    """The container definition as registered, for what only some runtimes honour."""


class TaskSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A task to run."""

    id: str
    arn: str
    region: str
    cluster: str
    family: str
    revision: int
    service: str | None = None
    network_mode: str = "awsvpc"
    namespace: str | None = None
    """Where its Pod is, as the task's row says; None on `local`."""
    pod: str | None = None
    """Name of its Pod."""
    started_by: str | None = None
    """Deployment id of a service's task."""
    cpu: str | None = None
    """CPU units of the task as a whole (1024 are one CPU); `0` or None: none were asked for."""
    memory: str | None = None
    """MiB of the task as a whole."""
    containers: list[ContainerSpec]
    definition: dict[str, Any] = {}
    """The task definition as registered: volumes, pidMode, ipcMode, … for runtimes that honour them."""


class ContainerObserved(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime sees of one container."""

    name: str
    status: Literal["PENDING", "RUNNING", "STOPPED"] = "PENDING"
    pid: int | None = None
    runtime_id: str | None = None
    exit_code: int | None = None
    """128 + signal number when a signal ended it."""
    reason: str | None = None
    """Why it could not start or was ended, in ECS's words, e.g. `CannotStartContainerError: …`."""
    health: Literal["HEALTHY", "UNHEALTHY", "UNKNOWN"] = "UNKNOWN"
    listening: list[tuple[str, int]] = []
    """(host to dial, TCP port) of each LISTEN socket of its processes, e.g. ("127.0.0.1", 29999)."""
    started_at: float | None = None
    finished_at: float | None = None


class TaskObserved(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of what a runtime sees of one task, now."""

    task_id: str
    containers: list[ContainerObserved] = []
    ended: bool = False
    """Nothing of the task exists any more and this is its last observation."""
    failure: str | None = None
    """Why the task could not start, with ECS's error name: `ResourceInitializationError: …`."""
    lost: bool = False
    """The runtime no longer knows the task, or what watched over it died."""
    port_taken: int | None = None
    """The task died before it was ready because a stranger holds this port of its own."""
    leaving: str | None = None
    """Somebody else has begun to end the task, which may still serve for a while: why, in a sentence."""
    placed: bool = True
    """It has a place to run: what is left is to start its containers."""
    waiting: str | None = None
    """Why it has no place to run yet, in the runtime's words, e.g. `0/2 nodes are available: …`; None when
    nobody has looked for one."""


class ExposedPort(msgspec.Struct, frozen=True, kw_only=True):
    """One port of an `Exposure`."""

    container_port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    node_port: int | None = None
    """Port that each node of the cluster opens for it; None: it has none (not public)."""


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """A service or standalone task as the cluster's network knows it: one Kubernetes Service.

    It selects the Pods of the service (or the one of the task). With node ports it is of type NodePort,
    without of type ClusterIP: reached from within the cluster only.
    """

    namespace: str
    name: str
    region: str
    cluster: str
    service: str | None
    task_id: str | None
    ports: list[ExposedPort]
    """Never empty: what has no ports has no exposure."""

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name)."""
        return (self.namespace, self.name)


class NodeObserved(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the cluster."""

    name: str
    addresses: list[str]
    """Numeric addresses to dial, best first."""
    ready: bool


class NodePortTakenError(Exception):
    """Another Service of the cluster has this node port ("already allocated")."""

    def __init__(self, port: int) -> None:
        super().__init__(f"node port {port} is allocated already")
        self.port = port


class Exposes(Protocol):
    """What a runtime with a network of its own can do besides: `kecs.runtimes.kubernetes`."""

    @property
    def trouble(self) -> tuple[float, str] | None:
        """Since when (epoch seconds) and why the cluster cannot be followed; None while all is well."""
        ...

    async def expose(self, exposure: Exposure) -> None:
        """Make the cluster so; idempotent.

        Raises `NodePortTakenError`; anything else that fails is raised and tried again by the caller.
        """
        ...

    async def withdraw(self, namespace: str, name: str) -> None:
        """Take an exposure away; nothing happens when there is none (of this instance)."""
        ...

    async def exposures(self) -> list[Exposure]:
        """Return what the cluster has of this instance's now; `open` was called before."""
        ...

    def drift(self) -> AsyncIterator[tuple[str, str]]:
        """Yield the key of each exposure that somebody else changed or deleted, until `close`."""
        ...

    def nodes(self) -> AsyncIterator[list[NodeObserved]]:
        """Yield all nodes, now and after each change that matters, until `close`."""
        ...


class Runtime(Protocol):
    """Runs tasks. Methods return when the order is taken; what comes of it are observations."""

    name: str

    async def open(self, expected: Sequence[str], keep: Collection[str] | None = None) -> None:
        """Begin: adopt the tasks with these ids that still live, end what nobody expects.

        An observation follows for each of `expected`, one with `lost` for those that are gone. `keep`
        names stopped tasks that can still be described: what is kept of them (logs) stays, what is
        kept of others goes; None: everything stays.
        """
        ...

    async def run(self, task: TaskSpec) -> None:
        """Start a task. A failure to start is an observation, not an exception."""
        ...

    async def stop(self, task_id: str) -> None:
        """Stop a task: stop signal, stopTimeout, SIGKILL, all descendants. Idempotent."""
        ...

    def observations(self) -> AsyncIterator[TaskObserved]:
        """Yield observations until `close`."""
        ...

    def logs(self, task_id: str, container: str, *, follow: bool) -> AsyncIterator[bytes]:
        """Yield what a container wrote, oldest first; with `follow` until it has ended."""
        ...

    async def forget(self, task_id: str) -> None:
        """Delete what is kept of a stopped task that can no longer be described."""
        ...

    async def settled(self) -> None:
        """Wait until what nobody expected at `open` has ended."""
        ...

    async def close(self) -> None:
        """Let go of everything; tasks go on."""
        ...
