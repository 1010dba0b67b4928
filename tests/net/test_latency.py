"""Histograms of the data path: their bounds, what is counted, and that it is the time that really passed."""

from __future__ import annotations

import time

import pytest
from tests.net.carriers import DATA, FakeCarrier, carried
from tests.net.peers import Upstream, connect, nobody, read, until

from kecs.net.latency import BOUNDS, NONE, Histogram
from kecs.net.messages import Carry


def test_a_bound_belongs_to_what_it_bounds_and_what_is_above_all_has_its_own():
    histogram = Histogram()
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, BOUNDS[-1], BOUNDS[-1] + 1, 1e6):
        histogram.observe(seconds)

    counts = histogram.taken().counts
    assert (counts[0], counts[1], counts[-2], counts[-1]) == (2, 1, 1, 2)
    assert sum(counts) == 6
    assert histogram.taken().seconds == pytest.approx(sum((BOUNDS[0] * 2.01, 2 * BOUNDS[-1] + 1, 1e6)))


def test_what_was_taken_does_not_change_afterwards():
    histogram = Histogram()
    before = histogram.taken()
    histogram.observe(1.0)

    assert before == NONE
    assert histogram.taken() != before


def test_each_connection_counts_once_however_much_is_said_on_it(relay, upstream):
    port = relay.forward(upstream.endpoint())
    for _ in range(2):
        with connect(port) as client, upstream.accept() as server:
            for _ in range(3):
                client.sendall(b"hello")
                assert read(server, 5) == b"hello"
                server.sendall(b"hi")
                assert read(client, 2) == b"hi"
    until(lambda: relay.counters().open == 0)

    counted = relay.counters()
    assert (sum(counted.dial.counts), sum(counted.first_byte.counts)) == (2, 2)


def test_a_target_that_says_nothing_has_no_first_byte_and_a_refusal_is_no_dial(relay, upstream):
    port = relay.forward(nobody(), upstream.endpoint())
    with connect(port) as client, upstream.accept() as server:
        client.sendall(b"hello")
        assert read(server, 5) == b"hello"
    until(lambda: relay.counters().open == 0)

    counted = relay.counters()
    assert (sum(counted.dial.counts), sum(counted.first_byte.counts)) == (1, 0)


def test_the_first_byte_is_timed_from_the_accept_with_the_time_held(relay, upstream):
    port = relay.forward()
    before = time.monotonic()
    with connect(port) as client:
        until(lambda: relay.counters().held == 1)
        held = time.monotonic()
        until(lambda: time.monotonic() - held > 0.06)
        released = time.monotonic()
        relay.snapshot(upstream.endpoint())
        with upstream.accept() as server:
            server.sendall(b"x")
            assert read(client, 1) == b"x"
            after = time.monotonic()
        first = until(lambda: (c := relay.counters().first_byte).seconds and c)

    assert released - held < first.seconds < after - before
    assert relay.counters().dial.seconds < after - released


def test_a_dial_is_timed_until_the_far_kernel_answers(relay):
    """The queue of the listener is full, so the first SYN is dropped: the second one comes after a second."""
    upstream = Upstream(backlog=0)
    with connect(upstream.port) as first:
        port = relay.forward(upstream.endpoint())
        before = time.monotonic()
        with connect(port):
            until(lambda: relay.counters().open == 1)
            upstream.accept().close()
            assert first.recv(1) == b""
            dial = until(lambda: (c := relay.counters().dial).seconds and c)
            after = time.monotonic()
    upstream.close()

    assert 0.9 < dial.seconds < after - before
    assert sum(dial.counts) == 1


def test_through_a_carrier_the_first_byte_counts_and_no_dial(relay):
    one = FakeCarrier()
    relay.loop.send(Carry("ns/pod", one))
    port = relay.forward(carried())
    with connect(port) as client:
        client.sendall(b"question")
        channel = one.far.opened()
        one.far.read(channel, 8)
        for data in (b"answer", b"again!"):
            one.far.say(DATA, channel, data)
            assert read(client, 6) == data
        counted = until(lambda: (c := relay.counters()).first_byte.seconds and c)
    one.far.close()
    until(lambda: one.fd not in relay.loop.ends)

    assert (sum(counted.dial.counts), sum(counted.first_byte.counts)) == (0, 1)
