"""A control plane without processes: rows to begin with, a runtime in memory, and a controller on them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import time
import uuid

import msgspec

from kecs.controlplane.controller import Controller
from kecs.controlplane.hub import Hub
from kecs.controlplane.task_ports import TaskPorts
from kecs.ecs import arn, deployments
from kecs.ecs.context import Context, Knobs, RuntimeTraits
from kecs.ecs.model import Container, Service, Task, TaskDefinition, TaskPort
from kecs.ecs.state import State
from kecs.runtimes.base import (
    ContainerObserved,
    Exposure,
    NodePortTakenError,
    TaskObserved,
    TaskSpec,
)
from kecs.store.ecs import Store

REGION = "us-east-1"
PUBLIC = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "assignPublicIp": "ENABLED"}}
PRIVATE = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "assignPublicIp": "DISABLED"}}
PODS = RuntimeTraits(
    name="kubernetes", instance="dev", instance_id="0a1b2c3d", node_ports=range(30000, 30010)
)
KNOBS = Knobs(healthy_after=0.0, ready_timeout=30.0, drain=0.3)
_ids = itertools.count(1)


def new_id():
    return uuid.uuid4().hex


def container_definition(name="web", **members):
    return {
        "name": name,
        "image": name,
        "essential": True,
        "cpu": 0,
        "command": ["serve"],
        "environment": [],
        "portMappings": [{"containerPort": 80, "hostPort": 80, "protocol": "tcp", "name": "http"}],
    } | members


def task_definition(family="web", revision=1, containers=None, **members):
    return TaskDefinition(
        region=REGION,
        family=family,
        revision=revision,
        registered_at=1.0,
        definition={
            "family": family,
            "networkMode": "awsvpc",
            "containerDefinitions": containers or [container_definition()],
        }
        | members,
    )


def service(name="web", desired=1, *, family="web", revision=1, network=PUBLIC, **members):
    """A service with a fresh PRIMARY deployment, as CreateService leaves it."""
    row = Service(
        region=REGION,
        cluster="default",
        name=name,
        task_definition=arn.task_definition_arn(REGION, family, revision),
        desired_count=desired,
        launch_type="FARGATE",
        deployment_configuration={"minimumHealthyPercent": 100, "maximumPercent": 200},
        network_configuration=network,
        created_at=time.time(),
        **members,
    )
    return deploy(row)


def deploy(row):
    """Give a service a new PRIMARY deployment of what it asks for now, as UpdateService does."""
    now = time.time()
    fresh = deployments.new_deployment(row, deployment_id=deployments.deployment_id(new_id), now=now)
    return deployments.with_new_deployment(row, fresh, now)


def task(*, id=None, status="RUNNING", service=None, public=True, port=None, **members):  # noqa: A002
    ports = members.pop(
        "ports", [TaskPort(container="web", container_port=80, name="http", host_port=port or 0)]
    )
    return Task(
        region=members.pop("region", REGION),
        cluster=members.pop("cluster", "default"),
        id=id or f"{next(_ids):032x}",
        service=service,
        group=f"service:{service}" if service else "family:web",
        task_definition=arn.task_definition_arn(REGION, "web", 1),
        family="web",
        revision=1,
        last_status=status,
        containers=members.pop("containers", [Container(name="web", id="c", image="web")]),
        ports=ports,
        public=public,
        network_mode=members.pop("network_mode", "awsvpc"),
        created_at=members.pop("created_at", 1.0),
        **members,
    )


def state_of(*rows):
    return State(rows)


@dataclasses.dataclass
class Machine:
    """What outlives a control plane: the tasks that run."""

    running: dict[str, TaskSpec] = dataclasses.field(default_factory=dict)
    ran: list[TaskSpec] = dataclasses.field(default_factory=list)
    stopped: list[str] = dataclasses.field(default_factory=list)
    forgotten: list[str] = dataclasses.field(default_factory=list)
    strangers: set[int] = dataclasses.field(default_factory=set)
    """Ports that a stranger takes just before the task's process does."""
    listens: bool = True


class FakeRuntime:
    """Runs tasks in memory; implements `kecs.runtimes.base.Runtime`."""

    name = "local"

    def __init__(self, machine):
        self.machine = machine
        self._news = asyncio.Queue()

    async def open(self, expected, keep=None):
        self.kept = keep
        for task_id in expected:
            if task_id in self.machine.running:
                self.say_running(task_id)
            else:
                self.say(TaskObserved(task_id=task_id, lost=True, ended=True))

    async def run(self, spec):
        self.machine.ran.append(spec)
        taken = {port.host_port for one in spec.containers for port in one.ports} & self.machine.strangers
        if taken:
            self.say(TaskObserved(task_id=spec.id, ended=True, port_taken=min(taken)))
            return
        self.machine.running[spec.id] = spec
        self.say_running(spec.id)

    async def stop(self, task_id):
        self.machine.stopped.append(task_id)
        self.end(task_id, 143)

    async def observations(self):
        while True:
            yield await self._news.get()

    async def logs(self, task_id, container, *, follow):
        yield f"{container} of {task_id[:8]}\nno newline".encode()

    async def forget(self, task_id):
        self.machine.forgotten.append(task_id)

    async def settled(self):
        pass

    async def close(self):
        pass

    def say(self, seen):
        self._news.put_nowait(seen)

    def say_running(self, task_id):
        spec = self.machine.running[task_id]
        self.say(
            TaskObserved(
                task_id=task_id,
                containers=[
                    ContainerObserved(
                        name=one.name,
                        status="RUNNING",
                        started_at=time.time(),
                        listening=[
                            ("127.0.0.1", port.container_port if spec.pod else port.host_port)
                            for port in one.ports
                        ]
                        if self.machine.listens
                        else [("127.0.0.1", 3000)],
                    )
                    for one in spec.containers
                ],
            )
        )

    def end(self, task_id, code):
        """Let all processes of a task end."""
        spec = self.machine.running.pop(task_id, None)
        names = [one.name for one in spec.containers] if spec else []
        self.say(
            TaskObserved(
                task_id=task_id,
                ended=True,
                containers=[ContainerObserved(name=name, status="STOPPED", exit_code=code) for name in names],
            )
        )


