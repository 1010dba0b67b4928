"""Which endpoint serves: balance, refusals, drains, snapshots that change under load."""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
import time
from collections import Counter

from tests.net.peers import Upstream, connect, nobody, read, until, was_reset

from kecs.net import dial, places
from kecs.net.messages import Close, Drained, Endpoint, Refused, Snapshot, Waiting


class Echo:
    """An upstream that answers each connection with its name, then echoes; counts its connections."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.upstream = Upstream(backlog=1024)
        self.upstream.sock.setblocking(False)
        self.accepted = 0
        self.open = 0
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.upstream.sock, selectors.EVENT_READ)
        self._stop = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def endpoint(self, *, draining: bool = False) -> Endpoint:
        return self.upstream.endpoint(self.name, draining=draining)

    def _run(self) -> None:
        while not self._stop:
            for key, _ in self._selector.select(0.02):
                if key.fileobj is self.upstream.sock:
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            sock, _ = self.upstream.sock.accept()
                            self.accepted += 1
                            self.open += 1
                            sock.sendall(self.name.encode())
                            self._selector.register(sock, selectors.EVENT_READ)
                    continue
                sock = key.fileobj
                try:
                    data = sock.recv(4096)
                except OSError:
                    data = b""
                if data:
                    sock.sendall(data)
                else:
                    self.open -= 1
                    self._selector.unregister(sock)
                    sock.close()

    def close(self) -> None:
        self._stop = True
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._selector.close()


def test_new_connections_are_spread_over_all_endpoints(relay):
    with contextlib.ExitStack() as stack:
        echoes = [stack.enter_context(contextlib.closing(Echo(name))) for name in "abc"]
        port = relay.forward(*(echo.endpoint() for echo in echoes))
        clients = [stack.enter_context(connect(port)) for _ in range(30)]

        assert Counter(read(client, 1) for client in clients) == {b"a": 10, b"b": 10, b"c": 10}
        assert dict(relay.counters().by_endpoint) == {"a": 10, "b": 10, "c": 10}


def test_300_connections_at_once(relay):
    with contextlib.ExitStack() as stack:
        echoes = [stack.enter_context(contextlib.closing(Echo(name))) for name in "ab"]
        port = relay.forward(*(echo.endpoint() for echo in echoes))
        clients = []
        for _ in range(300):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            clients.append(client)
        for client in clients:
            client.settimeout(10)
            assert read(client, 1) in (b"a", b"b")
        for index, client in enumerate(clients):
            client.sendall(b"%06d" % index)
        for index, client in enumerate(clients):
            assert read(client, 6) == b"%06d" % index

        assert relay.counters().open == 300
        for client in clients:
            client.close()
        until(lambda: relay.counters().open == 0)
        assert relay.counters().total == 300


def test_a_refused_connect_is_tried_on_another_endpoint(relay, upstream):
    port = relay.forward(nobody(), upstream.endpoint())
    for _ in range(4):
        with connect(port) as client, upstream.accept() as server:
            server.sendall(b"ok")
            assert read(client, 2) == b"ok"

    refused = relay.of(Refused)
    assert [message.endpoint for message in refused] == ["dead"]
    assert abs(refused[0].time - time.time()) < 60
    assert relay.of(Waiting) == []


def test_an_endpoint_without_a_numeric_address_is_refused_in_words(relay, upstream):
    """A name is never resolved: that would stop every connection."""
    port = relay.forward(Endpoint("named", "example.invalid", 80), upstream.endpoint())
    with connect(port), upstream.accept():
        pass

    assert relay.wait(Refused, endpoint="named").error == "`example.invalid` is not a numeric address"


def test_a_draining_endpoint_gets_no_new_connections_and_keeps_those_it_has(relay, upstream, other):
    port = relay.forward(upstream.endpoint("a"))
    with connect(port) as old, upstream.accept() as server:
        relay.snapshot(upstream.endpoint("a", draining=True), other.endpoint("b"))
        with connect(port) as new, other.accept() as second:
            second.sendall(b"b")
            server.sendall(b"a")

            assert (read(old, 1), read(new, 1)) == (b"a", b"b")
            assert relay.of(Drained) == []
    until(lambda: relay.of(Drained))
    relay.settle()
    assert relay.of(Drained) == [Drained("f", "a")]


def test_an_idle_endpoint_is_drained_at_once(relay, upstream):
    """`Drained` comes before `Seen` of a barrier that follows the snapshot."""
    relay.forward(upstream.endpoint("a"))
    relay.snapshot(upstream.endpoint("a", draining=True))

    assert relay.of(Drained) == [Drained("f", "a")]


def test_drained_is_said_once_for_each_snapshot_that_drains(relay, upstream, other):
    port = relay.forward(upstream.endpoint("a"))
    with connect(port), upstream.accept():
        until(lambda: relay.counters().open == 1)
        relay.snapshot(upstream.endpoint("a", draining=True))
        relay.snapshot(upstream.endpoint("a", draining=True), other.endpoint("b"))
        assert relay.of(Drained) == []
    until(lambda: relay.of(Drained))
    relay.settle()

    assert relay.of(Drained) == [Drained("f", "a")]
    relay.snapshot(upstream.endpoint("a", draining=True))
    assert relay.of(Drained) == [Drained("f", "a")] * 2


def test_an_endpoint_with_two_addresses_is_drained_when_both_are_idle(relay, upstream, other):
    """As behind a node port: one id, one address a node."""
    port = relay.forward(upstream.endpoint("t"), other.endpoint("t"))
    with connect(port), upstream.accept():
        with connect(port), other.accept():
            until(lambda: dict(relay.counters().by_endpoint) == {"t": 2})
            relay.snapshot(upstream.endpoint("t", draining=True), other.endpoint("t", draining=True))
        until(lambda: relay.counters().open == 1)
        assert relay.of(Drained) == []

    until(lambda: relay.of(Drained))
    assert relay.of(Drained) == [Drained("f", "t")]


def test_an_endpoint_that_vanishes_keeps_its_connections(relay, upstream, other):
    port = relay.forward(upstream.endpoint("a"))
    with connect(port) as client, upstream.accept() as server:
        until(lambda: relay.counters().open == 1)
        relay.snapshot(other.endpoint("b"))
        client.sendall(b"still there?")
        assert read(server, 12) == b"still there?"
        assert dict(relay.counters().by_endpoint) == {"a": 1, "b": 0}

    until(lambda: dict(relay.counters().by_endpoint) == {"b": 0})


def test_a_closed_forward_answers_drained_at_once(relay, upstream):
    """A planned stop that meets the end of the forward does not wait for it."""
    relay.forward(upstream.endpoint("a"))
    relay.close()
    relay.snapshot(upstream.endpoint("a", draining=True))

    assert relay.of(Drained) == [Drained("f", "a")]


def test_connections_of_a_closed_forward_that_were_kept_still_count_for_the_drain(relay, upstream):
    port = relay.forward(upstream.endpoint("a"))
    with connect(port) as client, upstream.accept() as server:
        until(lambda: relay.counters().open == 1)
        relay.close(connections=False)
        relay.snapshot(upstream.endpoint("a", draining=True))
        client.sendall(b"go on")
        assert read(server, 5) == b"go on"
        assert relay.of(Drained) == []

    relay.wait(Drained, endpoint="a")


def test_no_connection_is_lost_while_endpoints_come_and_go(relay):
    """New connections race with snapshots that drain; a drained endpoint really has none, then dies."""
    failures: list[str] = []
    stop = threading.Event()
    served = Counter()

    def load() -> None:
        while not stop.is_set():
            try:
                with connect(port) as client:
                    name = client.recv(1)
                    client.sendall(b"x")
                    if client.recv(1) != b"x":
                        failures.append("ended early")
                    served[name] += 1
            except OSError as error:
                failures.append(repr(error))

    rng = random.Random(3)
    current = [Echo("a")]
    port = relay.forward(current[0].endpoint())
    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for generation in range(12):
        before = len(relay.of(Drained))
        new = Echo("bcdefghijklm"[generation])
        if rng.random() < 0.3:  # for a moment there is none: connections wait
            relay.snapshot(current[0].endpoint(draining=True))
            relay.snapshot(current[0].endpoint(draining=True), new.endpoint())
        else:
            relay.snapshot(current[0].endpoint(draining=True), new.endpoint())
        until(lambda seen=before: len(relay.of(Drained)) > seen)
        until(lambda old=current[0]: old.open == 0)
        accepted = current[0].accepted
        relay.snapshot(new.endpoint())
        assert current[0].accepted == accepted
        current[0].close()
        current = [new]
        until(lambda echo=new: served[echo.name.encode()] >= 5)
    stop.set()
    for thread in threads:
        thread.join()
    current[0].close()

    assert failures == []
    assert len(served) == 13
    until(lambda: relay.counters().open == 0)
    assert relay.counters().total == sum(served.values())


def test_a_killed_endpoint_that_is_still_in_the_snapshot_costs_no_connection(relay, upstream, monkeypatch):
    """As after kill -9 of a task: its port refuses until the snapshot follows."""
    dead = Upstream()
    port = relay.forward(dead.endpoint("dead"), upstream.endpoint("live"))
    with connect(port) as client, dead.accept() as server:
        server.sendall(b"1")
        assert read(client, 1) == b"1"
        with connect(port), upstream.accept():
            pass
    dead.close()
    asked = []
    begin = dial.begin
    monkeypatch.setattr(dial, "begin", lambda to: (asked.append(to.sockaddr[1]), begin(to))[1])
    monkeypatch.setattr(places, "ASIDE", (30.0, 30.0))
    for _ in range(10):
        with connect(port) as client, upstream.accept() as server:
            server.sendall(b"2")
            assert read(client, 1) == b"2"

    assert asked.count(dead.port) == 1  # set aside


def test_closing_with_connections_resets_them(relay, upstream):
    port = relay.forward(upstream.endpoint())
    with connect(port) as client, upstream.accept() as server:
        server.sendall(b"half of")
        assert read(client, 7) == b"half of"
        relay.loop.send(Close("f"))

        assert was_reset(client)
        assert was_reset(server)


def test_a_snapshot_for_an_unknown_forward_changes_nothing(relay, upstream):
    relay.loop.send(Snapshot("unknown", 1, (upstream.endpoint(),)))
    relay.settle()
    port = relay.forward(upstream.endpoint())
    with connect(port), upstream.accept():
        until(lambda: relay.counters().open == 1)
