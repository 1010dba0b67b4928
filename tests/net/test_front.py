"""The one port for all names: who is handed to whom, who is told what, and who is given up."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
from tests.net.carriers import DATA, FINISHED, UNTOUCHED, FakeCarrier, carried
from tests.net.greetings import certificate, client_hello, get
from tests.net.peers import Relay, connect, nobody, read, read_all, reset, until, was_reset

from kecs.net import front as fronts
from kecs.net import listener
from kecs.net.messages import Carry, CloseFront, Ended, HoldLimits, Listen, Names, OpenFront, Refused, Watch


class Front:
    """The one port of a running loop, with forwards that are reached by names only."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.names: dict[str, str] = {}
        sockets = listener.bind(["127.0.0.1"], 0)
        self.port = int(sockets[0].getsockname()[1])
        relay.loop.send(OpenFront(sockets))

    def name(self, host: str, *endpoints, hold: HoldLimits | None = None, forward: str | None = None) -> None:
        """Let `host` lead to these."""
        self.names = {**self.names, host: forward or host}
        self.relay.loop.send(Listen(forward or host, (), hold or HoldLimits()))
        self.relay.loop.send(Names(self.names))
        self.relay.snapshot(*endpoints, name=forward or host)


@pytest.fixture
def front(relay: Relay) -> Iterator[Front]:
    return Front(relay)


def ask(front: Front, data: bytes) -> bytes:
    """Say `data` and read to the end."""
    with connect(front.port) as client:
        client.sendall(data)
        return read_all(client)


def test_each_host_leads_to_its_own_forward_and_every_byte_arrives(front, upstream, other):
    front.name("a.localhost", upstream.endpoint())
    front.name("b.localhost", other.endpoint())
    for host, server in (("a.localhost", upstream), ("B.localhost:20000", other)):
        with connect(front.port) as client:
            request = get(host) + b"and a body"
            client.sendall(request)
            with server.accept() as task:
                assert read(task, len(request)) == request
                task.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                task.shutdown(socket.SHUT_WR)
                client.shutdown(socket.SHUT_WR)
                assert read_all(task) == b""
            assert read_all(client) == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert front.relay.counters("a.localhost").total == 1
    assert front.relay.counters("b.localhost").received == len(request)


def test_a_host_that_comes_byte_by_byte_is_found(front, upstream):
    front.name("a.localhost", upstream.endpoint())
    with connect(front.port) as client:
        request = get("a.localhost")
        for byte in request:
            client.sendall(bytes([byte]))
        with upstream.accept() as task:
            assert read(task, len(request)) == request


def test_a_connection_goes_on_with_its_forward_whatever_is_said_later(front, upstream, other):
    front.name("a.localhost", upstream.endpoint())
    front.name("b.localhost", other.endpoint())
    with connect(front.port) as client:
        client.sendall(get("a.localhost"))
        with upstream.accept() as task:
            read(task, len(get("a.localhost")))
            task.sendall(b"one")
            assert read(client, 3) == b"one"
            client.sendall(get("b.localhost"))
            assert read(task, len(get("b.localhost"))) == get("b.localhost")
            task.sendall(b"two")
            assert read(client, 3) == b"two"


def test_a_client_that_ended_after_its_request_gets_its_answer(front, upstream):
    front.name("a.localhost", upstream.endpoint())
    with connect(front.port) as client:
        client.sendall(get("a.localhost", version="1.0"))
        client.shutdown(socket.SHUT_WR)
        with upstream.accept() as task:
            assert read_all(task) == get("a.localhost", version="1.0")
            task.sendall(b"answer")
        assert read_all(client) == b"answer"


def test_a_large_upload_passes_whole(front, upstream):
    front.name("a.localhost", upstream.endpoint())
    block = bytes(range(256)) * 4096
    request = get("a.localhost", method="PUT") + block * 8

    def send() -> None:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)

    with connect(front.port) as client:
        sender = threading.Thread(target=send)
        sender.start()
        with upstream.accept() as task:
            assert read_all(task) == request
        sender.join()


