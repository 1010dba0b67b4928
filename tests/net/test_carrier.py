"""Connections through carriers: bytes, ends, resets, refusals; which carrier, and what its loss costs."""

from __future__ import annotations

import contextlib
import errno
import socket
from types import SimpleNamespace

import pytest
from tests.net.carriers import (
    ABORT,
    CUT,
    DATA,
    END,
    FINISHED,
    RESET,
    UNTOUCHED,
    FakeCarrier,
    carried,
)
from tests.net.peers import connect, fill, nobody, read, read_all, reset, until, was_reset

from kecs.net import stream
from kecs.net.carrier import Pools
from kecs.net.messages import Awake, CarrierLost, Carry, Congested, Drained, Refused, Retire, Waiting
from kecs.net.relay import BUFFER


@pytest.fixture
def carrier(relay):
    """A carrier of the name `ns/pod` in the loop."""
    one = carry(relay)
    yield one.far
    one.far.close()
    until(lambda: one.fd not in relay.loop.ends)


def carry(relay, name="ns/pod"):
    one = FakeCarrier()
    relay.loop.send(Carry(name, one))
    relay.settle()
    return one


def test_bytes_pass_both_ways(relay, carrier):
    port = relay.forward(carried())
    with connect(port) as client:
        client.sendall(b"question")
        channel = carrier.opened()
        asked = carrier.read(channel, 8)
        carrier.say(DATA, channel, b"answer")

        assert (asked, read(client, 6)) == (b"question", b"answer")
        assert dict(relay.counters().by_endpoint) == {"t": 1}
        assert relay.counters().taking == ("t",)


def test_what_comes_in_more_pieces_than_the_kernel_takes_at_once_arrives_whole(relay):
    one = carry(relay)
    one.piece = 1
    port = relay.forward(carried())
    words = bytes(index % 251 for index in range(3 * stream.PIECES))
    with connect(port) as client:
        channel = one.far.opened()
        for end in (stream.PIECES, stream.PIECES + 1, len(words)):
            one.far.say(DATA, channel, words[:end])
            assert read(client, end) == words[:end]
    one.far.close()
    until(lambda: one.fd not in relay.loop.ends)


def test_the_target_may_speak_first(relay, carrier):
    port = relay.forward(carried())
    with connect(port) as client:
        carrier.say(DATA, carrier.opened(), b"220 ready")

        assert read(client, 9) == b"220 ready"


def test_the_target_s_end_is_the_client_s_and_all_before_it_is_delivered(relay, carrier):
    port = relay.forward(carried())
    with connect(port) as client:
        channel = carrier.opened()
        carrier.say(DATA, channel, b"all of it")
        carrier.say(FINISHED, channel)

        assert read_all(client) == b"all of it"
    until(lambda: relay.counters().open == 0)


def test_a_client_that_talks_on_after_the_target_s_end_is_reset(relay, carrier):
    port = relay.forward(carried())
    with connect(port) as client:
        channel = carrier.opened()
        carrier.say(DATA, channel, b"bye")
        carrier.say(FINISHED, channel)
        assert read_all(client) == b"bye"
        client.sendall(b"and another thing")

        until(lambda: client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EPIPE)


def test_a_reset_of_the_target_is_the_client_s_after_what_came_before(relay, carrier):
    port = relay.forward(carried())
    with connect(port) as client:
        channel = carrier.opened()
        carrier.say(DATA, channel, b"half of")
        carrier.say(RESET, channel, b"connection reset by peer")

        assert read(client, 7) == b"half of"
        assert was_reset(client)


def test_a_client_s_reset_ends_its_stream_and_no_other(relay, carrier):
    port = relay.forward(carried())
    doomed = connect(port)
    first = carrier.opened()
    with connect(port) as other:
        second = carrier.opened()
        reset(doomed)
        assert carrier.heard() == (ABORT, first, b"")
        carrier.say(DATA, first, b"too late")
        carrier.say(DATA, second, b"hello")

        assert read(other, 5) == b"hello"


def test_a_client_s_end_is_kept_back_while_the_target_answers(relay, carrier, monkeypatch):
    """The far end would cut the answer soon after it."""
    monkeypatch.setattr(stream, "IDLE", 0.2)
    port = relay.forward(carried())
    with connect(port) as client:
        client.sendall(b"ask")
        client.shutdown(socket.SHUT_WR)
        channel = carrier.opened()
        assert carrier.read(channel, 3) == b"ask"
        for _ in range(5):
            carrier.say(DATA, channel, b"part")
            assert carrier.quiet(0.1)
        assert carrier.heard() == (END, channel, b"")
        carrier.say(FINISHED, channel)

        assert read_all(client) == b"part" * 5


