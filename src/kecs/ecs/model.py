"""The rows of ECS: what is stored, one frozen struct a kind.

Operations, scheduler and lifecycle take these values and return new ones (`msgspec.structs.replace`).
Times are epoch seconds (float). Dictionaries named after an AWS member hold that member in the shape
of the API, already validated. Region is part of every key.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import msgspec

Key = tuple[str | int, ...]
TaskStatus = Literal[
    "PROVISIONING", "PENDING", "ACTIVATING", "RUNNING",
    "DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED", "DELETED",
]  # fmt: skip
"""In order of a task's life (ECS Developer Guide, task-lifecycle-explanation)."""
HealthStatus = Literal["HEALTHY", "UNHEALTHY", "UNKNOWN"]
RolloutState = Literal["IN_PROGRESS", "COMPLETED", "FAILED"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What the store keeps: every row names its table and its key."""

    TABLE: ClassVar[str] = ""

    @property
    def key(self) -> Key:
        """The row's key, unique in its table; its parts go from the widest to the narrowest."""
        raise NotImplementedError


class Cluster(Row, frozen=True, kw_only=True):
    """An ECS cluster."""

    TABLE: ClassVar[str] = "cluster"
    region: str
    name: str
    status: Literal["ACTIVE", "INACTIVE"] = "ACTIVE"
    created_at: float
    settings: list[dict[str, Any]] = []
    configuration: dict[str, Any] | None = None
    capacity_providers: list[str] = []
    default_capacity_provider_strategy: list[dict[str, Any]] = []
    service_connect_defaults: dict[str, Any] | None = None
    tags: dict[str, str] = {}

    @property
    def key(self) -> Key:
        """(region, name)."""
        return (self.region, self.name)


class Family(Row, frozen=True, kw_only=True):
    """The last revision that a task definition family ever had: it only grows."""

    TABLE: ClassVar[str] = "family"
    region: str
    name: str
    last_revision: int

    @property
    def key(self) -> Key:
        """(region, name)."""
        return (self.region, self.name)


class TaskDefinition(Row, frozen=True, kw_only=True):
    """One revision of a task definition."""

    TABLE: ClassVar[str] = "task_definition"
    region: str
    family: str
    revision: int
    status: Literal["ACTIVE", "INACTIVE", "DELETE_IN_PROGRESS"] = "ACTIVE"
    definition: dict[str, Any]
    """The API's TaskDefinition with defaults filled in, without arn, status, tags and times."""
    registered_at: float
    deregistered_at: float | None = None
    delete_requested_at: float | None = None
    tags: dict[str, str] = {}

    @property
    def key(self) -> Key:
        """(region, family, revision)."""
        return (self.region, self.family, self.revision)


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment of a service. Running and pending counts are counted, never stored."""

    id: str
    """`ecs-svc/<19 digits>`; the tasks of the deployment carry it as `startedBy`."""
    status: Literal["PRIMARY", "ACTIVE", "INACTIVE"] = "PRIMARY"
    task_definition: str
    """ARN of the revision."""
    desired_count: int
    created_at: float
    updated_at: float
    rollout_state: RolloutState = "IN_PROGRESS"
    rollout_state_reason: str = ""
    failed_tasks: int = 0
    """Failures in a row, as the API shows them: back to 0 once a task runs healthily."""
    launch_type: str | None = None
    platform_version: str | None = None
    capacity_provider_strategy: list[dict[str, Any]] = []
    network_configuration: dict[str, Any] | None = None
    extra: dict[str, Any] = {}
    """Further members of the API's Deployment, stored and returned as they are."""
    counted_failures: list[str] = []
    """Ids of the tasks whose failure was counted already."""
    was_stable: bool = False
    """True once COMPLETED: a place the circuit breaker can roll back to."""
    next_start_at: float = 0.0
    """Earliest time to start a task again: failing tasks are started ever more slowly."""
    healthy_seen_at: float = 0.0
    """`healthy_at` of the last task that set `failed_tasks` back."""
    is_rollback: bool = False
    """Started by the circuit breaker: it is not rolled back again."""


class ServiceEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a service's `events`."""

    id: str
    created_at: float
    message: str


class Service(Row, frozen=True, kw_only=True):
    """An ECS service."""

    TABLE: ClassVar[str] = "service"
    region: str
    cluster: str
    name: str
    status: Literal["ACTIVE", "DRAINING", "INACTIVE"] = "ACTIVE"
    task_definition: str
    """ARN of the revision that was asked for."""
    desired_count: int
    scheduling_strategy: Literal["REPLICA", "DAEMON"] = "REPLICA"
    launch_type: str | None = None
    launch_type_given: bool = False
    """False when it was implied: then an update that asks for a public IP makes EC2 FARGATE."""
    platform_version: str | None = None
    capacity_provider_strategy: list[dict[str, Any]] = []
    deployment_controller: str = "ECS"
    deployment_configuration: dict[str, Any]
    """The API's DeploymentConfiguration with its defaults filled in."""
    network_configuration: dict[str, Any] | None = None
    propagate_tags: str = "NONE"
    enable_ecs_managed_tags: bool = False
    enable_execute_command: bool = False
    health_check_grace_period_seconds: int = 0
    settings: dict[str, Any] = {}
    """Members that are stored and returned: loadBalancers, serviceRegistries, placement…, roleArn."""
    deployments: list[Deployment] = []
    """PRIMARY first, then the older ones; ended ones are kept in `history`."""
    history: list[Deployment] = []
    """INACTIVE deployments, newest first, at most 20: where a rollback goes to is found here."""
    events: list[ServiceEvent] = []
    """Newest first, at most 100."""
    created_at: float
    client_token: str | None = None
    request_hash: str = ""
    """Hash of the request that created it: an identical CreateService is idempotent."""
    steady: bool = False
    """True once "has reached a steady state" was said for the current situation."""
    tags: dict[str, str] = {}
    kept_port: int | None = None
    """Where tasks of this machine find it (`kecs.ecs.kept_ports`); on `local`, for its life."""

    @property
    def key(self) -> Key:
        """(region, cluster, name)."""
        return (self.region, self.cluster, self.name)

    @property
    def public(self) -> bool:
        """True when tasks of this service have `assignPublicIp: ENABLED`."""
        return is_public(self.network_configuration)


class TaskPort(msgspec.Struct, frozen=True, kw_only=True):
    """One port mapping of a running task and where this machine reaches it."""

    container: str
    container_port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    name: str | None = None
    host_port: int = 0
    """On `local` the KECS port that the process listens on; 0 where there is none, as on Kubernetes."""
    host: str = "127.0.0.1"
    """Where it listens; on Kubernetes the Pod's address, which this machine need not reach."""
    ready: bool = False
    """Something of the task listens on it (UDP: the task is RUNNING)."""


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A container of a task, as the API shows it and as the runtime last saw it."""

    name: str
    id: str
    """UUID at the end of the container's ARN."""
    image: str
    essential: bool = True
    last_status: Literal["PENDING", "RUNNING", "STOPPED"] = "PENDING"
    exit_code: int | None = None
    reason: str | None = None
    health_status: HealthStatus = "UNKNOWN"
    has_health_check: bool = False
    runtime_id: str | None = None
    cpu: str = "0"
    memory: str | None = None
    memory_reservation: str | None = None
    listening: list[int] = []
    """TCP ports its processes really listen on; for `explain`."""
    started_at: float | None = None
    """When it was first seen to run; None: it never ran."""


class Task(Row, frozen=True, kw_only=True):
    """An ECS task."""

    TABLE: ClassVar[str] = "task"
    region: str
    cluster: str
    id: str
    """32 hexadecimal digits."""
    service: str | None = None
    """Name of its service; None for a standalone task."""
    started_by: str | None = None
    """Deployment id for a service's task, else what RunTask was given."""
    group: str
    task_definition: str
    """ARN of its revision."""
    family: str
    revision: int
    last_status: TaskStatus = "PROVISIONING"
    desired_status: Literal["RUNNING", "STOPPED"] = "RUNNING"
    containers: list[Container]
    ports: list[TaskPort] = []
    public: bool = False
    """`assignPublicIp: ENABLED`."""
    launch_type: str | None = None
    capacity_provider_name: str | None = None
    platform_version: str | None = None
    platform_family: str | None = None
    cpu: str | None = None
    memory: str | None = None
    ephemeral_storage: dict[str, Any] | None = None
    overrides: dict[str, Any] = {}
    attachments: list[dict[str, Any]] = []
    attributes: list[dict[str, Any]] = []
    availability_zone: str = ""
    network_mode: str = "bridge"
    namespace: str | None = None
    """Kubernetes namespace of its Pod; None on `local`."""
    pod: str | None = None
    """Name of its Pod; None on `local`."""
    waiting: str | None = None
    """Why it has no place to run yet, in the cluster's words; None once it has one."""
    health_status: HealthStatus = "UNKNOWN"
    enable_execute_command: bool = False
    version: int = 1
    """Grows by one with each change."""
    created_at: float
    pull_started_at: float | None = None
    pull_stopped_at: float | None = None
    connectivity_at: float | None = None
    started_at: float | None = None
    healthy_at: float | None = None
    """From when it counts as healthy for its deployment: at RUNNING without a health check this lies
    `healthy_after` ahead; None while it is UNHEALTHY or its health checks have not passed yet."""
    stopping_at: float | None = None
    execution_stopped_at: float | None = None
    stopped_at: float | None = None
    stop_code: str | None = None
    stopped_reason: str | None = None
    tags: dict[str, str] = {}

    @property
    def key(self) -> Key:
        """(region, cluster, id)."""
        return (self.region, self.cluster, self.id)


class LocalPort(Row, frozen=True, kw_only=True):
    """A KECS port of this machine that a local task has, or had less than a minute ago."""

    TABLE: ClassVar[str] = "local_port"
    port: int
    region: str
    task_id: str
    released_at: float | None = None

    @property
    def key(self) -> Key:
        """(port,): ports are the machine's, not a region's."""
        return (self.port,)


class Node(Row, frozen=True, kw_only=True):
    """A node of the Kubernetes cluster, as last seen: a node port is reached at each one's address."""

    TABLE: ClassVar[str] = "node"
    name: str
    addresses: list[str]
    """Addresses to dial, best first (ExternalIP where there is one, else InternalIP); numeric."""
    ready: bool

    @property
    def key(self) -> Key:
        """(name,): nodes are the cluster's, not a region's."""
        return (self.name,)


class NodePort(Row, frozen=True, kw_only=True):
    """A node port of a public service or standalone task (docs/design/contracts.md, 5).

    All containers of a Pod share one network, so container port and protocol name a port of it; several
    revisions of a service share a row.
    """

    TABLE: ClassVar[str] = "node_port"
    region: str
    cluster: str
    service: str = ""
    """Name of the service; empty for a standalone task."""
    task_id: str = ""
    """Id of the standalone task; empty for a service."""
    container_port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    port: int
    """The node port: the truth, which the cluster is made to follow."""
    applied: bool = False
    """The cluster has it; until then the endpoint is not ready by this route."""

    @property
    def key(self) -> Key:
        """(region, cluster, service, task_id, container_port, protocol)."""
        return (self.region, self.cluster, self.service, self.task_id, self.container_port, self.protocol)


class ClientToken(Row, frozen=True, kw_only=True):
    """What a `clientToken` was used for, so that a repeated request is answered the same."""

    TABLE: ClassVar[str] = "client_token"
    region: str
    operation: str
    token: str
    request_hash: str
    result: list[str]
    """ARNs of what the first request made."""
    created_at: float

    @property
    def key(self) -> Key:
        """(region, operation, token)."""
        return (self.region, self.operation, self.token)


KINDS: tuple[type[Row], ...] = (
    Cluster, Family, TaskDefinition, Service, Task, LocalPort, Node, NodePort, ClientToken,
)  # fmt: skip
"""Every kind of row: the store has one table for each."""


def is_public(network_configuration: dict[str, Any] | None) -> bool:
    """Tell whether a NetworkConfiguration says `assignPublicIp: ENABLED`."""
    awsvpc = (network_configuration or {}).get("awsvpcConfiguration") or {}
    return bool(awsvpc.get("assignPublicIp") == "ENABLED")