def test_tls_is_handed_over_by_its_server_name_and_ends_at_the_task(front, upstream, tmp_path):
    front.name("a.localhost", upstream.endpoint())
    chain = certificate(tmp_path, "a.localhost")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain)

    def echo() -> None:
        with upstream.accept() as plain, server.wrap_socket(plain, server_side=True) as task:
            task.sendall(task.recv(100).upper())

    echoing = threading.Thread(target=echo)
    echoing.start()
    client = ssl.create_default_context(cafile=str(chain))
    with connect(front.port) as plain, client.wrap_socket(plain, server_hostname="a.localhost") as tls:
        tls.sendall(b"hello")
        assert tls.recv(100) == b"HELLO"
    echoing.join()


def test_a_known_name_without_an_endpoint_is_held_with_what_was_said(front, upstream):
    front.name("a.localhost")
    with connect(front.port) as client:
        client.sendall(get("a.localhost"))
        until(lambda: front.relay.counters("a.localhost").held == 1)
        front.relay.snapshot(upstream.endpoint(), name="a.localhost")
        with upstream.accept() as task:
            assert read(task, len(get("a.localhost"))) == get("a.localhost")


def test_a_held_one_is_given_up_as_on_a_port_of_its_own(front):
    front.name("a.localhost", hold=HoldLimits(0.05))
    with connect(front.port) as client:
        client.sendall(get("a.localhost"))
        assert was_reset(client)
    assert front.relay.counters("a.localhost").expired == 1


def test_an_endpoint_that_refuses_costs_no_byte(front, upstream):
    front.name("a.localhost", nobody(), upstream.endpoint())
    for _ in range(4):
        with connect(front.port) as client:
            client.sendall(get("a.localhost"))
            with upstream.accept() as task:
                assert read(task, len(get("a.localhost"))) == get("a.localhost")
    assert front.relay.of(Refused)


def test_an_unknown_name_is_answered_and_the_connection_closed_in_order(front, upstream):
    front.name("a.localhost", upstream.endpoint())
    answer = ask(front, get("x.localhost"))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert f"http://a.localhost:{front.port}/".encode() in answer
    assert ask(front, get(None)).startswith(b"HTTP/1.1 400 ")
    assert ask(front, client_hello("x.localhost")) == b"\x15\x03\x03\x00\x02\x02\x70"
    assert ask(front, b"SSH-2.0-x\r\n") == b""


def test_the_answer_arrives_while_the_client_still_uploads(front):
    assert ask(front, get("x.localhost", method="PUT") + bytes(300_000)).startswith(b"HTTP/1.1 404 ")


def test_who_uploads_for_ever_to_an_unknown_name_is_reset(front):
    with connect(front.port) as client:
        client.sendall(get("x.localhost", method="PUT"))
        with pytest.raises(ConnectionError):
            client.sendall(bytes(1 << 26))


def test_who_does_not_leave_after_an_answer_is_left(front, monkeypatch):
    monkeypatch.setattr(fronts, "LEAVE", 0.05)
    with connect(front.port) as client:
        client.sendall(get("x.localhost"))
        assert read_all(client).startswith(b"HTTP/1.1 404 ")
        until(lambda: not front.relay.loop._front._leaving)


def test_a_name_that_is_taken_back_leads_nowhere_and_what_came_by_it_goes_on(front, upstream):
    front.name("a.localhost", upstream.endpoint())
    with connect(front.port) as client:
        client.sendall(get("a.localhost"))
        with upstream.accept() as task:
            read(task, len(get("a.localhost")))
            front.relay.loop.send(Names({}))
            front.relay.close("a.localhost", connections=False)
            assert ask(front, get("a.localhost")).startswith(b"HTTP/1.1 404 ")
            task.sendall(b"still here")
            assert read(client, 10) == b"still here"


def test_a_name_whose_forward_is_gone_is_unknown(front):
    front.relay.loop.send(Names({"a.localhost": "gone"}))
    assert ask(front, get("a.localhost")).startswith(b"HTTP/1.1 404 ")


