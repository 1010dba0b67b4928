"""The loop itself: messages in order, failures that stay where they belong, its end, its cost at rest."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time

import pytest
from tests.net.peers import Relay, connect, read, read_all, until, was_reset

from kecs.net import listener, poller
from kecs.net.loop import NARROW, PUT_OFF, WIDE, RelayLoop
from kecs.net.messages import (
    Barrier,
    Died,
    Ended,
    HoldLimits,
    Listen,
    Opened,
    Query,
    Seen,
    Snapshot,
    Stats,
    Watch,
)
from kecs.net.relay import End


def test_seen_is_said_in_order_when_all_before_it_is_in_effect(relay, upstream):
    sockets = listener.bind(["127.0.0.1"], 0)
    relay.loop.send(Barrier(101))
    relay.loop.send(Listen("f", sockets))
    relay.loop.send(Query(7))
    relay.loop.send(Barrier(102))
    relay.loop.send(Snapshot("f", 1, (upstream.endpoint("a", draining=True),)))
    relay.loop.send(Barrier(103))
    relay.wait(Seen, version=103)

    kinds = [m.version if isinstance(m, Seen) else type(m).__name__ for m in relay.messages]
    assert kinds == [101, "Stats", 102, "Drained", 103]
    assert set(relay.of(Stats)[0].forwards) == {"f"}


def test_messages_of_many_threads_all_arrive(relay):
    threads = [
        threading.Thread(target=lambda base=base: [relay.loop.send(Barrier(base + i)) for i in range(200)])
        for base in range(1000, 5000, 1000)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    until(lambda: len(relay.of(Seen)) == 800)
    for base in range(1000, 5000, 1000):
        assert [m.version for m in relay.of(Seen) if base <= m.version < base + 1000] == list(
            range(base, base + 200)
        )


def test_counters_tell_connections_and_bytes(relay, upstream):
    port = relay.forward(upstream.endpoint("a"))
    with connect(port) as client, upstream.accept() as server:
        client.sendall(b"12345")
        assert read(server, 5) == b"12345"
        server.sendall(b"123")
        assert read(client, 3) == b"123"
        now = relay.counters()
        assert (now.open, now.total, now.held, now.received, now.sent) == (1, 1, 0, 5, 3)
        assert now.by_endpoint == (("a", 1),)
    until(lambda: relay.counters().open == 0)

    after = relay.counters()
    assert (after.total, after.received, after.sent, after.by_endpoint) == (1, 5, 3, (("a", 0),))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_watched_forward_tells_of_each_connection(relay, upstream, host):
    port = relay.forward(upstream.endpoint(), addresses=[host])
    with connect(port, host), upstream.accept():
        until(lambda: relay.counters().open == 1)
        relay.loop.send(Watch("f", on=True))
        relay.settle()
        with connect(port, host) as client, upstream.accept() as server:
            opened = relay.wait(Opened, number=2)
            own = client.getsockname()
            assert opened.peer == (f"[::1]:{own[1]}" if ":" in host else f"127.0.0.1:{own[1]}")
            client.sendall(b"abc")
            assert read(server, 3) == b"abc"
        ended = relay.wait(Ended, number=2)
        assert (ended.why, ended.received, ended.sent) == ("closed", 3, 0)
        assert 0 <= ended.seconds < 10
        relay.loop.send(Watch("f", on=False))
        relay.settle()
    until(lambda: relay.counters().open == 0)

    assert [m.number for m in relay.of(Opened) + relay.of(Ended)] == [2, 2]


def test_a_defect_in_one_connection_resets_that_one_only(relay, upstream, monkeypatch, caplog):
    """An exception that nobody foresaw: counted, logged, and no other connection notices."""
    port = relay.forward(upstream.endpoint())
    move = End._move
    with (
        connect(port) as victim,
        upstream.accept() as first,
        connect(port) as client,
        upstream.accept() as second,
    ):
        until(lambda: relay.counters().open == 2)

        def broken(self: End, peer: End) -> int:
            if self.connection.number == 1:
                raise ZeroDivisionError("a defect")
            return move(self, peer)

        monkeypatch.setattr(End, "_move", broken)
        with caplog.at_level(logging.ERROR):
            victim.sendall(b"x")
            assert was_reset(victim)
            assert was_reset(first)
        client.sendall(b"y")

        assert read(second, 1) == b"y"
        assert relay.counters().failed == 1
        assert relay.counters().open == 1
    assert "connection 1 of f failed" in caplog.text


def test_a_failure_of_the_loop_itself_closes_everything_and_is_said(
    nothing_left, upstream, monkeypatch, caplog
):
    relay = Relay()
    port = relay.forward(upstream.endpoint())
    with connect(port) as client, upstream.accept() as server:
        until(lambda: relay.counters().open == 1)

        def fail(*_args: object) -> None:
            raise RuntimeError("the poller broke")

        monkeypatch.setattr(RelayLoop, "_turn", fail)
        with caplog.at_level(logging.CRITICAL):
            relay.loop.send(Barrier(1))
            died = relay.wait(Died)
        assert died.error == "RuntimeError: the poller broke"
        assert relay.loop.join(5)
        assert was_reset(client)
        assert was_reset(server)
        with pytest.raises(ConnectionRefusedError):
            connect(port)


def test_stop_resets_connections_and_frees_the_port(nothing_left, upstream):
    relay = Relay()
    port = relay.forward(upstream.endpoint())
    with connect(port) as client, upstream.accept() as server:
        server.sendall(b"half of")
        assert read(client, 7) == b"half of"
        relay.stop()

        assert was_reset(client)
        assert was_reset(server)
        for sock in listener.bind(["127.0.0.1"], port):
            sock.close()


def test_listeners_sent_after_the_end_are_closed(nothing_left):
    relay = Relay()
    relay.stop()
    sockets = listener.bind(["127.0.0.1"], 0)
    relay.loop.send(Listen("late", sockets))

    assert sockets[0].fileno() == -1


def test_close_frees_the_port_at_once_and_keeps_connections_when_asked(relay, upstream):
    port = relay.forward(upstream.endpoint())
    with connect(port) as client, upstream.accept() as server:
        until(lambda: relay.counters().open == 1)
        relay.close(connections=False)
        with contextlib.closing(listener.bind(["127.0.0.1"], port)[0]):
            client.sendall(b"still here")
            assert read(server, 10) == b"still here"
            assert relay.counters().open == 1
    # With its last connection the forward is forgotten.
    relay.loop.send(Query(9000))
    until(lambda: "f" not in stats(relay))


def stats(relay: Relay) -> dict:
    token = 9000 + len(relay.messages)
    relay.loop.send(Query(token))
    return relay.wait(Stats, token=token).forwards


def test_a_forward_can_listen_again_after_its_close(relay, upstream):
    port = relay.forward(upstream.endpoint())
    relay.close()
    again = relay.forward(upstream.endpoint())
    with connect(again), upstream.accept():
        until(lambda: relay.counters().open == 1)
    with pytest.raises(ConnectionRefusedError):
        connect(port)


def test_one_that_listens_on_two_addresses_is_one_forward(relay, upstream):
    port = relay.forward(upstream.endpoint(), addresses=["127.0.0.1", "::1"])
    with connect(port, "127.0.0.1"), connect(port, "::1"), upstream.accept(), upstream.accept():
        until(lambda: relay.counters().open == 2)


def is_still(loop):
    """Tell whether no turn begins within a moment."""
    before = loop.turn
    time.sleep(0.05)
    return loop.turn == before


def test_the_loop_sleeps_when_nothing_happens(nothing_left, upstream):
    """100 forwards, a held connection and an idle one cost no processor time."""
    relay = Relay()
    with contextlib.ExitStack() as stack:
        stack.callback(relay.stop)
        for index in range(100):
            relay.forward(upstream.endpoint(), name=f"f{index}")
        port = relay.forward(upstream.endpoint())
        stack.enter_context(connect(port))
        stack.enter_context(upstream.accept())
        waiting = relay.forward(name="waiting", hold=HoldLimits(seconds=60))
        stack.enter_context(connect(waiting)).sendall(b"unread")
        until(lambda: relay.counters("waiting").held == 1)
        until(lambda: is_still(relay.loop))  # the turn that answered may not have been its last one
        clock = time.pthread_getcpuclockid(relay.loop._thread.ident)
        turns, before = relay.loop.turn, time.clock_gettime(clock)
        time.sleep(0.3)  # the measurement itself

        assert relay.loop.turn == turns
        assert time.clock_gettime(clock) - before < 0.005


def test_a_bulk_stream_leaves_others_their_turn(relay, upstream):
    """Round trips beside a stream at full speed take milliseconds, not the length of the stream."""
    port = relay.forward(upstream.endpoint())
    stop = threading.Event()

    def pour(sock: socket.socket) -> None:
        block = bytes(1 << 20)
        with contextlib.suppress(OSError):
            while not stop.is_set():
                sock.sendall(block)

    def swallow(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while sock.recv(1 << 20):
                pass

    bulk, drain = connect(port), upstream.accept()
    threads = [threading.Thread(target=pour, args=(bulk,)), threading.Thread(target=swallow, args=(drain,))]
    for thread in threads:
        thread.start()
    with connect(port) as client, upstream.accept() as server:
        times = []
        for _ in range(30):
            begun = time.monotonic()
            client.sendall(b"?")
            server.sendall(read(server, 1))
            read(client, 1)
            times.append(time.monotonic() - begun)
    stop.set()
    drain.shutdown(socket.SHUT_RDWR)
    drain.close()
    for thread in threads:
        thread.join(10)
    bulk.close()

    assert sorted(times)[15] < 0.25


def test_a_turn_of_one_end_is_bounded(relay, upstream, monkeypatch):
    """However much waits to be read, an end gives way after `TURN` bytes."""
    from kecs.net import bulk

    moved: list[int] = []
    pump = End.pump

    def measured(self: End, *, to_the_end: bool) -> None:
        before = self.count
        pump(self, to_the_end=to_the_end)
        moved.append(self.count - before)

    monkeypatch.setattr(End, "pump", measured)
    port = relay.forward()
    with connect(port) as client:
        client.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += client.send(bytes(1 << 16))
        client.settimeout(10)
        client.shutdown(socket.SHUT_WR)
        relay.snapshot(upstream.endpoint())
        with upstream.accept() as server:
            assert len(read_all(server)) == sent

    assert sent > bulk.TURN + bulk.CAPACITY
    assert max(moved) < bulk.TURN + bulk.CAPACITY


def test_urgent_data_does_not_stall_what_follows(relay, upstream):
    """A read ends at the urgent mark although more is there: no edge comes for the rest."""
    port = relay.forward()
    with connect(port) as client:
        client.sendall(b"before")
        client.send(b"!", socket.MSG_OOB)
        client.sendall(b"after")
        until(lambda: relay.counters().held == 1)
        relay.snapshot(upstream.endpoint())
        with upstream.accept() as server:
            assert read(server, 11) == b"beforeafter"
            for _ in range(20):
                client.sendall(b"a")
                client.send(b"!", socket.MSG_OOB)
                client.sendall(b"b")
                assert read(server, 2) == b"ab"


class Busy:
    """Something that has an event in every turn."""

    def __init__(self) -> None:
        self.sock, self.other = socket.socketpair()
        self.fd = self.sock.fileno()
        self.other.send(b"x")

    def on_event(self, mask: int) -> None:
        """Leave it to be read."""

    def fail(self, error: Exception) -> None:
        raise error

    def close(self) -> None:
        self.sock.close()
        self.other.close()


def test_carriers_write_when_no_event_is_left_and_are_not_put_off_for_ever():
    loop = RelayLoop(lambda message: None)
    busy = Busy()
    written: list[int] = []
    try:
        loop.writes.append(lambda: written.append(loop.turn))
        loop._turn()
        assert written == [1], "nothing else was to do"

        loop.add(busy, poller.IN)
        loop.writes.append(lambda: written.append(loop.turn))
        for _ in range(PUT_OFF + 1):
            assert written == [1], "there were events: more may be to be written"
            loop._turn()
        assert written == [1, PUT_OFF + 2]
    finally:
        loop._close_all()
        busy.close()


def test_a_carrier_reads_less_in_a_turn_when_others_have_something_to_do():
    loop = RelayLoop(lambda message: None)
    first, second = Busy(), Busy()
    try:
        loop.add(first, poller.IN)
        loop._turn()
        assert len(loop.wide) == WIDE

        loop.add(second, poller.IN)
        loop._turn()
        assert len(loop.wide) == NARROW
    finally:
        loop._close_all()
        first.close()
        second.close()
