"""The controller: rows are carried out, and a crash at any point ends at the same place."""

import asyncio
import random
import time

import msgspec
import pytest
from tests.controlplane.world import (
    PRIVATE,
    REGION,
    Machine,
    World,
    container_definition,
    deploy,
    service,
    task,
    task_definition,
)

from kecs.controlplane import controller, observations, task_flow
from kecs.controlplane.environment import MissingResourceError
from kecs.ecs import lifecycle
from kecs.ecs.context import Knobs
from kecs.ecs.model import LocalPort, Service, Task
from kecs.errors import KecsError
from kecs.runtimes.base import TaskObserved

WEB = (REGION, "default", "web")


def test_a_service_gets_its_tasks_with_ports_of_their_own(short_path):
    async def main():
        async with World.open(short_path, None, task_definition(), service(desired=2)) as world:
            await world.until(lambda: len(world.tasks("RUNNING")) == 2, "both tasks are RUNNING")
            await world.until(lambda: world.service().steady, "the service is steady")

            assert sorted(row.ports[0].host_port for row in world.tasks()) == [29997, 29998]
            assert {row.port: row.task_id for row in world.store.state.scan(LocalPort)} == {
                row.ports[0].host_port: row.id for row in world.tasks()
            }
            assert all(row.ports[0].ready for row in world.tasks())
            assert world.service().deployments[0].rollout_state == "COMPLETED"
            assert any("has started 2 tasks" in event.message for event in world.service().events)
            await asyncio.sleep(0)
            assert len(world.machine.ran) == 2

    asyncio.run(main())


def test_a_hundred_tasks_are_made_in_one_pass_and_one_commit(short_path):
    async def main():
        async with World.open(short_path, None, task_definition(), service(desired=0)) as world:
            await world.until(lambda: world.service().steady, "the service is steady")
            made = []

            def note(changes):
                made.append(sum(isinstance(new, Task) and old is None for old, new in changes.values()))

            world.store.subscribe(note)
            await world.change(Service, WEB, desired_count=100)
            await world.until(lambda: len(world.tasks("RUNNING")) == 100, "all are RUNNING", 30)

            assert [count for count in made if count] == [100]
            assert any("has started 100 tasks" in event.message for event in world.service().events)

    asyncio.run(main())


def test_a_scale_in_stops_the_task_and_gives_its_port_back(short_path):
    async def main():
        async with World.open(short_path, None, task_definition(), service(desired=2)) as world:
            await world.until(lambda: world.service().steady, "the service is steady")
            await world.change(Service, WEB, desired_count=1)
            await world.until(lambda: len(world.tasks("STOPPED")) == 1, "one task is STOPPED")

            gone = world.tasks("STOPPED")[0]
            assert gone.stop_code == "ServiceSchedulerInitiated"
            row = world.store.state.get(LocalPort, gone.ports[0].host_port)
            assert row.released_at is not None
            assert world.machine.stopped == [gone.id]
            assert len(world.tasks("RUNNING")) == 1

    asyncio.run(main())


def test_a_new_revision_replaces_the_old_tasks(short_path):
    async def main():
        rows = [task_definition(), task_definition(revision=2), service(desired=2)]
        async with World.open(short_path, None, *rows) as world:
            await world.until(lambda: world.service().steady, "the service is steady")
            before = {row.id for row in world.tasks()}
            now = world.service()
            await world.put(
                deploy(msgspec.structs.replace(now, task_definition=now.task_definition[:-1] + "2"))
            )
            await world.until(
                lambda: world.service().steady and len(world.service().deployments) == 1, "it has rolled"
            )

            assert {row.id for row in world.tasks("STOPPED")} == before
            assert {row.revision for row in world.tasks("RUNNING")} == {2}
            ports = [row.ports[0].host_port for row in world.tasks()]
            assert len(set(ports)) == 4, "a port is not given again within a minute"

    asyncio.run(main())


