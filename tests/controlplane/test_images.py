"""Images of this machine's Docker come to the cluster once, and nothing waits for ever for one."""

import asyncio
import contextlib
import threading

import pytest

from kecs import aio
from kecs.controlplane import images
from kecs.controlplane.images import Brought, Images, Never
from kecs.errors import KecsError

ID = "sha256:" + "c" * 64
OTHER = "sha256:" + "d" * 64


class Machine:
    """Docker and the nodes of a cluster; implements `images.Source`."""

    def __init__(self, **local):
        self.local = {name.replace("_", ":"): image_id for name, image_id in local.items()}
        self.nodes = {}
        self.calls = []
        self.imports = []
        self.docker_down = None
        self.failures = {}
        """Why an image's import fails."""
        self.gates = {}
        """An import of this image waits for the event."""
        self.stopped = threading.Event()
        self.at_once = 0
        self.most_at_once = 0

    def local_id(self, image):
        self.calls.append(("local_id", image))
        if self.docker_down:
            raise KecsError(self.docker_down)
        return self.local.get(image)

    def has(self, image, image_id):
        self.calls.append(("has", image))
        return self.nodes.get(image) == image_id

    def bring(self, image, image_id, note):
        self.imports.append(image)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        note("Importing images into nodes...")
        try:
            if image in self.gates:
                while not self.gates[image].wait(0.01):
                    if self.stopped.is_set():
                        raise KecsError("it was ended")
            if image in self.failures:
                raise KecsError(self.failures[image])
            self.nodes[image] = self.local[image]
        finally:
            self.at_once -= 1

    def stop(self):
        self.stopped.set()


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Told(list):
    """What callers were told of imports that begin."""

    async def began(self, image, image_id):
        self.append((image, image_id))


@contextlib.asynccontextmanager
async def opened(machine, clock=None):
    it = Images(machine, clock or Clock())
    try:
        yield it
    finally:
        await it.close()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_an_image_that_only_docker_has_is_imported_once():
    async def main():
        machine, told = Machine(myapp_dev=ID), Told()
        async with opened(machine) as it:
            (first,) = await it.bring(["myapp:dev"], told.began)
            (again,) = await it.bring(["myapp:dev"], told.began)
        assert (first.how, first.image_id, again.how) == ("imported", "c" * 12, "there")
        assert first.tried == "it had been imported from Docker on this machine"
        assert again.tried is None
        assert machine.imports == ["myapp:dev"]
        assert told == [("myapp:dev", "c" * 12)], "only who waits for an import is told of one"

    asyncio.run(main())


def test_what_the_nodes_have_is_not_imported_and_not_asked_for_at_each_task():
    async def main():
        machine, clock = Machine(myapp_dev=ID), Clock()
        machine.nodes["myapp:dev"] = ID
        async with opened(machine, clock) as it:
            for _ in range(3):
                assert (await it.bring(["myapp:dev"], Told().began))[0].how == "there"
            assert machine.calls.count(("has", "myapp:dev")) == 1
            clock.now += images.SURE_FOR + 1
            machine.nodes.clear()  # as a kubelet that is short of disk space does
            assert (await it.bring(["myapp:dev"], Told().began))[0].how == "imported"

    asyncio.run(main())


def test_an_image_that_was_built_anew_is_imported_again():
    async def main():
        machine = Machine(myapp_dev=ID)
        async with opened(machine) as it:
            await it.bring(["myapp:dev"], Told().began)
            machine.local["myapp:dev"] = OTHER
            (found,) = await it.bring(["myapp:dev"], Told().began)
        assert (found.how, found.image_id) == ("imported", "d" * 12)
        assert machine.nodes == {"myapp:dev": OTHER}

    asyncio.run(main())


def test_many_tasks_wait_for_one_import_and_all_are_told():
    async def main():
        machine, told = Machine(myapp_dev=ID), Told()
        machine.gates["myapp:dev"] = threading.Event()
        async with opened(machine) as it:
            waiting = asyncio.gather(*(it.bring(["myapp:dev"], told.began) for _ in range(20)))
            await until(lambda: len(told) == 20)
            machine.gates["myapp:dev"].set()
            assert {found[0].how for found in await waiting} == {"imported"}
        assert machine.imports == ["myapp:dev"]

    asyncio.run(main())


def test_one_import_runs_at_a_time_and_the_wait_can_be_seen():
    async def main():
        machine, clock = Machine(a_1=ID, b_1=OTHER), Clock()
        machine.gates["a:1"] = threading.Event()
        async with opened(machine, clock) as it:
            first = asyncio.gather(it.bring(["a:1"], Told().began))
            await until(lambda: machine.imports == ["a:1"])
            second = asyncio.gather(it.bring(["b:1"], Told().began))
            await until(lambda: it.progress(["b:1"]))
            clock.now = 7.0
            assert it.progress(["nosuch:1", "a:1"]) == (
                "image a:1 is being imported from Docker into the cluster, 7 s so far "
                "(Importing images into nodes...)"
            )
            assert it.progress(["b:1"]) == (
                "image b:1 waits to be imported from Docker: other imports are before it"
            )
            machine.gates["a:1"].set()
            await asyncio.gather(first, second)
            assert it.progress(["a:1", "b:1"]) is None
        assert machine.imports == ["a:1", "b:1"]
        assert machine.most_at_once == 1

    asyncio.run(main())


