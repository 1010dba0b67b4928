"""When the other daemon is brought back, in a time that only the test moves."""

from __future__ import annotations

import asyncio

import pytest

from kecs.client.supervise import Supervisor, delay_after
from kecs.errors import KecsError


class World:
    """A clock, and a daemon that can be launched, die, or fail to start."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.launched: list[float] = []
        self.fails: KecsError | None = None
        self.up_at = float("inf")

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    def launch(self, _daemon, _paths) -> None:
        self.launched.append(self.now)
        if self.fails is not None:
            raise self.fails

    def supervisor(self, home, daemon="controlplane") -> Supervisor:
        return Supervisor(
            home.paths,
            daemon,
            launch=self.launch,
            up=lambda _path: self.now >= self.up_at,
            clock=lambda: self.now,
            sleep=self.sleep,
        )


@pytest.fixture
def world():
    return World()


@pytest.fixture
def running(home):
    home.instance()
    return home


def test_the_first_loss_is_answered_at_once(running, world):
    async def scenario() -> None:
        supervisor = world.supervisor(running)
        assert await supervisor.lost() is True
        assert supervisor.state.state == "connected"

    asyncio.run(scenario())
    assert world.launched == [1000.0]


def test_after_three_early_deaths_the_delay_doubles_up_to_half_a_minute(running, world):
    async def scenario() -> None:
        supervisor = world.supervisor(running)
        for _ in range(12):
            await supervisor.lost()
            world.now += 1.0

    asyncio.run(scenario())
    gaps = [round(b - a - 1.0, 6) for a, b in zip(world.launched, world.launched[1:], strict=False)]
    assert gaps == [0, 0, 1, 2, 4, 8, 16, 30, 30, 30, 30]


def test_a_daemon_that_lived_ten_seconds_begins_anew(running, world):
    async def scenario() -> None:
        supervisor = world.supervisor(running)
        for lived in (1, 1, 1, 10, 1, 1):
            await supervisor.lost()
            world.now += lived

    asyncio.run(scenario())
    gaps = [b - a for a, b in zip(world.launched, world.launched[1:], strict=False)]
    assert gaps == [1, 1, 1 + 1, 10, 1]


def test_backoff_is_shown_with_the_reason_while_it_waits(running, world):
    world.fails = KecsError("port 5373 is taken")
    seen: list[tuple[str, str | None]] = []

    async def scenario() -> None:
        supervisor = world.supervisor(running)
        assert await supervisor.lost() is False
        seen.append((supervisor.state.state, supervisor.state.detail))
        again = asyncio.get_running_loop().create_task(supervisor.lost())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen.append((supervisor.state.state, supervisor.state.detail))
        await again

    asyncio.run(scenario())
    assert seen == [("BACKOFF", "port 5373 is taken")] * 2
    assert world.launched == [1000.0, 1001.0]


def test_a_start_that_fails_is_delayed_more_each_time(running, world):
    world.fails = KecsError("no")

    async def scenario() -> None:
        supervisor = world.supervisor(running)
        for _ in range(4):
            await supervisor.lost()

    asyncio.run(scenario())
    assert world.launched == [1000.0, 1001.0, 1003.0, 1007.0]


def test_nobody_is_launched_for_a_stopped_instance(home, world):
    home.instance(desired="stopped")

    async def scenario() -> None:
        supervisor = world.supervisor(home)
        assert await supervisor.lost() is False
        assert supervisor.state.state == "absent"

    asyncio.run(scenario())
    assert world.launched == []
    assert world.now > 1000.0, "a caller that asks in a loop must not spin"


@pytest.mark.parametrize(("daemon", "launched"), [("agent", 0), ("controlplane", 1)])
def test_an_agent_that_was_stopped_by_hand_stays_away(home, world, daemon, launched):
    home.instance(agent="stopped")
    asyncio.run(world.supervisor(home, daemon).lost())
    assert len(world.launched) == launched


def test_a_stop_during_the_delay_is_heard(running, world):
    async def scenario() -> None:
        supervisor = world.supervisor(running)
        for _ in range(3):
            await supervisor.lost()
            world.now += 1
        running.instance(desired="stopped")
        assert await supervisor.lost() is False

    asyncio.run(scenario())
    assert len(world.launched) == 3


def test_a_daemon_that_somebody_else_brought_back_ends_the_delay(running, world):
    world.fails = KecsError("no")

    async def scenario() -> None:
        supervisor = world.supervisor(running)
        for _ in range(4):
            await supervisor.lost()
        world.up_at = world.now + 3.0
        assert await supervisor.lost() is True
        assert supervisor.state.state == "connected"

    asyncio.run(scenario())
    assert len(world.launched) == 4
    assert world.now == world.up_at


def test_a_broken_instance_file_launches_nobody(running, world):
    running.paths.instance_file.write_text("{broken")
    assert asyncio.run(world.supervisor(running).lost()) is False
    assert world.launched == []


def test_two_that_saw_the_same_loss_launch_once(running, world):
    async def scenario() -> None:
        supervisor = world.supervisor(running)

        def launch(*_args) -> None:
            world.now += 1.0
            world.launched.append(world.now)

        supervisor._launch = launch
        assert await asyncio.gather(supervisor.lost(), supervisor.lost()) == [True, True]

    asyncio.run(scenario())
    assert len(world.launched) == 1


@pytest.mark.parametrize(("deaths", "delay"), [(0, 0), (2, 0), (3, 1), (4, 2), (7, 16), (8, 30), (1000, 30)])
def test_delays(deaths, delay):
    assert delay_after(deaths) == delay
