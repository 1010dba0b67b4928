"""The agent is brought back when it is missed, and only then."""

import asyncio

from tests.controlplane.world import state_of

from kecs.client.admin_types import PeerStatus
from kecs.controlplane import agent_watch
from kecs.controlplane.agent_watch import AgentWatch
from kecs.controlplane.hub import Hub


class FakeSupervisor:
    def __init__(self):
        self.state = PeerStatus(state="absent")
        self.calls = 0
        self.on_lost = lambda: True
        self.called = asyncio.Event()

    async def lost(self):
        self.calls += 1
        self.called.set()
        await asyncio.sleep(0)
        return self.on_lost()


async def started(monkeypatch, wanted=True):
    monkeypatch.setattr(agent_watch, "FIRST_CHANCE", 0.02)
    monkeypatch.setattr(agent_watch, "CONNECTS_WITHIN", 0.02)
    hub, supervisor = Hub(state_of()), FakeSupervisor()
    watch = AgentWatch(hub, supervisor, lambda: wanted, lambda: True)
    running = asyncio.get_running_loop().create_task(watch.run())
    hub.open(agent_due=0.0)
    return hub, supervisor, watch, running


async def settle():
    for _ in range(5):
        await asyncio.sleep(0.01)


def test_an_agent_that_is_lost_is_launched(monkeypatch):
    async def main():
        hub, supervisor, watch, running = await started(monkeypatch)
        follower = hub.follow(agent=True)
        await settle()
        assert supervisor.calls == 0
        assert watch.status().state == "connected"

        hub.leave(follower)
        assert watch.status().state == "starting"
        await asyncio.wait_for(supervisor.called.wait(), 5)
        running.cancel()

    asyncio.run(main())


def test_an_agent_that_is_wanted_and_never_came_is_launched(monkeypatch):
    async def main():
        _, supervisor, _, running = await started(monkeypatch)
        await asyncio.wait_for(supervisor.called.wait(), 5)
        running.cancel()

    asyncio.run(main())


def test_an_agent_that_does_not_connect_is_launched_again(monkeypatch):
    async def main():
        hub, supervisor, watch, running = await started(monkeypatch)
        async with asyncio.timeout(5):
            while supervisor.calls < 3:
                await asyncio.sleep(0.01)
        supervisor.state = PeerStatus(state="BACKOFF", detail="why")
        assert watch.status().detail == "why"
        hub.follow(agent=True)
        await settle()
        calls = supervisor.calls
        await settle()
        assert supervisor.calls == calls
        running.cancel()

    asyncio.run(main())


def test_an_agent_that_nobody_needs_is_left_alone(monkeypatch):
    async def main():
        hub, supervisor, watch, running = await started(monkeypatch, wanted=False)
        hub.leave(hub.follow(agent=True))
        await settle()

        assert supervisor.calls == 0
        assert watch.status().state == "absent"
        running.cancel()

    asyncio.run(main())


def test_an_agent_is_launched_once_tasks_are_told_of_a_port_on_which_it_listens():
    async def main():
        told = False
        hub, supervisor = Hub(state_of()), FakeSupervisor()
        watch = AgentWatch(hub, supervisor, lambda: told, lambda: False, lambda: told)
        running = asyncio.get_running_loop().create_task(watch.run())
        hub.open(agent_due=0.0)
        watch.on_commit({})
        await settle()
        assert supervisor.calls == 0
        told = True
        watch.on_commit({})
        await asyncio.wait_for(supervisor.called.wait(), 5)
        running.cancel()

    asyncio.run(main())


def test_an_agent_that_went_when_nobody_needed_it_is_launched_for_the_next_who_is_told():
    async def main():
        told = True
        hub, supervisor = Hub(state_of()), FakeSupervisor()
        watch = AgentWatch(hub, supervisor, lambda: told, lambda: False, lambda: told)
        running = asyncio.get_running_loop().create_task(watch.run())
        hub.open(agent_due=0.0)
        watch.on_commit({})
        follower = hub.follow(agent=True)
        await settle()
        told = False
        watch.on_commit({})
        hub.leave(follower)
        await settle()
        supervisor.called.clear()
        told = True
        watch.on_commit({})
        await asyncio.wait_for(supervisor.called.wait(), 5)
        running.cancel()

    asyncio.run(main())