def test_an_end_that_may_have_cut_the_answer_is_a_reset(relay, carrier, monkeypatch):
    monkeypatch.setattr(stream, "IDLE", 0.05)
    port = relay.forward(carried())
    with connect(port) as client:
        client.sendall(b"ask")
        client.shutdown(socket.SHUT_WR)
        channel = carrier.opened()
        carrier.read(channel, 3)
        assert carrier.heard() == (END, channel, b"")
        carrier.say(DATA, channel, b"half of")
        carrier.say(CUT, channel)

        assert read(client, 7) == b"half of"
        assert was_reset(client)


def test_a_slow_client_that_ended_has_all_the_time_it_needs(relay, carrier, monkeypatch):
    monkeypatch.setattr(stream, "IDLE", 0.1)
    port = relay.forward(carried())
    with connect(port, window=4096) as client:
        client.sendall(b"ask")
        client.shutdown(socket.SHUT_WR)
        channel = carrier.opened()
        carrier.read(channel, 3)
        for _ in range(128):  # more than the kernel takes for it
            carrier.say(DATA, channel, bytes(BUFFER * 2))
        assert carrier.quiet(0.5)
        carrier.say(FINISHED, channel)

        assert len(read_all(client)) == 256 * BUFFER


def test_a_slow_client_is_given_all_in_order(relay, carrier):
    port = relay.forward(carried())
    with connect(port, window=4096) as client:
        channel = carrier.opened()
        sent = b""
        for number in range(64):
            part = bytes([number]) * 30_000
            carrier.say(DATA, channel, part)
            sent += part
        carrier.say(FINISHED, channel)

        assert read_all(client) == sent


def test_a_reset_does_not_cut_what_a_slow_client_has_still_to_get(relay, carrier):
    port = relay.forward(carried())
    with connect(port, window=4096) as client:
        channel = carrier.opened()
        for _ in range(256):
            carrier.say(DATA, channel, bytes(BUFFER))
        carrier.say(RESET, channel, b"reset")

        got = 0
        with pytest.raises(ConnectionResetError):  # noqa: PT012 - reading on until it comes
            while part := client.recv(1 << 16):
                got += len(part)
        assert got > 32 * BUFFER, "what the kernel had not taken yet came, too"


def test_an_upload_waits_for_the_carrier_and_arrives_whole(relay, carrier):
    port = relay.forward(carried())
    with connect(port) as client:
        channel = carrier.opened()
        taken = fill(client)
        client.shutdown(socket.SHUT_WR)

        assert len(carrier.read(channel, taken)) == taken
        assert dict(relay.counters().by_endpoint) == {"t": 1}
        assert relay.counters().received == taken


def test_a_refused_stream_is_made_elsewhere_with_all_that_the_client_said(relay, carrier, upstream):
    port = relay.forward(carried(rank=0), upstream.endpoint("u"))
    with connect(port) as client:
        client.sendall(b"important")
        channel = carrier.opened()
        assert carrier.read(channel, 9) == b"important"
        client.shutdown(socket.SHUT_WR)
        carrier.say(UNTOUCHED, channel, b"connection refused")
        with upstream.accept() as server:
            assert read_all(server) == b"important"
            server.sendall(b"thanks")
            assert read(client, 6) == b"thanks"
    assert relay.wait(Refused, endpoint="t").error == "connection refused"


def test_a_refused_stream_waits_with_all_that_the_client_said(relay, carrier, upstream):
    port = relay.forward(carried())
    with connect(port) as client:
        client.sendall(b"important")
        client.shutdown(socket.SHUT_WR)
        channel = carrier.opened()
        carrier.read(channel, 9)
        carrier.say(UNTOUCHED, channel, b"connection refused")
        relay.wait(Waiting, held=1)
        again = carrier.opened()
        assert carrier.read(again, 9) == b"important"
        carrier.say(DATA, again, b"thanks")
        carrier.say(FINISHED, again)

        assert read_all(client) == b"thanks"


def test_all_whose_streams_were_refused_at_once_are_tried_again(relay, carrier):
    """With one place only: none of them waits for an event that never comes."""
    port = relay.forward(carried())
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(port)) for _ in range(4)]
        channels = [carrier.opened() for _ in clients]
        for channel in channels:
            carrier.say(UNTOUCHED, channel, b"connection refused")
        for again in [carrier.opened() for _ in clients]:
            carrier.say(DATA, again, b"hello")

        assert [read(client, 5) for client in clients] == [b"hello"] * 4


def test_a_refusal_after_more_than_is_kept_is_a_reset(relay, carrier):
    """Bytes that are not known any more cannot be said again."""
    port = relay.forward(carried())
    with connect(port) as client:
        channel = carrier.opened()
        client.sendall(bytes(stream.EARLY + 1))
        carrier.read(channel, stream.EARLY + 1)
        carrier.say(UNTOUCHED, channel, b"connection refused")

        assert was_reset(client)


