"""`/_kecs/*` through a real unix socket, asked by the clients that use it."""

import asyncio
import contextlib
import socket

import msgspec
import pytest
from tests.controlplane.world import REGION, World, container_definition, service, task, task_definition

from kecs.client import watch
from kecs.client.admin_types import PeerStatus, Status, StopProgress
from kecs.client.controlplane import ControlPlaneClient
from kecs.controlplane.admin import build_admin
from kecs.controlplane.servers import Servers
from kecs.controlplane.task_logs import TaskLogs
from kecs.ecs.model import Service
from kecs.errors import ExitCode, KecsError
from kecs.net import unix
from kecs.paths import InstancePaths


class Served:
    """What the admin application needs of the daemon, on a world without processes."""

    region = REGION

    def __init__(self, world):
        self.world = world
        self.hub = world.hub
        self.logs = TaskLogs(lambda: world.store.state, world.runtime)
        world.store.subscribe(self.logs.on_commit)
        self.let_go = asyncio.Event()

    @property
    def state(self):
        return self.world.store.state

    def status(self):
        return Status(
            version="1", pid=1, instance="default", instance_id="i", runtime="local", region=REGION,
            api_port=1, started_at=1.0, clusters=1, services=1, tasks_running=1, tasks_pending=0, memory=1,
            agent=PeerStatus(state="absent"),
        )  # fmt: skip

    def held(self, task):
        return self.world.controller.held(task)

    def troubles(self, row):
        return self.world.controller.troubles(row)

    async def shutdown(self):
        yield StopProgress(text="stopped 1 of 1 tasks")
        await self.let_go.wait()
        yield StopProgress(text="", done=True)


@contextlib.asynccontextmanager
async def serving(folder, *rows):
    """Serve the admin routes of a world with `rows`; yields (world, served, paths)."""
    paths = InstancePaths(folder, "default")
    paths.root.mkdir(mode=0o700, parents=True)
    async with World.open(paths.root, None, *rows) as world:
        served = Served(world)

        async def nothing(scope, receive, send):
            raise AssertionError

        tcp = socket.socket()
        tcp.bind(("127.0.0.1", 0))
        servers = Servers(nothing, [tcp], build_admin(served), unix.bind_private(paths.controlplane_socket))
        await servers.start()
        try:
            yield world, served, paths
        finally:
            served.let_go.set()
            world.hub.close()
            await servers.stop()


def ask(paths, call):
    """Run one call of the synchronous client on a thread."""
    return asyncio.to_thread(lambda: call(ControlPlaneClient(paths)))


def test_status_and_ps(short_path):
    async def main():
        async with serving(short_path, task_definition(), service()) as (world, _, paths):
            await world.until(lambda: world.service().steady, "the service is steady")
            await world.put(task(status="STOPPED"))

            status = await ask(paths, lambda client: client.status())
            assert status.agent.state == "absent"
            ps = await ask(paths, lambda client: client.ps())
            assert [(row.service, row.running, row.desired, row.rollout_state) for row in ps.services] == [
                ("web", 1, 1, "COMPLETED")
            ]
            assert [(one.last_status, one.ports[0].host_port) for one in ps.tasks] == [("RUNNING", 29998)]
            assert len((await ask(paths, lambda client: client.ps(stopped=True))).tasks) == 2

    asyncio.run(main())


def test_explain_and_its_refusals(short_path):
    async def main():
        async with serving(short_path, task_definition(), service()) as (_, _, paths):
            told = await ask(paths, lambda client: client.explain("service", "default", "web"))
            assert told.title == f"service default/web in {REGION}"

            for kind, name, code in (("service", "gone", 3), ("task", "ffffffff", 3), ("cat", "web", 2)):
                with pytest.raises(KecsError) as refused:
                    await ask(
                        paths, lambda client, kind=kind, name=name: client.explain(kind, "default", name)
                    )
                assert refused.value.exit_code == code
                assert refused.value.hint

    asyncio.run(main())


def test_what_is_no_route_is_refused(short_path):
    async def main():
        async with serving(short_path) as (_, _, paths):
            with pytest.raises(KecsError, match="there is no GET /_kecs/nothing") as refused:
                await ask(paths, lambda client: client._get("/_kecs/nothing", {}, Status))
            assert refused.value.exit_code == ExitCode.NOT_FOUND

    asyncio.run(main())