def test_a_task_that_ends_is_replaced(short_path):
    async def main():
        async with World.open(short_path, None, task_definition(), service()) as world:
            first = (await world.until(lambda: world.tasks("RUNNING"), "it is RUNNING"))[0]
            world.runtime.end(first.id, 1)
            await world.until(
                lambda: [row for row in world.tasks("RUNNING") if row.id != first.id], "another is RUNNING"
            )

            gone = world.store.state.get(Task, *first.key)
            assert (gone.last_status, gone.stop_code) == ("STOPPED", "EssentialContainerExited")
            assert gone.containers[0].exit_code == 1

    asyncio.run(main())


def test_a_task_whose_port_a_stranger_took_runs_on_another(short_path):
    async def main():
        machine = Machine(strangers={29998, 29997})
        rows = [task_definition(), task(status="PROVISIONING")]
        async with World.open(short_path, machine, *rows) as world:
            running = (await world.until(lambda: world.tasks("RUNNING"), "it is RUNNING"))[0]

            assert running.ports[0].host_port == 29996
            assert [spec.id for spec in machine.ran] == [running.id] * 3
            assert world.store.state.get(LocalPort, 29998).released_at is not None
            assert world.store.state.get(LocalPort, 29996).released_at is None

    asyncio.run(main())


def test_a_task_that_finds_no_port_three_times_says_so(short_path):
    async def main():
        machine = Machine(strangers=set(range(29000, 30000)))
        async with World.open(short_path, machine, task_definition(), task(status="PROVISIONING")) as world:
            gone = (await world.until(lambda: world.tasks("STOPPED"), "it gave up"))[0]

            assert gone.stop_code == "TaskFailedToStart"
            assert "29995 was taken" in gone.stopped_reason
            assert len(machine.ran) == 4

    asyncio.run(main())


def test_a_missing_secret_stops_the_task_before_it_starts(short_path):
    async def main():
        async with World.open(short_path, None, task_definition(), taken_up=False) as world:

            def missing(task, definition):
                raise MissingResourceError("ResourceInitializationError: unable to pull secrets: gone")

            world.controller._flows._environments = missing
            await world.controller.open()
            await world.put(task(status="PROVISIONING"))
            gone = (await world.until(lambda: world.tasks("STOPPED"), "it has failed"))[0]

            assert gone.stop_code == "TaskFailedToStart"
            assert gone.stopped_reason == "ResourceInitializationError: unable to pull secrets: gone"
            assert world.machine.ran == []

    asyncio.run(main())


@pytest.mark.parametrize("status", ["PROVISIONING", "PENDING", "ACTIVATING"])
def test_a_task_that_was_never_run_before_the_crash_is_run(short_path, status):
    """The row was committed, the process died before the runtime was told."""

    async def main():
        rows = [task_definition(), task(status=status, port=0 if status == "PROVISIONING" else 29990)]
        async with World.open(short_path, None, *rows) as world:
            await world.until(lambda: world.tasks("RUNNING"), "it is RUNNING")

            assert len(world.machine.ran) == 1

    asyncio.run(main())


def test_a_restart_adopts_what_lives_and_replaces_what_is_lost(short_path):
    async def main():
        machine = Machine()
        async with World.open(short_path, machine, task_definition(), service(desired=3)) as world:
            await world.until(lambda: world.service().steady, "the service is steady")
            lost = world.tasks()[0]
            kept = {row.id for row in world.tasks()} - {lost.id}
        del machine.running[lost.id]

        async with World.open(short_path, machine) as world:
            await world.until(
                lambda: len(world.tasks("RUNNING")) == 3 and world.service().steady, "three run again"
            )

            gone = world.store.state.get(Task, *lost.key)
            assert (gone.last_status, gone.stop_code) == ("STOPPED", "InfrastructureHealth")
            assert kept < {row.id for row in world.tasks("RUNNING")}
            assert len(machine.ran) == 4, "nothing was doubled"

    asyncio.run(main())


def test_a_stop_that_the_crash_cut_short_is_continued(short_path):
    async def main():
        machine = Machine()
        async with World.open(short_path, machine, task_definition(), task(status="PROVISIONING")) as world:
            running = (await world.until(lambda: world.tasks("RUNNING"), "it is RUNNING"))[0]
            await world.controller.close()
            await world.put(lifecycle.request_stop(running, "UserInitiated", "enough", time.time()))

        async with World.open(short_path, machine) as world:
            gone = (await world.until(lambda: world.tasks("STOPPED"), "it has stopped"))[0]

            assert gone.stopped_reason == "enough"
            assert machine.stopped == [running.id]

    asyncio.run(main())


