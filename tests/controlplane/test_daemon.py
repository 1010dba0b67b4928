"""The real control plane as a process, with real tasks: born, killed, brought back, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3
import msgspec
import pytest
from botocore.config import Config
from tests.controlplane.world import container_definition, service, task, task_definition
from tests.process.harness import Home, until
from tests.sockets import free_port

from kecs import files
from kecs.client import instance as instances
from kecs.client import secrets
from kecs.client.controlplane import ControlPlaneClient
from kecs.client.instance import Instance
from kecs.client.launch import command, launch, stop_agent
from kecs.controlplane import daemon
from kecs.controlplane.task_ports import can_bind
from kecs.ecs.model import Service, Task
from kecs.errors import ExitCode, KecsError
from kecs.net import listener
from kecs.paths import InstancePaths
from kecs.store.ecs import Store

SERVER = Path(__file__).parents[1] / "process" / "servers" / "web.py"
PUBLIC = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "assignPublicIp": "ENABLED"}}


class Plane:
    """One instance in a temporary home, and its control plane."""

    def __init__(self, home: Home, name: str = "default", **members) -> None:
        self.home = home
        self.paths = InstancePaths(home.path, name)
        files.make_private_folder(self.paths.root)
        instance = Instance(
            name=name, id="01234567", region="us-east-1", api_port=free_port(), desired="running",
            access_key_id="KECS", environment={"PATH": os.environ["PATH"]}, directory=str(home.path),
            created_at=1.0,
        )  # fmt: skip
        instances.write(self.paths, msgspec.structs.replace(instance, **members))
        self.admin = ControlPlaneClient(self.paths, timeout=20)
        self._client = None

    @property
    def instance(self):
        return instances.require(self.paths)

    @property
    def pid(self):
        return int(self.paths.controlplane_pid.read_text())

    @property
    def aws(self):
        if self._client is None:
            self._client = boto3.client(
                "ecs", endpoint_url=f"http://127.0.0.1:{self.instance.api_port}", region_name="us-east-1",
                aws_access_key_id="any", aws_secret_access_key="any",
                config=Config(retries={"total_max_attempts": 1}),
            )  # fmt: skip
        return self._client

    def start(self):
        launch("controlplane", self.paths)

    def kill(self):
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        until(lambda: not self.holds_lock(), "the killed one is gone")

    def holds_lock(self):
        descriptor = files.try_lock(self.paths.controlplane_lock)
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is None

    def run(self, *extra, code=0):
        """Run the daemon in the foreground until it ends; return its last log line."""
        done = subprocess.run(
            command("controlplane", self.paths, extra),
            check=False,
            timeout=60,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
        log = self.paths.controlplane_log.read_text().splitlines()
        return json.loads(log[-1]) if log else None

    def change(self, **members):
        instances.change(self.paths, lambda now: msgspec.structs.replace(now, **members))

    def stop(self):
        """`kecs stop`, without the agent."""
        self.change(desired="stopped")
        lines = list(self.admin.shutdown())
        until(lambda: not self.holds_lock(), "the control plane is gone")
        return lines

    def register(self, version="1", command=None, **container):
        definition = {
            "name": "web",
            "image": "web",
            "command": command or [sys.executable, str(SERVER)],
            "environment": [
                {"name": "VERSION", "value": version},
                {"name": "KECS_TEST_HOME", "value": str(self.home.path)},
            ],
            "portMappings": [{"containerPort": 80, "name": "http"}],
            "stopTimeout": 5,
        }
        answer = self.aws.register_task_definition(
            family="web", networkMode="awsvpc", requiresCompatibilities=["FARGATE"], cpu="256", memory="512",
            executionRoleArn="arn:aws:iam::123456789012:role/execution",
            containerDefinitions=[definition | container],
        )  # fmt: skip
        return answer["taskDefinition"]["taskDefinitionArn"]

    def serve(self, count=2):
        self.register()
        self.aws.create_service(
            serviceName="web", taskDefinition="web", desiredCount=count, networkConfiguration=PUBLIC
        )
        self.stable()

    def stable(self):
        self.aws.get_waiter("services_stable").wait(
            services=["web"], WaiterConfig={"Delay": 1, "MaxAttempts": 40}
        )

    def tasks(self, desired="RUNNING"):
        arns = self.aws.list_tasks(desiredStatus=desired)["taskArns"]
        return self.aws.describe_tasks(tasks=arns)["tasks"] if arns else []

    def shims(self):
        """Process ids of what carries the home, but for the control plane."""
        return {pid for pid, words in self.home.processes().items() if "kecs.controlplane" not in words}


@pytest.fixture
def home():
    one = Home()
    yield one
    one.close()


@pytest.fixture
def plane(home):
    return Plane(home)


def answer_of(port):
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=5)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        data = b""
        while part := connection.recv(4096):
            data += part
    return data.decode()


def test_a_service_runs_rolls_survives_kill_9_and_is_stopped_whole(plane):
    """The whole life, with real processes; nothing is left."""
    plane.start()
    plane.serve(2)
    first = {task["taskArn"] for task in plane.tasks()}
    assert len(first) == 2
    ports = [port.host_port for task in plane.admin.ps().tasks for port in task.ports]
    assert all("200 OK" in answer_of(port) for port in ports)

    revision = plane.register("2")
    plane.aws.update_service(service="web", taskDefinition=revision)
    plane.stable()
    second = {task["taskArn"]: task["containers"][0]["runtimeId"] for task in plane.tasks()}
    assert not first & set(second)
    before = plane.shims()

    plane.kill()
    began = time.monotonic()
    plane.start()
    assert time.monotonic() - began < 10
    plane.stable()
    assert {task["taskArn"]: task["containers"][0]["runtimeId"] for task in plane.tasks()} == second
    assert plane.shims() == before, "nothing was started and nothing ended"

    lines = plane.stop()
    assert lines[-1].done
    assert any("2 of 2" in line.text for line in lines)
    assert not plane.paths.controlplane_socket.exists()
    assert plane.home.processes() == {}

    plane.change(desired="running")
    plane.start()
    plane.stable()
    third = {task["taskArn"] for task in plane.tasks()}
    assert len(third) == 2
    assert not third & set(second), "a service starts new tasks after a stop"
    plane.stop()


def test_sigterm_leaves_quietly_and_tasks_go_on(plane):
    plane.start()
    plane.serve(1)
    tasks, shims = {task["taskArn"] for task in plane.tasks()}, plane.shims()
    os.kill(plane.pid, signal.SIGTERM)
    until(lambda: not plane.holds_lock(), "it has left")

    assert not plane.paths.controlplane_socket.exists()
    assert not plane.paths.controlplane_pid.exists()
    assert plane.shims() == shims

    plane.start()
    plane.stable()
    assert {task["taskArn"] for task in plane.tasks()} == tasks
    plane.stop()


def test_what_a_dead_control_plane_left_is_ended_without_an_api(plane):
    plane.start()
    plane.serve(1)
    plane.aws.run_task(taskDefinition="web", networkConfiguration=PUBLIC)
    until(lambda: len([one for one in plane.tasks() if one["lastStatus"] == "RUNNING"]) == 2, "both run")
    plane.change(desired="stopped")
    plane.kill()
    # The standalone task is told of the service's port, for which the control plane launches an agent.
    stop_agent(plane.paths)
    assert plane.shims()

    plane.run("--stop")

    until(lambda: plane.home.processes() == {}, "nothing is left, nor an agent that began meanwhile")
    plane.change(desired="running")
    plane.start()
    plane.stable()
    assert len(plane.tasks()) == 1, "the service is back, the standalone task is not"
    stopped = plane.tasks("STOPPED")
    assert {one["stoppedReason"] for one in stopped} == {"Task stopped by kecs stop"}
    plane.stop()


def test_tasks_that_no_row_knows_are_ended_too(plane):
    """The database is gone, the tasks' folder is not."""
    plane.start()
    plane.serve(1)
    plane.change(desired="stopped")
    plane.kill()
    for file in plane.paths.root.glob("kecs.duckdb*"):
        file.unlink()
    assert plane.shims()

    plane.run("--stop")

    assert plane.home.processes() == {}