def test_logs_of_a_task_and_of_a_service(short_path):
    async def main():
        containers = [container_definition(), container_definition("side", portMappings=[])]
        async with serving(short_path, task_definition(containers=containers), service()) as (
            world,
            _,
            paths,
        ):
            one = (await world.until(lambda: world.tasks("RUNNING"), "it is RUNNING"))[0]
            await world.put(msgspec.structs.replace(one, version=99))

            for name in ("web", one.id, one.id[:8]):
                lines = await ask(paths, lambda client, name=name: list(client.logs("default", name)))
                assert [(line.container, line.text) for line in lines] == [
                    (box, text)
                    for box in [each.name for each in one.containers]
                    for text in (f"{box} of {one.id[:8]}", "no newline")
                ]
            with pytest.raises(KecsError, match="there is no container `db`") as refused:
                await ask(paths, lambda client: list(client.logs("default", "web", container="db")))
            assert "`web`" in refused.value.hint
            with pytest.raises(KecsError, match="there is no service or task `default/nobody`"):
                await ask(paths, lambda client: list(client.logs("default", "nobody")))

    asyncio.run(main())


def test_following_a_service_shows_its_new_tasks_until_it_is_deleted(short_path):
    async def main():
        async with serving(short_path, task_definition(), service()) as (world, _, paths):
            first = (await world.until(lambda: world.tasks("RUNNING"), "it is RUNNING"))[0]
            seen = []
            reading = asyncio.get_running_loop().create_task(
                ask(
                    paths,
                    lambda client: [
                        seen.append(line.task_id) for line in client.logs("default", "web", follow=True)
                    ],
                )
            )
            await world.until(lambda: first.id in seen, "the first task's lines came")
            world.runtime.end(first.id, 1)
            await world.until(lambda: len(set(seen)) == 2, "the second task's lines came")
            await world.change(Service, (REGION, "default", "web"), status="DRAINING", desired_count=0)

            await asyncio.wait_for(reading, 10)

    asyncio.run(main())


def test_the_agent_follows_sees_and_drains(short_path):
    async def main():
        async with serving(short_path, task_definition()) as (world, _, paths):
            async with contextlib.aclosing(watch.follow_endpoints(paths)) as lines:
                first = await anext(lines)
                assert (first.type, first.version, first.targets) == ("snapshot", 1, [])
                assert world.hub.agent_connected
                await world.put(service())
                change = await anext(lines)
                assert [target.service for target in change.targets] == ["web"]
                waiting = asyncio.get_running_loop().create_task(world.hub.out_of_forwards("t", 60))
                await watch.post_seen(paths, world.hub.version)
                await watch.post_drained(paths, "t")
                await asyncio.wait_for(waiting, 5)
            async with asyncio.timeout(5):
                while world.hub.agent_connected:
                    await asyncio.sleep(0.01)
            once = await watch.fetch_endpoints(paths)
            assert once.type == "snapshot"

    asyncio.run(main())


def test_what_the_agent_says_must_be_understood(short_path):
    async def main():
        async with serving(short_path) as (_, _, paths):
            with pytest.raises(KecsError, match="is not understood"):
                await watch._post(paths, "/_kecs/seen", {"version": "one"})

    asyncio.run(main())


def test_the_stream_ends_when_the_control_plane_leaves(short_path):
    async def main():
        async with (
            serving(short_path) as (world, _, paths),
            contextlib.aclosing(watch.follow_endpoints(paths)) as lines,
        ):
            await anext(lines)
            world.hub.close()
            with pytest.raises(watch.ControlPlaneLost):
                await anext(lines)

    asyncio.run(main())


def test_shutdown_streams_its_progress(short_path):
    async def main():
        async with serving(short_path) as (_, served, paths):
            lines = []
            reading = asyncio.get_running_loop().create_task(
                ask(paths, lambda client: [lines.append(line) for line in client.shutdown()])
            )
            async with asyncio.timeout(5):
                while not lines:
                    await asyncio.sleep(0.01)
            assert lines[0].text == "stopped 1 of 1 tasks"
            served.let_go.set()
            await reading

            assert lines[-1].done

    asyncio.run(main())
