"""A task whose image only Docker has: what waits for the import, what is seen of it, what ends it."""

import asyncio

from tests.controlplane.world import (
    REGION,
    FakeCluster,
    World,
    container_definition,
    service,
    task,
    task_definition,
)

from kecs.controlplane.explain import explain_service, explain_task
from kecs.controlplane.images import Brought
from kecs.controlplane.ps import ps
from kecs.ecs import lifecycle
from kecs.ecs.model import Task

SERVICE = (REGION, "default", "web")


class Ship:
    """Brings images when it is told to; implements `images.Brings`."""

    def __init__(self, *, imports=True, **outcomes):
        self.outcomes = outcomes
        self.imports = imports
        self.arrive = asyncio.Event()
        self.asked = []
        self.closed = False

    async def bring(self, images, began):
        self.asked.append(sorted(images))
        if self.imports:
            for image in images:
                await began(image, "cafe01")
            await self.arrive.wait()
        return [Brought(image, **self.outcomes.get(image, {"how": "there"})) for image in images]

    def progress(self, images):
        images = list(images)
        if not images or self.arrive.is_set():
            return None
        return f"image {images[0]} is being imported from Docker into the cluster, 3 s so far"

    async def close(self):
        self.closed = True


def messages(world):
    return [event.message for event in reversed(world.service().events)]


def held(world):
    [one] = ps(world.store.state, world.controller.held, stopped=False).tasks
    return one.last_status, one.waiting


def test_a_task_waits_for_its_image_and_its_service_tells(short_path):
    async def main():
        ship = Ship(web={"how": "imported", "image_id": "cafe01", "seconds": 3.84})
        rows = [task_definition(), service()]
        async with World.open(short_path, None, *rows, cluster=FakeCluster(), images=ship) as world:
            await world.until(lambda: world.tasks("PENDING") and ship.asked, "the task waits")
            waiting = "image web is being imported from Docker into the cluster, 3 s so far"
            assert held(world) == ("PENDING", waiting)
            [row] = world.tasks()
            sentence = f"task {row.id[:8]} has not started yet: {waiting}"
            troubles = world.controller.troubles
            assert sentence in explain_service(world.store.state, REGION, "default", "web", troubles).facts
            assert sentence in explain_task(world.store.state, REGION, "default", row.id, troubles).facts
            assert world.machine.ran == []
            ship.arrive.set()
            await world.until(lambda: world.tasks("RUNNING"), "the task runs")
            assert held(world) == ("RUNNING", None)
            [spec] = world.machine.ran
            assert spec.containers[0].image_tried == "it had been imported from Docker on this machine"
            told = [text for text in messages(world) if "image" in text]
            assert told == [
                "(service web) is importing image web (cafe01) from Docker on this machine into the cluster.",
                (
                    "(service web) has imported image web (cafe01) from Docker on this machine into the "
                    "cluster in 3.8 s."
                ),
            ]
        assert ship.closed

    asyncio.run(main())


def test_an_import_is_said_once_however_many_tasks_wait_for_it(short_path):
    async def main():
        ship = Ship(web={"how": "imported", "image_id": "cafe01", "seconds": 1.0})
        rows = [task_definition(), service(desired=5)]
        async with World.open(short_path, None, *rows, cluster=FakeCluster(), images=ship) as world:
            await world.until(lambda: len(ship.asked) == 5, "all wait")
            ship.arrive.set()
            await world.until(lambda: len(world.tasks("RUNNING")) == 5, "all run")
            assert len([text for text in messages(world) if "image" in text]) == 2

    asyncio.run(main())