class FakeCluster:
    """The network of a cluster, in memory; implements `kecs.runtimes.base.Exposes`. It outlives `World`s."""

    trouble = None

    def __init__(self):
        self.has: dict[tuple[str, str], Exposure] = {}
        self.taken: set[int] = set()
        """Node ports of Services that are not ours."""
        self.down: str | None = None
        """Why the API server does not answer."""
        self.calls = []
        self.gate: asyncio.Event | None = None
        """Calls wait for it."""
        self.attach()

    def attach(self):
        """Begin anew as a process does: its queues are its own."""
        self._drifted, self._nodes = asyncio.Queue(), asyncio.Queue()

    async def expose(self, exposure):
        await self._call("expose", exposure.name)
        for port in exposure.ports:
            if port.node_port in self.taken:
                raise NodePortTakenError(port.node_port)
        self.has[exposure.key] = exposure

    async def withdraw(self, namespace, name):
        await self._call("withdraw", name)
        self.has.pop((namespace, name), None)

    async def exposures(self):
        await self._call("exposures", "")
        return list(self.has.values())

    async def drift(self):
        while True:
            yield await self._drifted.get()

    async def nodes(self):
        while True:
            yield await self._nodes.get()

    def spoil(self, name, exposure=None):
        """Let somebody else change an exposure, or delete it."""
        key = next(key for key in self.has if key[1] == name)
        if exposure is None:
            del self.has[key]
        else:
            self.has[key] = exposure
        self._drifted.put_nowait(key)

    def say_nodes(self, *nodes):
        self._nodes.put_nowait(list(nodes))

    def exposed(self):
        """Return {name: {container port: node port}}."""
        return {
            name: {port.container_port: port.node_port for port in each.ports}
            for (_, name), each in self.has.items()
        }

    async def _call(self, what, name):
        self.calls.append((what, name))
        if self.gate is not None:
            await self.gate.wait()
        if self.down is not None:
            raise OSError(self.down)


class World:
    """A store, a runtime, a hub and a controller on one event loop."""

    def __init__(self, path, machine, store, cluster=None, images=None):
        """With a `cluster` tasks are pods, and it is their network; `images` brings what they run to it."""
        self.machine, self.store, self.cluster = machine, store, cluster
        self.traits = PODS if cluster is not None else RuntimeTraits()
        self.runtime = FakeRuntime(machine)
        self.hub = Hub(store.state)
        self.environments = {}
        self.controller = Controller(
            store,
            self.runtime,
            self.hub,
            ports=TaskPorts(range(29999, 29799, -1), lambda number: True, lambda: {29999}),
            environments=lambda task, definition: self.environments,
            context=lambda region: Context(
                region=region or REGION, now=time.time(), new_id=new_id, runtime=self.traits, knobs=KNOBS
            ),
            exposes=cluster,
            images=images,
        )

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, path, machine=None, *rows, taken_up=True, cluster=None, images=None):
        """Open the database at `path`, put `rows`, and let a controller take them up."""
        store = await Store.open(path / "kecs.duckdb")
        await store.transact(lambda tx: [tx.put(row) for row in rows])
        if cluster is not None:
            cluster.attach()
        world = cls(path, machine or Machine(), store, cluster, images)
        try:
            if taken_up:
                await world.controller.open()
                world.hub.open(agent_due=0.0)
            yield world
        finally:
            await world.controller.close()
            await store.close()

    async def put(self, *rows):
        await self.store.transact(lambda tx: [tx.put(row) for row in rows])

    def tasks(self, *statuses):
        found = self.store.state.scan(Task)
        return [row for row in found if not statuses or row.last_status in statuses]

    def service(self, name="web"):
        return self.store.state.get(Service, REGION, "default", name)

    async def change(self, kind, key, **members):
        def commit(tx):
            tx.put(msgspec.structs.replace(tx.get(kind, *key), **members))

        await self.store.transact(commit)

    async def until(self, condition, what, seconds=10.0):
        """Wait until `condition` holds; every commit is a reason to look again."""
        news = asyncio.Event()
        self.store.subscribe(lambda changes: news.set())
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}; {self.tasks()}"
            news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await news.wait()
        return value
