"""Tunnels are opened before the first client comes, again when lost, and given up when nobody needs them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from kecs import aio
from kecs.agent import tunnels
from kecs.agent.tunnels import MOST, Tunnels, in_a_thread
from kecs.errors import KecsError
from kecs.forward.backoff import Backoff
from kecs.net.messages import CarrierLost, Carry, Congested, Retire


class FakeSocket:
    def __init__(self):
        self.closed = threading.Event()

    def close(self):
        self.closed.set()


class FakeCarrier:
    def __init__(self, name):
        self.name = name
        self.sock = FakeSocket()


class Stage:
    """Tunnels whose opening is scripted, and what they tell the relay loop."""

    def __init__(self):
        self.sent = []
        self.asked = []
        self.told = []
        self.failures = []
        """Raised by the next tries to open one."""
        self.gate = threading.Event()
        self.gate.set()
        self.tunnels = Tunnels(self, self.open, lambda forwards: self.told.append(sorted(forwards)))

    def send(self, message):
        self.sent.append(message)

    def open(self, namespace, pod):
        self.asked.append(f"{namespace}/{pod}")
        self.gate.wait(10)
        if self.failures:
            raise self.failures.pop(0)
        return FakeCarrier(f"{namespace}/{pod}")

    def carried(self):
        return [message.name for message in self.sent if isinstance(message, Carry)]

    def retired(self):
        return [message.name for message in self.sent if isinstance(message, Retire)]

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)


@pytest.fixture
def play(monkeypatch):
    def run(scene):
        async def act():
            stage = Stage()
            try:
                await scene(stage)
            finally:
                stage.gate.set()
                await stage.tunnels.close()

        asyncio.run(act())

    return run


def test_one_is_opened_for_each_pod_however_many_forwards_lead_there(play):
    async def scene(stage):
        stage.tunnels.want("pf-1", {"ns/a", "ns/b"})
        stage.tunnels.want("pf-2", {"ns/a"})
        await stage.until(lambda: len(stage.carried()) == 2)
        assert sorted(stage.carried()) == ["ns/a", "ns/b"]

    play(scene)


def test_it_is_given_up_with_the_last_forward_that_needs_it(play):
    async def scene(stage):
        stage.tunnels.want("pf-1", {"ns/a"})
        stage.tunnels.want("pf-2", {"ns/a"})
        await stage.until(stage.carried)
        stage.tunnels.want("pf-1", ())
        assert stage.retired() == []
        stage.tunnels.want("pf-2", {"ns/b"})
        assert stage.retired() == ["ns/a"]

    play(scene)


def test_a_lost_one_is_opened_again_at_once_unless_others_are_left(play):
    async def scene(stage):
        stage.tunnels.want("pf-1", {"ns/a"})
        await stage.until(stage.carried)
        stage.tunnels.lost(CarrierLost("ns/a", "it broke", 1))
        stage.tunnels.lost(CarrierLost("ns/other", "it broke", 0))
        stage.tunnels.lost(CarrierLost("ns/a", "it broke", 0))
        await stage.until(lambda: len(stage.carried()) == 2)
        assert stage.asked == ["ns/a", "ns/a"]

    play(scene)


def test_one_is_open_from_its_opening_until_the_last_of_a_pod_is_lost(play):
    async def scene(stage):
        assert not stage.tunnels.is_open("ns/a")
        stage.gate.clear()
        stage.tunnels.want("pf-1", {"ns/a"})
        assert not stage.tunnels.is_open("ns/a")
        stage.gate.set()
        await stage.until(stage.carried)
        assert stage.tunnels.is_open("ns/a")
        stage.tunnels.lost(CarrierLost("ns/a", "it broke", 1))
        assert stage.tunnels.is_open("ns/a")
        stage.tunnels.lost(CarrierLost("ns/a", "it broke", 0))
        assert not stage.tunnels.is_open("ns/a")
        await stage.until(lambda: stage.tunnels.is_open("ns/a"))

    play(scene)


def test_a_congested_one_gets_another_beside_it_but_not_without_end(play):
    async def scene(stage):
        stage.tunnels.want("pf-1", {"ns/a"})
        await stage.until(stage.carried)
        stage.tunnels.congested(Congested("ns/a", 1))
        await stage.until(lambda: len(stage.carried()) == 2)
        stage.tunnels.congested(Congested("ns/a", MOST))
        stage.tunnels.want("pf-1", {"ns/a", "ns/b"})
        await stage.until(lambda: "ns/b" in stage.carried())
        assert stage.carried() == ["ns/a", "ns/a", "ns/b"]

    play(scene)


def test_what_is_wrong_is_known_until_it_works(play):
    async def scene(stage):
        stage.failures = [KecsError("forbidden"), KecsError("forbidden"), OSError("no route")]
        stage.tunnels.want("pf-1", {"ns/a"})
        await stage.until(lambda: stage.tunnels.error("ns/a") == "forbidden")
        await stage.until(lambda: stage.tunnels.error("ns/a") == "no route")
        await stage.until(stage.carried)
        await stage.until(lambda: stage.tunnels.error("ns/a") is None)
        assert stage.told == [["pf-1"]] * 3
        assert stage.tunnels.error("ns/unknown") is None

    play(scene)


def test_after_a_sleep_nothing_waits_for_its_next_try(play, monkeypatch):
    monkeypatch.setattr(tunnels, "AGAIN", Backoff(first=3600.0, cap=3600.0))

    async def scene(stage):
        stage.failures = [OSError("no route")]
        stage.tunnels.want("pf-1", {"ns/a"})
        await stage.until(lambda: stage.tunnels.error("ns/a"))
        await asyncio.sleep(0)
        stage.tunnels.hurry()
        await stage.until(stage.carried)

    play(scene)


def test_not_more_than_a_few_are_opened_at_once(play, monkeypatch):
    monkeypatch.setattr(tunnels, "AT_ONCE", 3)

    async def scene(stage):
        stage.gate.clear()
        names = {f"ns/{number}" for number in range(10)}
        stage.tunnels.want("pf-1", names)
        await stage.until(lambda: len(stage.asked) == 3)
        await asyncio.sleep(0)
        assert len(stage.asked) == 3
        stage.gate.set()
        await stage.until(lambda: set(stage.carried()) == names)

    play(scene)


def test_one_that_comes_too_late_is_closed(play):
    async def scene(stage):
        stage.gate.clear()
        made = []

        def work():
            stage.gate.wait(10)
            made.append(FakeCarrier("late"))
            return made[0]

        waiting = aio.create_task(in_a_thread(work, lambda carrier: carrier.sock.close()), name="open")
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        stage.gate.set()
        await stage.until(lambda: made and made[0].sock.closed.is_set())

    play(scene)


def test_after_the_end_nothing_is_opened(play):
    async def scene(stage):
        await stage.tunnels.close()
        stage.tunnels.want("pf-1", {"ns/a"})
        assert stage.asked == []

    play(scene)