@contextlib.asynccontextmanager
async def opened(home, **environment):
    """Give the paths, the instance and the store of an instance that has never run."""
    paths = InstancePaths(home, "default")
    files.make_private_folder(paths.root)
    instance = Instance(
        name="default", id="i", region="us-east-1", api_port=1, access_key_id="K", created_at=1.0,
        environment=environment, directory=str(home),
    )  # fmt: skip
    store = await Store.open(paths.database)
    try:
        yield paths, instance, store
    finally:
        await store.close()


def test_a_task_whose_port_a_stranger_took_runs_on_another(short_path, monkeypatch):
    """The stranger was quicker than the task's own process; everything but the choice is real."""

    async def main(stranger):
        taken = stranger.getsockname()[1]
        monkeypatch.setattr(daemon, "can_bind", lambda number: number == taken or can_bind(number))
        monkeypatch.setattr(daemon.listener, "TASK_PORTS", (taken, *listener.TASK_PORTS))
        async with opened(short_path, PATH=os.environ["PATH"]) as (paths, instance, store):
            it = daemon.Daemon(paths, instance, store)
            try:
                await it.take_up()
                container = container_definition(command=[sys.executable, str(SERVER)], stopTimeout=2)
                await store.transact(lambda tx: tx.put(task_definition(containers=[container])))
                one = task(status="PROVISIONING")
                await store.transact(lambda tx: tx.put(one))
                async with asyncio.timeout(20):
                    while (row := store.state.get(Task, *one.key)).last_status != "RUNNING":
                        assert row.last_status != "STOPPED", row.stopped_reason
                        await asyncio.sleep(0.02)
                assert row.ports[0].host_port not in (0, taken)
                assert row.ports[0].ready
            finally:
                async for _ in it.controller.stop_all_tasks("over"):
                    pass
                await it.controller.close()
                await it.runtime.close()

    with contextlib.closing(socket.socket()) as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        asyncio.run(main(stranger))