def test_a_failed_import_starts_the_task_all_the_same(short_path):
    async def main():
        ship = Ship(web={"how": "failed", "image_id": "cafe01", "detail": "ctr: unexpected EOF"})
        ship.arrive.set()
        rows = [task_definition(), service()]
        async with World.open(short_path, None, *rows, cluster=FakeCluster(), images=ship) as world:
            await world.until(lambda: world.tasks("RUNNING"), "the kubelet had it")
            [spec] = world.machine.ran
            assert spec.containers[0].image_tried == (
                "importing it from Docker on this machine failed: ctr: unexpected EOF"
            )
            [last] = [text for text in messages(world) if "could not" in text]
            assert last == (
                "(service web) could not import image web (cafe01) from Docker on this machine into the "
                "cluster, which tries to pull it. Reason: ctr: unexpected EOF"
            )
            assert not any("unable" in text for text in messages(world)), "ecs-deploy takes it for an error"

    asyncio.run(main())


def test_each_image_of_a_task_is_brought_and_each_container_told(short_path):
    async def main():
        ship = Ship(imports=False, absent={"how": "absent"})
        containers = [
            container_definition(),
            container_definition("twin", image="web", portMappings=[]),
            container_definition("other", image="absent", portMappings=[]),
        ]
        rows = [task_definition(containers=containers), service()]
        async with World.open(short_path, None, *rows, cluster=FakeCluster(), images=ship) as world:
            await world.until(lambda: world.machine.ran, "it is run")
            assert ship.asked == [["absent", "web"]]
            assert {one.name: one.image_tried for one in world.machine.ran[0].containers} == {
                "web": None,
                "twin": None,
                "other": "Docker on this machine has no image absent to import",
            }

    asyncio.run(main())


def test_a_task_that_is_stopped_while_its_image_is_on_its_way_stops_at_once(short_path):
    async def main():
        ship = Ship()
        alone = task(status="PENDING", containers=[])
        async with World.open(
            short_path, None, task_definition(), alone, cluster=FakeCluster(), images=ship
        ) as world:
            await world.until(lambda: ship.asked, "it waits")

            def stop(tx):
                row = tx.get(Task, *alone.key)
                tx.put(lifecycle.request_stop(row, "UserInitiated", "enough", 2.0))

            await world.store.transact(stop)
            await world.until(lambda: world.tasks("STOPPED"), "it is STOPPED")
            assert world.tasks()[0].stopped_reason == "enough"
            assert world.machine.ran == world.machine.stopped == []
            assert not ship.arrive.is_set()

    asyncio.run(main())


def test_a_task_alone_is_imported_for_without_events(short_path):
    async def main():
        ship = Ship(web={"how": "imported", "image_id": "cafe01"})
        ship.arrive.set()
        alone = task(status="PENDING", namespace="n", pod="web-1")
        async with World.open(
            short_path, None, task_definition(), alone, cluster=FakeCluster(), images=ship
        ) as world:
            await world.until(lambda: world.tasks("RUNNING"), "it runs")
            assert ship.asked == [["web"]]

    asyncio.run(main())


def test_a_control_plane_that_dies_while_an_image_comes_asks_again(short_path):
    async def main():
        first = Ship()
        rows = [task_definition(), service()]
        async with World.open(short_path, None, *rows, cluster=FakeCluster(), images=first) as world:
            await world.until(lambda: first.asked, "it waits")
            [before] = world.tasks()
        again = Ship(imports=False)
        async with World.open(short_path, None, cluster=FakeCluster(), images=again) as world:
            await world.until(lambda: world.tasks("RUNNING"), "it runs")
            assert [row.id for row in world.tasks()] == [before.id]
            assert again.asked == [["web"]]

    asyncio.run(main())


def test_a_disk_that_is_full_costs_only_the_words(short_path, caplog):
    async def main():
        ship = Ship(web={"how": "imported", "image_id": "cafe01"})
        ship.arrive.set()
        rows = [task_definition(), service()]
        async with World.open(short_path, None, *rows, cluster=FakeCluster(), images=ship) as world:
            real = world.store.transact

            async def transact(commit):
                if "TaskImages._say" in commit.__qualname__:
                    raise OSError("no space left on device")
                return await real(commit)

            world.store.transact = transact
            await world.until(lambda: world.tasks("RUNNING"), "it runs")
            assert not any("image" in text for text in messages(world))
        assert "could not be committed" in caplog.text

    asyncio.run(main())