def test_after_an_answer_nothing_is_said_twice(relay, carrier):
    port = relay.forward(carried())
    with connect(port) as client:
        client.sendall(b"ask")
        channel = carrier.opened()
        carrier.read(channel, 3)
        carrier.say(DATA, channel, b"answer")
        assert read(client, 6) == b"answer"
        carrier.say(UNTOUCHED, channel, b"odd")

        assert was_reset(client)


def test_the_loss_of_a_carrier_resets_its_connections_and_is_said(relay):
    one = carry(relay)
    port = relay.forward(carried())
    with connect(port) as client:
        client.sendall(b"ask")
        channel = one.far.opened()
        one.far.read(channel, 3)
        one.far.close()

        assert was_reset(client)
    assert relay.wait(CarrierLost) == CarrierLost("ns/pod", "it ended", 0)
    assert relay.counters().taking == ()


def test_a_connection_on_which_nobody_spoke_survives_the_loss_of_its_carrier(relay):
    one = carry(relay)
    port = relay.forward(carried())
    with connect(port) as client:
        one.far.opened()
        one.far.close()
        relay.wait(CarrierLost)
        with contextlib.closing(carry(relay).far) as far:
            channel = far.opened()
            client.sendall(b"ask")
            assert far.read(channel, 3) == b"ask"


def test_connections_wait_for_a_carrier(relay):
    port = relay.forward(carried())
    with connect(port) as client:
        client.sendall(b"ask")
        relay.wait(Waiting, held=1)
        with contextlib.closing(carry(relay).far) as far:
            channel = far.opened()
            assert far.read(channel, 3) == b"ask"
            relay.wait(Waiting, held=0)


def test_a_place_of_a_lower_rank_is_taken_while_it_works(relay, carrier, upstream):
    port = relay.forward(upstream.endpoint("u"), carried())
    assert relay.counters().taking == ("u",)
    with connect(port), upstream.accept():
        assert dict(relay.counters().by_endpoint) == {"u": 1, "t": 0}


def test_within_one_accept_the_next_rank_takes_what_the_first_refuses(relay, carrier):
    port = relay.forward(nobody("u"), carried())
    with connect(port) as client:
        carrier.say(DATA, carrier.opened(), b"here")
        assert read(client, 4) == b"here"
    assert relay.of(Waiting) == []


def test_new_streams_avoid_a_congested_carrier(relay):
    one, two = carry(relay), carry(relay)
    one.congested = True
    port = relay.forward(carried())
    with connect(port), connect(port):
        two.far.opened()
        two.far.opened()
    one.far.close()
    two.far.close()
    until(lambda: not list(relay.loop.carriers))


def test_all_being_congested_is_said_once_until_one_is_not():
    said: list = []
    pools = Pools(SimpleNamespace(say=said.append, add=lambda *_: None))
    one, two = FakeCarrier(), FakeCarrier()
    for each in (one, two):
        pools.add("ns/pod", each)
    for congested in ((True, False), (True, True), (True, True), (False, True), (True, True)):
        one.congested, two.congested = congested
        pools.changed("ns/pod", one)

    assert said == [Congested("ns/pod", 2)] * 2
    for each in (one, two):
        each.sock.close()
        each.far.close()


def test_a_retired_carrier_ends_with_its_last_connection(relay):
    one = carry(relay)
    port = relay.forward(carried())
    with connect(port) as client:
        channel = one.far.opened()
        relay.loop.send(Retire("ns/pod"))
        relay.settle()
        one.far.say(DATA, channel, b"still here")
        assert read(client, 10) == b"still here"
        assert relay.counters().taking == ()
        one.far.say(FINISHED, channel)
        assert read_all(client) == b""

    assert one.far.sock.recv(100) == b""
    assert relay.of(CarrierLost) == [], "it was not wanted any more"
    one.far.close()


def test_a_draining_endpoint_keeps_its_streams_and_is_drained_with_the_last(relay, carrier):
    port = relay.forward(carried())
    with connect(port) as client:
        channel = carrier.opened()
        relay.snapshot(carried(draining=True))
        assert relay.of(Drained) == []
        carrier.say(DATA, channel, b"bye")
        carrier.say(FINISHED, channel)
        assert read_all(client) == b"bye"
    relay.wait(Drained, endpoint="t")


def test_the_end_of_the_loop_closes_its_carriers(relay):
    one = carry(relay)
    relay.stop()

    assert one.far.sock.recv(1) == b""
    late = FakeCarrier()
    relay.loop.send(Carry("ns/pod", late))
    assert late.far.sock.recv(1) == b""
    one.far.close()
    late.far.close()


def test_after_a_sleep_every_carrier_is_asked_for_a_sign_of_life(relay):
    carriers = [carry(relay), carry(relay), carry(relay, "ns/other")]
    assert [one.roused for one in carriers] == [0, 0, 0]

    relay.loop.send(Awake())
    relay.settle()

    assert [one.roused for one in carriers] == [1, 1, 1]
    for one in carriers:
        one.far.close()
    until(lambda: all(one.fd not in relay.loop.ends for one in carriers))
