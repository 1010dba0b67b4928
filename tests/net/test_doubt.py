"""Places that accept before they know whether anybody is there, as docker-proxy does: nobody loses by it."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading

import pytest
from tests.net.carriers import FakeCarrier, carried
from tests.net.peers import DEADLINE, Upstream, connect, nobody, read, read_all, reset, until, was_reset

from kecs.net import probe
from kecs.net.messages import Carry, Endpoint, HoldLimits, Refused
from kecs.net.places import DOUBTED_ASIDE, LAST_RESORT, Places

DOUBT = 0.01
NOBODY = "nobody is there behind what accepts"


class Proxy:
    """Accepts everything; while `behind` is None it ends each connection at once, without a word."""

    def __init__(self) -> None:
        self.behind: Upstream | None = None
        self.ended = 0
        self._front = Upstream()
        self._front.sock.settimeout(None)
        self._open: list[socket.socket] = []
        self._threads = threading.active_count()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def endpoint(self, *, doubt: float = DOUBT) -> Endpoint:
        return Endpoint("published", self._front.host, self._front.port, rank=1, patience=1.0, doubt=doubt)

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._front.sock.accept()
            except OSError:
                return
            if self.behind is None:
                client.close()
                self.ended += 1
                continue
            target = socket.create_connection((self.behind.host, self.behind.port))
            self._open += [client, target]
            for here, there in ((client, target), (target, client)):
                threading.Thread(target=copy, args=(here, there), daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._front.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._front.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        until(lambda: threading.active_count() <= self._threads, "its threads end")
        for sock in self._open:
            sock.close()


def let_probe(upstream: Upstream) -> None:
    """Take the probe, which says nothing, and wait for its end."""
    with upstream.accept() as probed, contextlib.suppress(ConnectionResetError):
        assert read_all(probed) == b""


def copy(here: socket.socket, there: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while part := here.recv(1 << 16):
            there.sendall(part)
    with contextlib.suppress(OSError):
        there.shutdown(socket.SHUT_WR)


@pytest.fixture(autouse=True)
def probes_last_shorter(monkeypatch):
    monkeypatch.setattr(probe, "LASTS", 0.25)


@pytest.fixture
def proxy(relay):
    """A proxy with nobody behind it; it ends before the relay, whose thread is one of those that are left."""
    one = Proxy()
    yield one
    one.close()


def test_no_client_comes_before_a_probe_has_lasted(relay, upstream):
    port = relay.forward(doubted(upstream))
    with connect(port) as client:
        client.sendall(b"hello")
        let_probe(upstream)
        with upstream.accept() as server:
            assert read(server, 5) == b"hello"


def test_a_probe_that_hears_a_word_need_not_last(relay, upstream, monkeypatch):
    monkeypatch.setattr(probe, "LASTS", 1000.0)
    port = relay.forward(doubted(upstream))
    with connect(port) as client, upstream.accept() as probed:
        probed.sendall(b"220 ready")
        with upstream.accept() as server:
            client.sendall(b"hello")
            assert read(server, 5) == b"hello"
            server.sendall(b"hi")
            assert read(client, 2) == b"hi"


def test_where_nobody_is_behind_clients_go_elsewhere_from_the_first_on(relay, proxy, upstream):
    port = relay.forward(proxy.endpoint(), last(upstream))
    for number in range(20):
        with connect(port) as client, upstream.accept() as server:
            client.sendall(b"%02d" % number)
            assert read(server, 2) == b"%02d" % number

    until(lambda: proxy.ended >= 2, "it is tried again, without a client")
    assert relay.wait(Refused, endpoint="published").error == NOBODY
    assert dict(relay.counters().by_endpoint) == {"published": 0, "a": 0}


def test_clients_of_a_place_behind_which_somebody_dies_lose_no_byte(relay, proxy, upstream, other):
    proxy.behind = upstream
    port = relay.forward(proxy.endpoint(doubt=0.5), last(other))
    until(lambda: relay.counters().taking == ("published",), "it is believed")
    with connect(port) as client:
        client.sendall(b"one")
        let_probe(upstream)
        with upstream.accept() as server:
            assert read(server, 3) == b"one"
    proxy.behind = None
    clients = [connect(port) for _ in range(20)]
    for number, client in enumerate(clients):
        client.sendall(b"%02d" % number)
    heard = set()
    for _ in clients:
        with other.accept() as server:
            heard.add(read(server, 2))
    for client in clients:
        client.close()

    assert heard == {b"%02d" % number for number in range(20)}


def test_nothing_is_sent_while_it_is_doubted(relay, upstream):
    port = relay.forward(doubted(upstream, doubt=0.3))
    let_probe(upstream)
    with connect(port) as client:
        client.sendall(b"hello")
        with upstream.accept() as server:
            server.settimeout(0.1)
            with pytest.raises(TimeoutError):
                server.recv(1)
            server.settimeout(DEADLINE)
            assert read(server, 5) == b"hello"


@pytest.mark.parametrize("ends", [False, True])
def test_a_word_of_the_server_ends_the_doubt_and_is_passed_on(relay, upstream, ends):
    port = relay.forward(doubted(upstream, doubt=1000.0))
    let_probe(upstream)
    with connect(port) as client, upstream.accept() as server:
        server.sendall(b"220 ready")
        if ends:
            server.close()
            assert read_all(client) == b"220 ready"
            return
        assert read(client, 9) == b"220 ready"
        client.sendall(b"hello")
        assert read(server, 5) == b"hello"


def test_a_client_that_half_closes_while_the_place_is_doubted_gets_its_answer(relay, upstream):
    port = relay.forward(doubted(upstream, doubt=0.1))
    let_probe(upstream)
    with connect(port) as client, upstream.accept() as server:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        assert read_all(server) == b"hello"
        server.sendall(b"hi")
        server.close()
        assert read_all(client) == b"hi"


def test_a_client_that_is_reset_while_the_place_is_doubted_is_dropped_at_once(relay, upstream):
    port = relay.forward(doubted(upstream, doubt=1000.0))
    let_probe(upstream)
    client = connect(port)
    with upstream.accept() as server:
        client.sendall(b"hello")
        reset(client)
        assert was_reset(server)
    until(lambda: relay.counters().open == 0)


def test_clients_wait_while_nobody_is_there_at_all_and_are_served_soon_after(relay, proxy, upstream):
    port = relay.forward(proxy.endpoint())
    with connect(port) as client:
        client.sendall(b"hello")
        until(lambda: proxy.ended >= 3, "it is probed while a client waits")
        assert relay.counters().held == 1
        proxy.behind = upstream
        let_probe(upstream)
        with upstream.accept() as server:
            assert read(server, 5) == b"hello"


@pytest.mark.parametrize("how", [socket.socket.close, reset])
def test_one_that_ends_without_a_word_after_it_was_believed_takes_no_other_client(
    relay, upstream, other, how
):
    """What the client said was taken, so it is lost; the next one goes elsewhere, and a probe decides."""
    port = relay.forward(doubted(upstream), last(other))
    let_probe(upstream)
    until(lambda: relay.counters().taking == ("published",))
    with connect(port) as client:
        client.sendall(b"lost")
        server = upstream.accept()
        assert read(server, 4) == b"lost"
        how(server)
        with contextlib.suppress(ConnectionResetError):
            assert read_all(client) == b""
        with connect(port) as second, other.accept() as server:
            second.sendall(b"next")
            assert read(server, 4) == b"next"
    let_probe(upstream)
    until(lambda: relay.counters().taking == ("published",), "it is believed again")


def test_one_that_answers_or_was_left_by_its_client_stays(relay, upstream):
    port = relay.forward(doubted(upstream))
    let_probe(upstream)
    until(lambda: relay.counters().taking == ("published",))
    with connect(port) as client, upstream.accept() as server:
        server.sendall(b"hi")
        server.close()
        assert read_all(client) == b"hi"
    with connect(port) as client:
        client.sendall(b"for the record")
        client.shutdown(socket.SHUT_WR)
        with upstream.accept() as server:
            assert read_all(server) == b"for the record"
        assert read_all(client) == b""
    client = connect(port)
    client.sendall(b"given up")
    with upstream.accept() as server:
        assert read(server, 8) == b"given up"
        reset(client)
        assert was_reset(server)
    until(lambda: relay.counters().open == 0)

    assert relay.counters().taking == ("published",)
    assert relay.of(Refused) == []


def test_who_waited_too_long_is_reset(relay, proxy):
    port = relay.forward(proxy.endpoint(), hold=HoldLimits(seconds=0.2))
    with connect(port) as client:
        assert was_reset(client)


def test_a_place_that_refuses_is_probed_too(relay, upstream):
    dead = nobody()
    gone = Endpoint("published", dead.host, dead.port, rank=1, patience=1.0, doubt=DOUBT)
    port = relay.forward(gone, last(upstream))
    with connect(port), upstream.accept():
        pass
    assert "refused" in relay.wait(Refused, endpoint="published").error.lower()
    assert relay.counters().taking == ("a",)


def test_it_is_not_used_while_one_of_those_behind_it_is_lost_and_another_is_not(relay, upstream):
    """Behind it somebody else chooses, perhaps the one that is lost; that cannot be seen from here."""
    carrier = FakeCarrier()
    try:
        relay.forward(
            doubted(upstream),
            carried("one", carrier="ns/one", rank=2),
            carried("two", carrier="ns/two", rank=2),
        )
        let_probe(upstream)
        until(lambda: relay.counters().taking == ("published",), "both are alike")
        relay.loop.send(Carry("ns/one", carrier))
        relay.settle()
        assert relay.counters().taking == ("one",)
    finally:
        carrier.far.close()


@pytest.mark.parametrize("code", [errno.ECONNREFUSED, errno.ETIMEDOUT])
def test_it_stays_with_probes_however_it_fails(code):
    endpoint = Endpoint("published", "127.0.0.1", 30080, rank=1, patience=1.0, doubt=DOUBT)
    some = Places()
    some.replace([endpoint])
    [place], later = some.due_for_a_probe(100.0)
    assert later is None
    delays, now = [], 100.0
    for _ in range(8):
        some.refused(place, now, code)
        delays.append(place.delay)
        now = place.aside_until

    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, DOUBTED_ASIDE[1], DOUBTED_ASIDE[1]]
    assert some.choose(now, ()) is None
    assert not some.last_resort(now)
    some.refused(place, now, code)
    waiting = now + LAST_RESORT
    assert some.due_for_a_probe(waiting)[0] == []
    assert not some.last_resort(waiting)
    assert some.due_for_a_probe(waiting)[0] == [place], "clients wait: it is probed earlier"
    some.found(place)
    assert some.choose(now, ()) is place


def doubted(upstream: Upstream, *, doubt: float = DOUBT) -> Endpoint:
    return Endpoint("published", upstream.host, upstream.port, rank=1, patience=1.0, doubt=doubt)


def last(upstream: Upstream) -> Endpoint:
    return Endpoint("a", upstream.host, upstream.port, rank=2)