def test_a_stop_before_the_start_needs_no_runtime(short_path):
    async def main():
        async with World.open(short_path, None, task_definition(), taken_up=False) as world:
            asked = lifecycle.request_stop(task(status="PROVISIONING"), "UserInitiated", "no", time.time())
            await world.put(asked)
            await world.controller.open()
            await world.until(lambda: world.tasks("STOPPED"), "it has stopped")

            assert world.machine.ran == []
            assert world.machine.stopped == []

    asyncio.run(main())


def test_a_planned_stop_waits_until_the_agent_has_let_go(short_path):
    """DEACTIVATING until `seen` and `drained`; only then the stop signal."""

    async def main():
        async with World.open(short_path, None, task_definition(), task(status="PROVISIONING")) as world:
            running = (await world.until(lambda: world.tasks("RUNNING"), "it is RUNNING"))[0]
            world.controller._flows._knobs = Knobs(drain=60.0)
            follower = world.hub.follow(agent=True)
            await world.put(lifecycle.request_stop(running, "UserInitiated", "r", time.time()))
            await world.until(lambda: world.tasks("DEACTIVATING"), "it is DEACTIVATING")
            snapshot = msgspec.json.decode(await follower.next())
            port = snapshot["targets"][0]["tasks"][0]["ports"][0]
            assert port["draining"]
            assert world.machine.stopped == []

            world.hub.seen(snapshot["version"])
            await asyncio.sleep(0)
            assert world.tasks("DEACTIVATING")
            world.hub.drained(running.id)
            await world.until(lambda: world.tasks("STOPPED"), "it has stopped")
            world.hub.leave(follower)

    asyncio.run(main())


def test_an_agent_that_says_nothing_delays_a_stop_by_the_limits_only(short_path):
    async def main():
        async with World.open(short_path, None, task_definition(), task(status="PROVISIONING")) as world:
            running = (await world.until(lambda: world.tasks("RUNNING"), "it is RUNNING"))[0]
            world.hub.follow(agent=True)
            began = time.monotonic()
            await world.put(lifecycle.request_stop(running, "UserInitiated", "r", time.time()))
            await world.until(lambda: world.tasks("STOPPED"), "it has stopped")

            assert 1.2 < time.monotonic() - began < 5

    asyncio.run(main())


def test_a_private_task_is_stopped_without_asking_the_agent(short_path):
    async def main():
        rows = [task_definition(), service(network=PRIVATE)]
        async with World.open(short_path, None, *rows) as world:
            await world.until(lambda: world.service().steady, "the service is steady")
            world.hub.follow(agent=True)
            began = time.monotonic()
            await world.change(Service, WEB, desired_count=0)
            await world.until(lambda: world.tasks("STOPPED"), "it has stopped")

            assert time.monotonic() - began < 1.0

    asyncio.run(main())


def test_stop_all_tasks_ends_them_and_the_next_start_begins_again(short_path):
    async def main():
        machine = Machine()
        rows = [task_definition(), service(desired=2), task(status="PROVISIONING")]
        async with World.open(short_path, machine, *rows) as world:
            await world.until(lambda: len(world.tasks("RUNNING")) == 3, "three tasks run")
            progress = [each async for each in world.controller.stop_all_tasks("because")]

            assert progress[-1] == (3, 3)
            assert {row.stopped_reason for row in world.tasks()} == {"because"}
            assert machine.running == {}

        async with World.open(short_path, machine) as world:
            await world.until(lambda: len(world.tasks("RUNNING")) == 2, "the service runs again")

            assert {row.service for row in world.tasks("RUNNING")} == {"web"}
            assert world.service().deployments[0].failed_tasks == 0

    asyncio.run(main())


def test_a_task_that_does_not_listen_runs_after_the_time_limit(short_path):
    async def main():
        machine = Machine(listens=False)
        async with World.open(short_path, machine, task_definition(), taken_up=False) as world:
            world.controller._knobs = Knobs(healthy_after=0.0, ready_timeout=0.2)
            await world.controller.open()
            await world.put(task(status="PROVISIONING"))
            await world.until(lambda: world.tasks("ACTIVATING"), "it starts")
            running = (await world.until(lambda: world.tasks("RUNNING"), "it counts as running"))[0]

            assert not running.ports[0].ready
            assert running.containers[0].listening == [3000]

    asyncio.run(main())


