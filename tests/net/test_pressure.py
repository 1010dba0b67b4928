"""Many at once: connections that say nothing, and targets that never answer."""

from __future__ import annotations

import contextlib

from tests.net.peers import connect, read, reset, until, was_reset


def test_connections_that_say_nothing_cost_no_turn_and_one_more_is_served(relay, upstream):
    port = relay.forward(upstream.endpoint())
    with contextlib.ExitStack() as stack:
        for _ in range(150):
            stack.enter_context(connect(port))
            stack.enter_context(upstream.accept())
        until(lambda: relay.counters().open == 150)
        before = relay.loop.turn
        with connect(port) as client, upstream.accept() as server:
            client.sendall(b"?")
            assert read(server, 1) == b"?"
            server.sendall(b"!")
            assert read(client, 1) == b"!"

        assert relay.loop.turn - before < 20
    until(lambda: relay.counters().open == 0)


def test_a_target_that_accepts_and_never_answers_costs_its_own_connection_only(relay, upstream, other):
    silent = relay.forward(upstream.endpoint(), name="silent")
    works = relay.forward(other.endpoint(), name="works")
    waiting = [connect(silent) for _ in range(20)]
    servers = [upstream.accept() for _ in waiting]
    for client in waiting:
        client.sendall(b"anybody?")
    for server in servers:
        assert read(server, 8) == b"anybody?"
    with connect(works) as client, other.accept() as server:
        server.sendall(b"here")
        assert read(client, 4) == b"here"
    counted = relay.counters("silent")
    assert (counted.open, counted.sent, sum(counted.first_byte.counts)) == (20, 0, 0)

    for client in waiting:
        reset(client)
    for server in servers:
        assert was_reset(server), "it hears that nobody waits any more"
        server.close()
    until(lambda: relay.counters("silent").open == 0)
