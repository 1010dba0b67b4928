"""A tunnel in the relay loop, to a scripted API server: over SPDY and WebSocket, with TLS and without."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import threading

import pytest
from tests.kube.shapes import pod
from tests.net.carriers import carried
from tests.net.peers import Relay, Upstream, connect, read, read_all, reset, rests, until, was_reset

from kecs.kube import pulse, tunnel, upgrade
from kecs.kube.access import Access
from kecs.kube.tunnel import Tunnel
from kecs.kube.upgrade import open_portforward
from kecs.net import precedence, stream
from kecs.net.congestion import CAP, HIGH
from kecs.net.messages import Awake, Barrier, CarrierLost, Carry, Congested, Endpoint, Refused, Retire

NAME = "default/web"


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(upgrade, "_worked", {})


@pytest.fixture
def relay(nothing_left):
    running = Relay()
    yield running
    running.stop()


@pytest.fixture
def upstream(nothing_left):
    server = Upstream()
    yield server
    server.close()


class Far:
    """A scripted API server with the pod `web`, and how to open tunnels to it."""

    def __init__(self, api, tmp_path, over="spdy", authority=None):
        self.api, self.over = api, over
        api.put(pod())
        api.linger = 0.2
        self.access = Access.load(api.kubeconfig(tmp_path, authority=authority))

    def tunnel(self) -> Tunnel:
        return Tunnel(open_portforward(self.access, "default", "web", timeout=5, over=self.over))

    def carry(self, relay) -> Tunnel:
        one = self.tunnel()
        relay.loop.send(Carry(NAME, one))
        relay.settle()
        until(lambda: self.api.tunnels, "the API server has seen it")
        return one


@pytest.fixture
def far(api, tmp_path):
    return Far(api, tmp_path)


@pytest.fixture(params=["spdy", "websocket", "tls", "websocket in tls"])
def each_far(request, tmp_path, authority):
    tls = "tls" in request.param
    over = "websocket" if "websocket" in request.param else "spdy"
    if not tls:
        return Far(request.getfixturevalue("api"), tmp_path, over)
    return Far(request.getfixturevalue("tls_api"), tmp_path, over, authority.pair.certificate)


def serve(far, upstream, port=80):
    far.api.backends[port] = (upstream.host, upstream.port)
    return carried(port=port, carrier=NAME)


def test_bytes_pass_both_ways(relay, each_far, upstream):
    port = relay.forward(serve(each_far, upstream))
    each_far.carry(relay)
    with connect(port) as client:
        client.sendall(b"question")
        with upstream.accept() as server:
            assert read(server, 8) == b"question"
            server.sendall(b"answer")
            assert read(client, 6) == b"answer"


def test_random_bytes_arrive_whole_both_ways(relay, each_far, upstream):
    """Several connections at once, some with slow readers; compared by hash."""
    port = relay.forward(serve(each_far, upstream))
    each_far.carry(relay)
    rng = random.Random(7)
    results, threads = [], []

    def write(sock, seed, result):
        digest, own = hashlib.sha256(), random.Random(seed)
        for _ in range(40):
            block = own.randbytes(own.choice([1, 700, 20_000, 100_000]))
            digest.update(block)
            sock.sendall(block)
        result["wrote"] = digest.hexdigest()

    def drain(sock, size, result):
        result["read"] = hashlib.sha256(read(sock, size)).hexdigest()

    def size_of(seed):
        own = random.Random(seed)
        return sum(len(own.randbytes(own.choice([1, 700, 20_000, 100_000]))) for _ in range(40))

    with contextlib.ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(connect(port))
            server = stack.enter_context(upstream.accept())
            for one, two in ((client, server), (server, client)):
                seed, result = rng.random(), {}
                results.append(result)
                threads.append(threading.Thread(target=write, args=(one, seed, result)))
                threads.append(threading.Thread(target=drain, args=(two, size_of(seed), result)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    assert all(result["wrote"] == result["read"] for result in results)


def test_a_body_at_full_speed_arrives_whole_with_rests(relay, each_far, upstream, monkeypatch):
    """While nobody else has anything to say, the loop lets more of it come before it reads on."""
    taken = rests(monkeypatch)
    monkeypatch.setattr(tunnel, "FAST", 1.0)
    monkeypatch.setattr(tunnel, "PORTION", 1 << 30)  # however much came, more is worth waiting for
    port = relay.forward(serve(each_far, upstream))
    each_far.carry(relay)
    body = random.Random(4).randbytes(8 << 20) * 3
    assert fetch(port, upstream, body) == body
    assert taken
    assert max(taken) <= tunnel.REST


def test_a_body_gives_way_while_a_direct_forward_is_busy_and_arrives_whole(
    relay, each_far, upstream, monkeypatch
):
    gave_way = ways(monkeypatch)
    monkeypatch.setattr(precedence, "BUSY", 100.0)
    direct = relay.forward(upstream.endpoint(), name="direct")
    port = relay.forward(serve(each_far, upstream))
    each_far.carry(relay)
    body = random.Random(6).randbytes(4 << 20)
    done = threading.Event()
    asked: list[int] = []
    with connect(direct) as other, upstream.accept() as echo:

        def ask() -> None:
            while not done.is_set():
                other.sendall(b"ask")
                asked.append(len(read(echo, 3)))
                echo.sendall(b"yes")
                assert read(other, 3) == b"yes"

        asker = threading.Thread(target=ask)
        asker.start()
        try:
            got = fetch(port, upstream, body)
        finally:
            done.set()
            asker.join()
    assert got == body
    assert gave_way
    assert len(asked) > len(gave_way)


def test_a_body_does_not_give_way_to_those_who_come_by_a_tunnel_too(relay, far, upstream, monkeypatch):
    gave_way = ways(monkeypatch)
    port = relay.forward(serve(far, upstream))
    far.carry(relay)
    body = random.Random(6).randbytes(8 << 20)
    assert fetch(port, upstream, body) == body
    assert not gave_way


def ways(monkeypatch) -> list[Tunnel]:
    """Return what will hold a tunnel for each time that it gives way."""
    given: list[Tunnel] = []
    give = Tunnel._give_way

    def noted(self: Tunnel) -> None:
        given.append(self)
        give(self)

    monkeypatch.setattr(Tunnel, "_give_way", noted)
    return given


def fetch(port: int, upstream: Upstream, body: bytes) -> bytes:
    """Ask for a body by a forward; return what came."""
    with connect(port) as client:
        client.sendall(b"all of it")
        with upstream.accept() as server:
            read(server, 9)
            sender = threading.Thread(target=server.sendall, args=(body,))
            sender.start()
            got = read(client, len(body))
            sender.join()
    return got


def test_what_many_say_in_one_turn_leaves_in_one_write(relay, far, monkeypatch):
    """Openings and first bytes of connections that all came before the loop looked."""
    far.api.backends[80] = "echo"
    one = far.carry(relay)
    port = relay.forward(carried(carrier=NAME))
    with connect(port) as client:
        client.sendall(b"!")
        assert read(client, 1) == b"!"
    until(lambda: not one.load)
    writes = []
    real = one._pipe

    class Recorder:
        read, more, begun = map(staticmethod, (real.read, real.more, real.begun))

        @staticmethod
        def write(data):
            writes.append(bytes(data))
            return real.write(data)

    one._pipe = Recorder()
    held, go_on = threading.Event(), threading.Event()

    def hold():
        held.set()
        go_on.wait(10)

    relay.loop.chores.append(hold)
    relay.loop.send(Barrier(0))
    assert held.wait(10)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(port)) for _ in range(5)]
        for client in clients:
            client.sendall(b"hello")
        go_on.set()
        for client in clients:
            assert read(client, 5) == b"hello"
    openings = [write for write in writes if b"hello" in write]

    assert sum(write.count(b"hello") for write in openings) == 5
    assert len(openings) <= 3


def test_the_pod_s_end_and_reset_are_the_client_s(relay, each_far, upstream):
    port = relay.forward(serve(each_far, upstream))
    each_far.carry(relay)
    with connect(port) as client:
        server = upstream.accept()
        server.sendall(b"all of it")
        server.close()
        assert read_all(client) == b"all of it"
    with connect(port) as client:
        server = upstream.accept()
        server.sendall(b"half")
        assert read(client, 4) == b"half"
        reset(server)
        assert was_reset(client)


def test_a_refused_port_harms_nobody_and_the_client_s_bytes_go_elsewhere(relay, far, upstream):
    far.api.backends[80] = "echo"
    far.carry(relay)
    other = relay.forward(carried(carrier=NAME), name="other")
    bad = relay.forward(
        carried("bad", 81, carrier=NAME), Endpoint("u", upstream.host, upstream.port, rank=2), name="bad"
    )
    with connect(other) as talking:
        talking.sendall(b"one")
        assert read(talking, 3) == b"one"
        with connect(bad) as client:
            client.sendall(b"important")
            with upstream.accept() as server:
                assert read(server, 9) == b"important"
        talking.sendall(b"two")
        assert read(talking, 3) == b"two"
    assert relay.wait(Refused, endpoint="bad").error == "connection refused in the pod"


def test_nothing_is_sent_to_a_port_that_has_not_answered_before_it_could_be_refused(relay, far):
    """The far end would keep it, and never look at anything behind it."""
    one = far.carry(relay)
    port = relay.forward(carried(port=81, carrier=NAME))
    with connect(port) as client:
        client.sendall(b"lost?")
        relay.wait(Refused, endpoint="t")
        assert one._courtesy.uploads.quiet


def test_a_client_that_goes_away_ends_its_stream_only(relay, far, upstream):
    port = relay.forward(serve(far, upstream))
    far.carry(relay)
    with connect(port) as stays:
        kept = upstream.accept()
        for _ in range(10):
            client = connect(port)
            server = upstream.accept()
            client.sendall(b"ask")
            assert read(server, 3) == b"ask"
            reset(client)
            assert read_all(server) == b""
            server.close()
        kept.sendall(b"still here")
        assert read(stays, 10) == b"still here"
        kept.close()


def test_a_client_s_end_waits_for_the_answer(relay, far, upstream, monkeypatch):
    monkeypatch.setattr(stream, "IDLE", 0.3)
    port = relay.forward(serve(far, upstream))
    far.carry(relay)
    with connect(port) as client:
        client.sendall(b"ask")
        client.shutdown(socket.SHUT_WR)
        with upstream.accept() as server:
            assert read(server, 3) == b"ask"
            server.sendall(b"an answer")
        assert read_all(client) == b"an answer"


def test_a_client_that_does_not_read_costs_bounded_memory_and_congests_the_tunnel(relay, far, upstream):
    port = relay.forward(serve(far, upstream))
    one = far.carry(relay)
    with connect(port, window=4096) as slow, upstream.accept() as server:
        stop = threading.Event()
        thread = threading.Thread(target=_flood, args=(server, stop))
        thread.start()
        relay.wait(Congested)
        until(lambda: one._congestion.paused)
        assert HIGH < max(s.buffered for s in one._streams.values()) < 2 * CAP
        second = far.carry(relay)
        with connect(port) as client, upstream.accept() as other:
            other.sendall(b"by the second")
            assert read(client, 13) == b"by the second"
        assert (one.load, second.load) >= (1, 0)
        stop.set()
        while thread.is_alive():
            slow.recv(1 << 20)
        thread.join()


def _flood(server, stop):
    with contextlib.suppress(OSError):
        while not stop.is_set():
            server.sendall(bytes(1 << 16))


def test_a_client_that_does_not_read_is_ended_when_others_wait_behind_it(relay, far, upstream):
    far.api.backends[81] = "echo"
    port = relay.forward(serve(far, upstream))
    echo = relay.forward(carried("e", 81, carrier=NAME), name="echo")
    one = far.carry(relay)
    with connect(port, window=4096) as slow, upstream.accept() as server, connect(echo) as other:
        stop = threading.Event()
        thread = threading.Thread(target=_flood, args=(server, stop))
        thread.start()
        until(lambda: one._congestion.paused)
        other.sendall(b"waits")
        assert read(other, 5) == b"waits"
        stop.set()
        assert was_reset(slow)
        thread.join()


def test_a_silent_far_end_is_noticed_and_its_connections_are_reset(relay, far, upstream):
    port = relay.forward(serve(far, upstream))
    far.carry(relay)
    (there,) = far.api.tunnels
    with connect(port) as client, upstream.accept() as server:
        client.sendall(b"ask")
        assert read(server, 3) == b"ask"
        until(lambda: there.pings)
        there.answers_pings = False
        lost = relay.wait(CarrierLost)
        assert lost.why.startswith("no sign of life")
        assert was_reset(client)


def test_after_a_sleep_the_far_end_is_asked_at_once(relay, far, monkeypatch):
    monkeypatch.setattr(pulse, "PING_EVERY", 3600.0)
    far.api.backends[80] = "echo"
    far.carry(relay)
    (there,) = far.api.tunnels
    there.answers_pings = False
    assert not there.pings

    relay.loop.send(Awake())

    assert relay.wait(CarrierLost).why.startswith("no sign of life")


def test_a_broken_connection_is_lost_at_once(relay, far):
    far.api.backends[80] = "echo"
    far.carry(relay)
    far.api.break_tunnels()

    assert relay.wait(CarrierLost).left == 0


def test_a_far_end_that_goes_away_finishes_what_it_has(relay, far, upstream):
    port = relay.forward(serve(far, upstream))
    far.carry(relay)
    (there,) = far.api.tunnels
    with connect(port) as client:
        server = upstream.accept()
        client.sendall(b"ask")
        assert read(server, 3) == b"ask"
        asyncio.run_coroutine_threadsafe(there.goaway(), far.api._loop).result(5)
        assert relay.wait(CarrierLost).why == "it takes no more connections"
        server.sendall(b"answer")
        assert read(client, 6) == b"answer"
        server.close()
        assert read_all(client) == b""


def test_a_retired_tunnel_closes_with_its_last_connection(relay, far, upstream):
    port = relay.forward(serve(far, upstream))
    far.carry(relay)
    with connect(port) as client:
        server = upstream.accept()
        relay.loop.send(Retire(NAME))
        relay.settle()
        server.sendall(b"bye")
        server.close()
        assert read_all(client) == b"bye"
    until(lambda: not far.api.tunnels)
    assert relay.of(CarrierLost) == []


def test_a_second_tunnel_is_closed_when_nobody_uses_it(relay, far, monkeypatch):
    monkeypatch.setattr(tunnel, "UNUSED", 0.2)
    far.carry(relay)
    far.carry(relay)

    until(lambda: len(far.api.tunnels) == 1)
    assert relay.of(CarrierLost) == []