def test_an_import_that_hangs_holds_up_only_those_who_need_one(monkeypatch):
    monkeypatch.setattr(images, "TURN_WITHIN", 0.05)

    async def main():
        machine = Machine(a_1=ID, b_1=OTHER, c_1=OTHER)
        machine.gates["a:1"] = threading.Event()
        machine.nodes["c:1"] = OTHER
        async with opened(machine) as it:
            hanging = asyncio.gather(it.bring(["a:1"], Told().began))
            await until(lambda: machine.imports == ["a:1"])
            there, absent, late = await it.bring(["c:1", "nosuch:1", "b:1"], Told().began)
            assert (there.how, absent.how, late.how) == ("there", "absent", "failed")
            assert late.tried == (
                "importing it from Docker on this machine failed: its turn did not come within 0 s"
            )
            machine.gates["a:1"].set()
            await hanging
            # It was not the image's fault, so it is tried the next time.
            assert (await it.bring(["b:1"], Told().began))[0].how == "imported"

    asyncio.run(main())


def test_a_failed_import_is_told_and_not_tried_for_each_task_anew():
    async def main():
        machine, clock = Machine(myapp_dev=ID), Clock()
        machine.failures["myapp:dev"] = "ctr: unexpected EOF"
        async with opened(machine, clock) as it:
            for _ in range(3):
                (found,) = await it.bring(["myapp:dev"], Told().began)
                assert found.tried == "importing it from Docker on this machine failed: ctr: unexpected EOF"
            assert machine.imports == ["myapp:dev"]
            del machine.failures["myapp:dev"]
            machine.local["myapp:dev"] = OTHER
            assert (await it.bring(["myapp:dev"], Told().began))[0].how == "imported", "another id"
            machine.local["myapp:dev"], clock.now = ID, images.FAILED_FOR + 1
            assert (await it.bring(["myapp:dev"], Told().began))[0].how == "imported", "after a while"

    asyncio.run(main())


def test_a_person_who_imports_by_hand_ends_the_wait_after_a_failure():
    async def main():
        machine = Machine(myapp_dev=ID)
        machine.failures["myapp:dev"] = "ctr: unexpected EOF"
        async with opened(machine) as it:
            await it.bring(["myapp:dev"], Told().began)
            machine.nodes["myapp:dev"] = ID
            assert (await it.bring(["myapp:dev"], Told().began))[0].how == "there"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("image", "local", "down", "tried"),
    [
        ("nosuch:dev", {}, None, "Docker on this machine has no image nosuch:dev to import"),
        (
            "myapp:dev",
            {"myapp_dev": ID},
            "Docker does not answer",
            "it was not imported from Docker on this machine: Docker does not answer",
        ),
        (
            "myapp@sha256:" + "c" * 64,
            {},
            "Docker does not answer",
            "an image that is named by its digest is not imported from Docker on this machine",
        ),
    ],
)
def test_what_cannot_be_imported_is_left_to_the_kubelet_and_says_why(image, local, down, tried):
    async def main():
        machine = Machine(**local)
        machine.docker_down = down
        async with opened(machine) as it:
            (found,) = await it.bring([image], Told().began)
        assert found.tried == tried
        assert machine.imports == []

    asyncio.run(main())


def test_a_fault_of_a_program_holds_no_task_up(caplog):
    class Broken(Machine):
        def has(self, image, image_id):
            raise RuntimeError("boom")

    async def main():
        async with opened(Broken(myapp_dev=ID)) as it:
            (found,) = await it.bring(["myapp:dev"], Told().began)
        assert found.how == "failed"
        assert "boom" in caplog.text

    asyncio.run(main())


def test_a_task_that_stops_to_wait_leaves_the_import_to_the_others():
    async def main():
        machine = Machine(myapp_dev=ID)
        machine.gates["myapp:dev"] = threading.Event()
        async with opened(machine) as it:
            leaving = aio.create_task(it.bring(["myapp:dev"], Told().began), name="a task")
            staying = aio.create_task(it.bring(["myapp:dev"], Told().began), name="a task")
            await until(lambda: machine.imports)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            machine.gates["myapp:dev"].set()
            assert (await staying)[0].how == "imported"

    asyncio.run(main())


def test_close_ends_what_runs():
    async def main():
        machine = Machine(myapp_dev=ID)
        machine.gates["myapp:dev"] = threading.Event()
        it = Images(machine)
        waiting = aio.create_task(it.bring(["myapp:dev"], Told().began), name="a task")
        await until(lambda: machine.imports)
        await it.close()
        assert machine.stopped.is_set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: machine.at_once == 0)

    asyncio.run(main())


def test_never_says_that_nothing_was_tried():
    async def main():
        assert await Never().bring(["a:1"], Told().began) == [
            Brought(
                "a:1",
                "unasked",
                detail="images of Docker on this machine are not imported (`--import never`)",
            )
        ]
        assert Never().progress(["a:1"]) is None

    asyncio.run(main())