def test_services_of_an_older_database_get_their_kept_ports(short_path):
    async def main():
        async with opened(short_path) as (paths, instance, store):
            old = service(desired=0)
            await store.transact(lambda tx: tx.put(task_definition()))
            await store.transact(lambda tx: tx.put(old))
            it = daemon.Daemon(paths, instance, store)
            try:
                await it.take_up()
                assert store.state.get(Service, *old.key).kept_port in listener.KEPT_PORTS
            finally:
                await it.controller.close()
                await it.runtime.close()

    asyncio.run(main())


def test_after_a_sleep_the_cluster_is_asked_anew(short_path, monkeypatch):
    real, roused = daemon.choose, []

    def choose(*given):
        return dataclasses.replace(real(*given), rouse=lambda: roused.append(True))

    async def main():
        async with opened(short_path) as (paths, instance, store):
            await daemon.Daemon(paths, instance, store).awoke(3600.0)

    monkeypatch.setattr(daemon, "choose", choose)
    asyncio.run(main())

    assert roused == [True]


def test_after_a_reboot_services_start_again(plane):
    """Every process is gone and the boot id is another: lost tasks are replaced."""
    plane.start()
    plane.serve(1)
    old = plane.tasks()[0]["taskArn"]
    plane.kill()
    for pid in plane.shims():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: plane.home.processes() == {}, "everything is dead")
    for state in plane.paths.tasks.glob("*/state.json"):
        document = json.loads(state.read_text())
        boot = next(name for name in document if name.lower().replace("_", "") == "bootid")
        state.write_text(json.dumps(document | {boot: "another"}))

    plane.start()
    # It answers before it has looked at what is left, and until then the rows are what was last known.
    until(lambda: old not in {task["taskArn"] for task in plane.tasks()}, "the old task is given up")
    until(lambda: any(one["lastStatus"] == "RUNNING" for one in plane.tasks()), "a new task runs")

    gone = plane.aws.describe_tasks(tasks=[old])["tasks"][0]
    assert (gone["lastStatus"], gone["stopCode"]) == ("STOPPED", "InfrastructureHealth")
    plane.stop()


def test_an_instance_that_is_to_be_stopped_is_not_started(home):
    plane = Plane(home, desired="stopped")
    plane.run()

    assert not plane.paths.controlplane_socket.exists()
    assert not plane.paths.database.exists()


def test_a_stop_that_comes_while_it_starts_is_heard(plane):
    """Nobody could reach it to tell it, so it reads `desired` once more when it can be reached."""
    with subprocess.Popen(command("controlplane", plane.paths)) as starting:
        until(lambda: plane.paths.controlplane_pid.exists(), "it has begun", every=0.001)
        plane.change(desired="stopped")

        assert starting.wait(20) == 0
    assert not plane.holds_lock()
    assert not plane.paths.controlplane_socket.exists()


def test_the_loser_of_two_exits_with_0(plane):
    plane.start()
    pid = plane.pid
    plane.run()

    assert plane.pid == pid
    assert plane.admin.status().pid == pid
    plane.stop()


def test_a_port_is_chosen_once_and_is_none_that_another_instance_names(home):
    other = Plane(home, "other", api_port=5373)
    plane = Plane(home, api_port=0)
    plane.start()
    chosen = plane.instance.api_port
    assert chosen > 5373
    plane.stop()
    plane.change(desired="running")
    plane.start()

    assert plane.instance.api_port == chosen
    assert plane.admin.status().api_port == chosen
    assert other.instance.api_port == 5373
    plane.stop()