def test_containers_without_ports_of_a_task_definition_need_none(short_path):
    async def main():
        definition = task_definition(containers=[container_definition(portMappings=[])])
        rows = [definition, task(status="PROVISIONING", ports=[])]
        async with World.open(short_path, None, *rows) as world:
            await world.until(lambda: world.tasks("RUNNING"), "it is RUNNING")

            assert world.store.state.scan(LocalPort) == []

    asyncio.run(main())


def test_what_is_seen_of_an_unknown_task_changes_nothing(short_path):
    async def main():
        async with World.open(short_path, None, task_definition(), task(status="PROVISIONING")) as world:
            world.runtime.say(TaskObserved(task_id="f" * 32, ended=True))
            await world.until(lambda: world.tasks("RUNNING"), "the known one is RUNNING")

    asyncio.run(main())


def test_a_task_that_finds_its_host_port_taken_is_not_made_and_an_event_says_so(short_path):
    async def main():
        mapping = {"containerPort": 80, "hostPort": 8080, "protocol": "tcp"}
        container = container_definition(portMappings=[mapping])
        definition = task_definition(containers=[container], networkMode="bridge")
        rows = [definition, service(desired=2, network=None)]
        async with World.open(short_path, None, *rows) as world:
            await world.until(lambda: world.tasks("RUNNING"), "one is RUNNING")
            await world.until(
                lambda: [each for each in world.service().events if "unable to place" in each.message],
                "the event is there",
            )

            assert [row.ports[0].host_port for row in world.tasks()] == [8080]
            assert world.store.state.scan(LocalPort) == []

    asyncio.run(main())


def test_a_worker_that_ends_is_noticed(short_path):
    """A control plane without its planner would only look alive."""

    async def main():
        async with World.open(short_path, None, task_definition()) as world:
            assert not world.controller.failed.is_set()
            world.controller._dirty = None
            world.controller._news.set()
            await asyncio.wait_for(world.controller.failed.wait(), 5)

    asyncio.run(main())


def test_a_stop_that_cannot_be_committed_leaves_everything_as_it_was(short_path, monkeypatch):
    async def main():
        machine = Machine()
        async with World.open(short_path, machine, task_definition(), service()) as world:
            await world.until(lambda: world.service().steady, "the service is steady")

            async def full(fn):
                raise KecsError("no space left")

            with monkeypatch.context() as disk:
                disk.setattr(world.store, "transact", full)
                with pytest.raises(KecsError, match="no space"):
                    async for _ in world.controller.stop_all_tasks("r"):
                        pass
            await world.change(Service, WEB, desired_count=2)
            await world.until(lambda: len(world.tasks("RUNNING")) == 2, "it still scales")

    asyncio.run(main())


def test_a_full_disk_delays_and_loses_nothing(short_path, monkeypatch):
    """What cannot be committed is tried again: plans, steps of tasks, and what was seen."""
    monkeypatch.setattr(controller, "RETRY_AFTER", 0.02)
    monkeypatch.setattr(observations, "RETRY_AFTER", 0.02)
    monkeypatch.setattr(task_flow, "RETRY_AFTER", (0.02,))

    async def main():
        dice = random.Random(1)
        async with World.open(short_path, None, task_definition(), taken_up=False) as world:
            await world.controller.open()
            commit = world.store.transact

            async def unlucky(fn):
                if dice.random() < 0.6:
                    raise KecsError("no space left")
                return await commit(fn)

            with monkeypatch.context() as disk:
                disk.setattr(world.store, "transact", unlucky)
                await commit(lambda tx: tx.put(service(desired=3)))
                await world.until(lambda: len(world.tasks("RUNNING")) == 3, "three tasks run", 20)
            await world.until(lambda: world.service().steady, "the service is steady", 20)

            assert len(world.tasks()) == 3
            assert len(world.machine.ran) == 3

    asyncio.run(main())
