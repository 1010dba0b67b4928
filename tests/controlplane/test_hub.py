"""The hub: versions, followers, and the wait until the agent has let go."""

import asyncio
import time

import msgspec
import pytest
from tests.controlplane.world import REGION, service, state_of, task, task_definition

from kecs.controlplane import hub as hubs
from kecs.controlplane.hub import Hub
from kecs.ecs.model import Service, Task


def lines(data):
    return [msgspec.json.decode(line) for line in data.splitlines()]


def rows(*members):
    return state_of(task_definition(), *members)


def test_a_follower_gets_a_snapshot_and_then_the_changes():
    async def main():
        web, other = service(), service("other")
        hub = Hub(rows(web))
        follower = hub.follow(agent=False)
        (first,) = lines(await follower.next())
        assert (first["type"], first["version"]) == ("snapshot", 1)
        assert [target["service"] for target in first["targets"]] == ["web"]

        hub.apply(rows(web, other), {(Service, other.key): (None, other)})
        hub.apply(rows(other), {(Service, web.key): (web, None)})
        added, removed = lines(await follower.next())

        assert (added["type"], added["version"]) == ("change", 2)
        assert [target["service"] for target in added["targets"]] == ["other"]
        assert removed["removed"] == [[REGION, "default", "web", None]]
        assert removed["version"] == 3

    asyncio.run(main())


def test_a_commit_that_changes_no_endpoint_makes_no_version():
    async def main():
        web = service()
        hub = Hub(rows(web))
        hub.apply(rows(web), {(Service, web.key): (web, web)})

        assert hub.version == 1

    asyncio.run(main())


def test_a_follower_that_falls_behind_gets_a_new_snapshot():
    async def main():
        web = service()
        hub = Hub(rows(web))
        follower = hub.follow(agent=False)
        await follower.next()
        for count in range(hubs.MAX_BEHIND + 5):
            one = task(service="web", tags={"n": str(count)})
            hub.apply(rows(web, one), {(Task, one.key): (None, one)})
        (only,) = lines(await follower.next())

        assert (only["type"], only["version"]) == ("snapshot", hub.version)

    asyncio.run(main())


def test_silence_is_broken_by_a_ping(monkeypatch):
    monkeypatch.setattr(hubs, "PING_EVERY", 0.01)

    async def main():
        hub = Hub(rows())
        follower = hub.follow(agent=False)
        await follower.next()

        assert lines(await follower.next()) == [{"type": "ping", "version": 1, "targets": [], "removed": []}]

    asyncio.run(main())


def test_close_ends_the_streams():
    async def main():
        hub = Hub(rows())
        follower = hub.follow(agent=False)
        await follower.next()
        waiting = asyncio.get_running_loop().create_task(follower.next())
        await asyncio.sleep(0)
        hub.close()

        assert await waiting == b""
        assert await follower.next() == b""

    asyncio.run(main())


def test_without_an_agent_nothing_is_waited_for():
    async def main():
        hub = Hub(rows())
        hub.open(agent_due=0.0)
        hub.follow(agent=False)
        began = time.monotonic()
        await hub.out_of_forwards("t", 60)

        assert time.monotonic() - began < 0.2

    asyncio.run(main())


def test_after_a_restart_the_agent_is_given_time_to_come_back():
    async def main():
        hub = Hub(rows())
        hub.open(agent_due=asyncio.get_running_loop().time() + 60)
        waiting = asyncio.get_running_loop().create_task(hub.out_of_forwards("t", 60))
        await asyncio.sleep(0)
        assert not waiting.done()
        follower = hub.follow(agent=True)
        hub.seen(1)
        hub.drained("t")
        await waiting
        hub.leave(follower)

    asyncio.run(main())


def test_seen_and_drained_are_both_needed():
    async def main():
        hub = Hub(rows())
        hub.follow(agent=True)
        waiting = asyncio.get_running_loop().create_task(hub.out_of_forwards("t", 60))
        await asyncio.sleep(0)
        hub.drained("t")
        await asyncio.sleep(0)
        assert not waiting.done()
        hub.seen(1)
        await waiting

    asyncio.run(main())


def test_a_version_that_never_was_is_not_believed():
    async def main():
        hub = Hub(rows())
        follower = hub.follow(agent=True)
        hub.seen(99)
        hub.drained("t")
        waiting = asyncio.get_running_loop().create_task(hub.out_of_forwards("t", 60))
        await asyncio.sleep(0)
        assert not waiting.done()
        hub.leave(follower)
        await waiting

    asyncio.run(main())


def test_an_agent_that_dies_ends_the_wait():
    async def main():
        hub = Hub(rows())
        follower = hub.follow(agent=True)
        waiting = asyncio.get_running_loop().create_task(hub.out_of_forwards("t", 60))
        await asyncio.sleep(0)
        hub.leave(follower)
        await waiting

    asyncio.run(main())


@pytest.mark.parametrize("longest", [0.0, 0.05])
def test_a_connection_that_stays_open_delays_the_stop_by_the_limit_only(longest):
    async def main():
        hub = Hub(rows())
        hub.follow(agent=True)
        hub.seen(1)
        await asyncio.wait_for(hub.out_of_forwards("t", longest), 5)

    asyncio.run(main())


def test_connecting_and_leaving_of_the_agent_is_told_once():
    async def main():
        hub = Hub(rows())
        told = []
        hub.on_agent = told.append
        first, second = hub.follow(agent=True), hub.follow(agent=True)
        hub.leave(first)
        assert told == [True]
        hub.leave(second)
        assert told == [True, False]
        hub.leave(hub.follow(agent=False))
        assert told == [True, False]

    asyncio.run(main())