def test_a_port_that_a_stranger_holds_is_an_error_that_names_it(home):
    with contextlib.closing(socket.socket()) as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        plane = Plane(home, api_port=port)
        with pytest.raises(KecsError, match=f"port {port} is taken by .*{os.getpid()}") as told:
            plane.start()

    assert told.value.exit_code == ExitCode.CONFLICT
    assert "kecs start --port" in told.value.hint
    assert not plane.paths.controlplane_pid.exists()
    plane.start()
    plane.stop()


def test_a_container_gets_its_secrets_files_and_ports(plane):
    """What the process really sees in its environment."""
    secrets.put(plane.paths, "prod/db", '{"password": "hunter2"}')
    file = plane.paths.s3 / "bucket" / "app.env"
    file.parent.mkdir(parents=True)
    file.write_text("FROM_FILE=yes\n")
    plane.start()
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    plane.register(
        command=[sys.executable, "-c", show],
        environmentFiles=[{"value": "arn:aws:s3:::bucket/app.env", "type": "s3"}],
        secrets=[
            {
                "name": "PASSWORD",
                "valueFrom": "arn:aws:secretsmanager:us-east-1:123456789012:secret:prod/db-a1B2c3:password::",
            }
        ],
    )
    run = plane.aws.run_task(
        taskDefinition="web",
        networkConfiguration=PUBLIC,
        overrides={
            "containerOverrides": [{"name": "web", "environment": [{"name": "VERSION", "value": "9"}]}]
        },
    )
    task = run["tasks"][0]["taskArn"]
    plane.aws.get_waiter("tasks_stopped").wait(tasks=[task], WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    (line,) = plane.admin.logs("default", task.rpartition("/")[2])
    seen = json.loads(line.text)

    assert seen["PASSWORD"] == "hunter2"
    assert seen["FROM_FILE"] == "yes"
    assert seen["VERSION"] == "9"
    assert seen["PORT"] == seen["PORT_80"] == seen["PORT_HTTP"]
    assert seen["AWS_EXECUTION_ENV"] == "AWS_ECS_FARGATE"
    assert seen["AWS_REGION"] == "us-east-1"
    plane.stop()


def test_a_missing_secret_fails_the_task_as_on_aws(plane):
    plane.start()
    plane.register(secrets=[{"name": "S", "valueFrom": "gone"}])
    task = plane.aws.run_task(taskDefinition="web", networkConfiguration=PUBLIC)["tasks"][0]["taskArn"]
    plane.aws.get_waiter("tasks_stopped").wait(tasks=[task], WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    described = plane.aws.describe_tasks(tasks=[task])["tasks"][0]

    assert described["stopCode"] == "TaskFailedToStart"
    assert described["stoppedReason"].startswith("ResourceInitializationError: unable to pull secrets")
    plane.stop()


def test_explain_names_what_listens_instead(home):
    """A process that ignores PORT runs after `readyTimeout`, and explain says where it listens."""
    plane = Plane(home, knobs={"readyTimeout": 0.5, "healthyAfter": 0.0})
    plane.start()
    deaf = (
        "import socket, sys, time; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen();"
        "print(s.getsockname()[1], flush=True); time.sleep(600)"
    )
    plane.register(command=[sys.executable, "-c", deaf])
    task = plane.aws.run_task(taskDefinition="web", networkConfiguration=PUBLIC)["tasks"][0]["taskArn"]
    until(lambda: plane.tasks()[0]["lastStatus"] == "RUNNING", "it counts as running")
    (port,) = [line.text for line in plane.admin.logs("default", task.rpartition("/")[2])]
    wanted = f"container web does not listen on 80 (it listens on {port})"

    def told():
        facts = plane.admin.explain("task", "default", task.rpartition("/")[2]).facts
        return any(fact.startswith(wanted) for fact in facts)

    until(told, wanted)
    plane.stop()


def test_calls_are_refused_while_the_instance_stops(plane):
    """A task that takes its time to end: what comes meanwhile is told so."""
    plane.start()
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(1, flush=True); time.sleep(600)"
    )
    plane.register(command=[sys.executable, "-c", stubborn], portMappings=[], stopTimeout=2)
    task = plane.aws.run_task(taskDefinition="web", networkConfiguration=PUBLIC)["tasks"][0]["taskArn"]
    until(lambda: list(plane.admin.logs("default", task.rpartition("/")[2])), "it ignores SIGTERM")
    plane.change(desired="stopped")
    lines = plane.admin.shutdown()
    next(lines)

    with pytest.raises(Exception, match="The instance is being stopped"):
        plane.aws.list_tasks()
    assert list(lines)[-1].done