def test_who_says_nothing_is_left_in_order_and_who_stops_in_the_middle_is_told(front, monkeypatch):
    monkeypatch.setattr(fronts, "PATIENCE", 0.05)
    with connect(front.port) as silent, connect(front.port) as slow, connect(front.port) as tls:
        slow.sendall(b"GET / HT")
        tls.sendall(client_hello("a.localhost")[:20])
        assert read_all(silent) == b""
        assert read_all(slow).startswith(b"HTTP/1.1 408 ")
        assert read_all(tls) == b""


def test_who_leaves_before_it_says_whom_it_wants_leaves_nothing(front):
    with connect(front.port) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
    reset(connect(front.port))
    loop = front.relay.loop
    until(lambda: not loop._front._visitors and loop.held == 0)


def test_no_more_than_so_many_may_be_about_to_say_it(front, monkeypatch, upstream):
    monkeypatch.setattr(fronts, "VISITORS", 2)
    front.name("a.localhost", upstream.endpoint())
    with connect(front.port) as first, connect(front.port) as second:
        until(lambda: len(front.relay.loop._front._visitors) == 2)
        with pytest.raises(ConnectionResetError):  # perhaps before `connect` returns
            ask(front, b"")
        first.sendall(get("a.localhost"))
        with upstream.accept() as task:
            read(task, 1)
        until(lambda: len(front.relay.loop._front._visitors) == 1)
        with connect(front.port) as fourth:
            fourth.sendall(get("a.localhost"))
            with upstream.accept() as task:
                read(task, 1)
        second.sendall(get("x.localhost"))
        assert read_all(second).startswith(b"HTTP/1.1 404 ")


def test_a_closed_port_resets_visitors_and_keeps_connections(front, upstream):
    front.name("a.localhost", upstream.endpoint())
    with connect(front.port) as served, connect(front.port) as visitor:
        served.sendall(get("a.localhost"))
        with upstream.accept() as task:
            read(task, len(get("a.localhost")))
            until(lambda: len(front.relay.loop._front._visitors) == 1)
            front.relay.loop.send(CloseFront())
            front.relay.settle()
            assert was_reset(visitor)
            with pytest.raises(ConnectionRefusedError):
                connect(front.port)
            task.sendall(b"still here")
            assert read(served, 10) == b"still here"


def test_connections_by_name_are_reported_to_who_watches_the_forward(front, upstream):
    front.name("a.localhost", upstream.endpoint())
    front.relay.loop.send(Watch("a.localhost", on=True))
    with connect(front.port) as client:
        client.sendall(get("a.localhost"))
        with upstream.accept() as task:
            read(task, len(get("a.localhost")))
            task.sendall(b"12345")
        assert read_all(client) == b"12345"
        client.close()
    ended = front.relay.wait(Ended, forward="a.localhost")
    assert (ended.received, ended.sent, ended.number) == (len(get("a.localhost")), 5, 1)


def test_a_name_leads_through_a_tunnel_and_what_a_refused_stream_was_told_goes_elsewhere(front, upstream):
    carrier = FakeCarrier()
    front.relay.loop.send(Carry("ns/pod", carrier))
    front.name("a.localhost", carried())
    request = get("a.localhost")
    with carrier.far.sock, connect(front.port) as client:
        client.sendall(request)
        first = carrier.far.opened()
        assert carrier.far.read(first, len(request)) == request
        front.relay.snapshot(carried(), upstream.endpoint("direct"), name="a.localhost")
        carrier.far.say(UNTOUCHED, first, b"connection refused")
        with upstream.accept() as task:
            assert read(task, len(request)) == request

        with connect(front.port) as other:
            front.relay.snapshot(carried("again"), name="a.localhost")
            other.sendall(request)
            second = carrier.far.opened()
            assert carrier.far.read(second, len(request)) == request
            carrier.far.say(DATA, second, b"answer")
            carrier.far.say(FINISHED, second)
            assert read_all(other) == b"answer"
    until(lambda: carrier.fd not in front.relay.loop.ends)
