"""When a bulk direction is served with rests, and when the loop does rest."""

from __future__ import annotations

import threading
import time

import pytest
from tests.net.peers import connect, rests, until

from kecs.net import bulk, lull
from kecs.net import loop as loops
from kecs.net.loop import RelayLoop
from kecs.net.lull import AGAIN, WINDOW, Flow
from kecs.net.poller import IN, OUT

MEGABYTE = 1 << 20
FAST = 100e6


class Stream:
    """A flow that moves at a rate of its own choice, window after window."""

    def __init__(self) -> None:
        self.now = 5.0
        self.flow = Flow(self.now, FAST)

    def windows(self, rate: float, count: int = 1) -> bool:
        """Move so many bytes a second for some windows, in ten parts each; tell whether it is with rests."""
        for _ in range(count * 10):
            self.now += WINDOW / 9.99
            self.flow.moved(int(rate * WINDOW / 9.99), self.now)
        return self.flow.resting


def test_a_fast_stream_gets_rests_after_its_first_window():
    stream = Stream()
    assert not stream.flow.resting
    assert stream.windows(FAST * 2)


def test_a_slow_stream_never_gets_rests():
    assert not Stream().windows(FAST * 0.9, 100)


def test_a_stream_keeps_its_rests_while_they_cost_it_little():
    stream = Stream()
    stream.windows(10 * FAST)
    assert stream.windows(8 * FAST, 50)


def test_a_stream_that_gets_slower_by_rests_has_none_and_tries_them_again_later():
    """One whose sender waits for an answer to each part halves its rate by them."""
    stream = Stream()
    assert stream.windows(10 * FAST)
    assert not stream.windows(5 * FAST)
    assert not stream.windows(10 * FAST, AGAIN)
    assert stream.windows(10 * FAST)


def test_a_pause_is_no_speed():
    """The time in which nothing came counts, so what begins anew is measured anew."""
    stream = Stream()
    stream.now += 60
    stream.flow.moved(MEGABYTE, stream.now)
    assert not stream.flow.resting


def test_several_streams_rest_longer_within_a_bound():
    assert lull.together([0.0002]) == 0.0002
    assert lull.together([0.0002, 0.0005]) == pytest.approx(0.0007)
    assert lull.together([0.0002] * 100) == lull.LONGEST


class Watched:
    """Stands behind a descriptor."""

    fd = -1

    def on_event(self, mask: int) -> None:
        """Do nothing."""

    def resume(self) -> None:
        """Do nothing."""

    def fail(self, error: Exception) -> None:
        """Do nothing."""


@pytest.fixture
def idle_loop(monkeypatch):
    """A loop whose thread does not run, and the rests that it took."""
    slept: list[float] = []
    monkeypatch.setattr(loops.time, "sleep", slept.append)
    loop = RelayLoop(lambda _message: None)
    yield loop, slept
    loop._close_all()


@pytest.mark.parametrize(
    ("events", "others", "rested"),
    [
        pytest.param([(1001, IN)], 0, True, id="a stream alone"),
        pytest.param([(1001, IN), (1002, OUT)], 0, True, id="and a socket that takes more"),
        pytest.param([(1001, IN), (1002, IN)], 0, False, id="and somebody with something to say"),
        pytest.param([(1001, IN)], 1, False, id="and something to be done"),
    ],
)
def test_the_loop_rests_only_when_nobody_else_has_anything_to_say_or_to_do(idle_loop, events, others, rested):
    loop, slept = idle_loop
    stream = Watched()
    loop.ends.update({1001: stream, 1002: Watched()})
    loop._events = events
    loop.chores = [lambda: None] * others
    loop.may_rest[stream] = 0.0003
    loop._rest()
    del loop.ends[1001], loop.ends[1002]

    assert slept == ([0.0003] if rested else [])
    assert not loop.may_rest


@pytest.mark.skipif(not bulk.AVAILABLE, reason="no splice here")
def test_bulk_with_rests_arrives_whole_and_others_are_answered_meanwhile(relay, upstream, monkeypatch):
    taken = rests(monkeypatch)
    monkeypatch.setattr(bulk, "FAST", 1.0)
    monkeypatch.setattr(bulk, "PORTION", bulk.CAPACITY)  # nearly whatever came, more is worth waiting for
    port = relay.forward(upstream.endpoint())
    block = bytes(range(256)) * 4096
    sent: list[int] = []
    enough = time.monotonic() + 30
    with connect(port) as client, upstream.accept() as server:

        def say() -> None:
            while len(sent) < 128 or not (taken or time.monotonic() > enough):
                server.sendall(block)
                sent.append(len(block))
            server.close()

        sender = threading.Thread(target=say)
        sender.start()
        with connect(port) as other, upstream.accept() as echo, client.makefile("rb") as stream:
            got, blocks, asked = bytearray(len(block)), 0, 0
            while stream.readinto(got):
                assert got == block
                blocks += 1
                if blocks % 32 == 0:
                    asked += 1
                    other.sendall(b"ask")
                    assert echo.recv(3) == b"ask"
                    echo.sendall(b"yes")
                    assert other.recv(3) == b"yes"
        sender.join()

        assert blocks == len(sent)
        assert asked == blocks // 32
        assert taken
    until(lambda: relay.counters().open == 0)
