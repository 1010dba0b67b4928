"""Connections that wait for an endpoint."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
from tests.net.peers import Relay, connect, nobody, read, read_all, reset, until, was_reset

from kecs.net.messages import Counters, Ended, Endpoint, HoldLimits, Refused, Waiting, Watch


def test_a_held_connection_is_served_by_the_endpoint_that_comes(relay, upstream):
    """What the client sent meanwhile is still there, and `Waiting` tells of both changes."""
    port = relay.forward()
    with connect(port) as client:
        client.sendall(b"patience")
        relay.wait(Waiting, held=1)
        relay.snapshot(upstream.endpoint())
        with upstream.accept() as server:
            server.sendall(b"at last")

            assert read(server, 8) == b"patience"
            assert read(client, 7) == b"at last"
            assert [message.held for message in relay.of(Waiting)] == [1, 0]


def test_a_held_connection_is_not_read(relay):
    """The kernel's buffers are the bound on what waits."""
    port = relay.forward()
    with connect(port) as client:
        client.sendall(b"x" * 1000)
        until(lambda: relay.counters().held == 1)

        assert relay.counters().received == 0


def test_those_that_wait_are_served_in_the_order_of_their_arrival(relay, upstream):
    port = relay.forward()
    clients = []
    for index in range(20):
        client = connect(port)
        client.sendall(bytes([index]))
        clients.append(client)
        until(lambda: relay.counters().held == len(clients))
    relay.snapshot(upstream.endpoint())
    order = []
    for _ in clients:
        with upstream.accept() as server:
            order += read(server, 1)
    for client in clients:
        client.close()

    assert order == list(range(20))


def test_a_connection_that_waited_too_long_is_reset(relay):
    port = relay.forward(hold=HoldLimits(seconds=0.15))
    relay.loop.send(Watch("f", on=True))
    relay.settle()
    begun = time.monotonic()
    with connect(port) as client:
        client.sendall(b"hello?")

        assert was_reset(client)
        assert 0.14 < time.monotonic() - begun < 2
    ended = relay.wait(Ended, number=1)
    assert ended.why == "no endpoint within 0.15 s"
    assert relay.counters().expired == 1
    assert relay.counters().held == relay.counters().open == 0


def test_the_deadline_is_each_connections_own(relay):
    """A later connection waits its full time after an earlier one is gone."""
    port = relay.forward(hold=HoldLimits(seconds=0.4))
    with connect(port) as first:
        time.sleep(0.2)
        begun = time.monotonic()
        with connect(port) as second:
            assert was_reset(first)
            assert relay.counters().held == 1
            assert was_reset(second)
            assert time.monotonic() - begun > 0.38


def test_those_above_the_limit_are_reset_and_the_others_wait_on(relay, upstream):
    port = relay.forward(hold=HoldLimits(connections=3))
    waiting = [connect(port) for _ in range(3)]
    until(lambda: relay.counters().held == 3)
    with pytest.raises(ConnectionResetError), connect(port) as excess:  # perhaps already in `connect`
        excess.recv(1)
    until(lambda: relay.counters().expired == 1)
    relay.snapshot(upstream.endpoint())
    for client in waiting:
        with upstream.accept() as server:
            server.sendall(b"1")
        assert read(client, 1) == b"1"
        client.close()


def test_a_client_that_is_reset_while_it_waits_is_dropped_at_once(relay):
    port = relay.forward()
    client = connect(port)
    client.sendall(b"sent before")
    until(lambda: relay.counters().held == 1)
    reset(client)

    until(lambda: relay.counters().held == 0)
    assert relay.counters().expired == 0


def test_a_client_that_ends_while_it_waits_without_having_sent_is_dropped_at_once(relay):
    port = relay.forward()
    client = connect(port)
    until(lambda: relay.counters().held == 1)
    client.close()

    until(lambda: relay.counters().held == 0)
    assert [message.held for message in relay.of(Waiting)] == [1, 0]


def test_a_client_that_half_closed_after_its_request_still_gets_its_answer(relay, upstream):
    port = relay.forward()
    with connect(port) as client:
        client.sendall(b"the whole request")
        client.shutdown(socket.SHUT_WR)
        until(lambda: relay.counters().held == 1)
        relay.snapshot(upstream.endpoint())
        with upstream.accept() as server:
            assert read_all(server) == b"the whole request"
            server.sendall(b"the answer")

        assert read_all(client) == b"the answer"


def test_a_dead_endpoint_is_tried_again_soon(relay):
    """Nobody listens when the client comes; a moment later somebody does, with the same snapshot."""
    endpoint = nobody()
    port = relay.forward(endpoint)
    with connect(port) as client:
        client.sendall(b"?")
        refused = relay.wait(Refused, forward="f", endpoint="dead")
        assert refused.error == "Connection refused"
        relay.wait(Waiting, held=1)
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((endpoint.host, endpoint.port))
            listening.listen()
            listening.settimeout(2)
            begun = time.monotonic()
            server, _ = listening.accept()
            with server:
                assert time.monotonic() - begun < 0.5
                assert read(server, 1) == b"?"


def test_refusals_are_reported_once_a_second(relay):
    port = relay.forward(nobody(), hold=HoldLimits(seconds=0.7))
    with connect(port) as client:
        assert was_reset(client)

    assert len(relay.of(Refused)) == 1


@pytest.mark.parametrize("close_connections", [True, False])
def test_closing_the_forward_resets_those_that_wait(relay, close_connections):
    port = relay.forward()
    with connect(port) as client:
        until(lambda: relay.counters().held == 1)
        relay.close(connections=close_connections)

        assert was_reset(client)


@contextlib.contextmanager
def mute_endpoint() -> Iterator[Endpoint]:
    """The kernel of a listener with a full queue answers nothing at all."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield Endpoint("mute", *full.getsockname())


def test_a_client_that_left_while_it_was_dialled_for_is_not_held_after(nothing_left):
    with contextlib.ExitStack() as stack:
        relay = Relay(connect_timeout=0.2)
        stack.callback(relay.stop)
        port = relay.forward(stack.enter_context(mute_endpoint()))
        client = connect(port)
        until(lambda: relay.counters().open == 1)
        client.close()
        relay.wait(Refused, endpoint="mute")

        until(lambda: relay.counters() == Counters(total=1, by_endpoint=(("mute", 0),)), seconds=2)


def test_a_connect_without_an_answer_is_given_up_and_tried_elsewhere(nothing_left, upstream):
    with contextlib.ExitStack() as stack:
        relay = Relay(connect_timeout=0.2)
        stack.callback(relay.stop)
        mute = stack.enter_context(mute_endpoint())
        port = relay.forward(mute)
        client = stack.enter_context(connect(port))
        client.sendall(b"!")
        until(lambda: dict(relay.counters().by_endpoint) == {"mute": 1})
        relay.snapshot(mute, upstream.endpoint("good"))
        server = stack.enter_context(upstream.accept())

        assert read(server, 1) == b"!"
        assert relay.wait(Refused, endpoint="mute").error == "no answer within 0.2 s"
        assert dict(relay.counters().by_endpoint) == {"mute": 0, "good": 1}
