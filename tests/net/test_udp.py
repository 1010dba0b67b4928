"""UDP forwards on a real loop: clients apart, replies from where they sent to, idleness, drains, refusals."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from tests.net.peers import DEADLINE, Upstream, connect, until

from kecs.net import datagrams, listener, udp
from kecs.net.loop import RelayLoop
from kecs.net.messages import (
    Close,
    Datagrams,
    Drained,
    Ended,
    Endpoint,
    HoldLimits,
    Listen,
    Opened,
    Refused,
    Watch,
)


class Task:
    """A bound UDP socket that stands for a task; it answers when the test says so."""

    def __init__(self, name: str, host: str = "127.0.0.1", port: int = 0) -> None:
        self.name = name
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((host, port))
        self.sock.settimeout(DEADLINE)
        self.host, self.port = self.sock.getsockname()[:2]

    def endpoint(self, *, draining: bool = False) -> Endpoint:
        return Endpoint(self.name, self.host, self.port, draining)

    def receive(self) -> tuple[bytes, tuple[str, int]]:
        return self.sock.recvfrom(1 << 17)

    def answer(self, text: bytes = b"") -> tuple[str, int]:
        """Answer one datagram with the task's name, `text` and what came; return who asked."""
        said, peer = self.receive()
        self.sock.sendto(self.name.encode() + text + said, peer)
        return peer

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def tasks(nothing_left) -> Iterator[list[Task]]:
    found = [Task("a"), Task("b")]
    yield found
    for task in found:
        task.close()


def serve(relay, *endpoints: Endpoint, addresses=("127.0.0.1",), name="f", **limits) -> int:
    """Start a UDP forward; return its port."""
    sockets = listener.bind(addresses, 0, udp=True)
    port = sockets[0].getsockname()[1]
    relay.loop.send(Listen(name, sockets, datagrams=Datagrams(**limits)))
    relay.snapshot(*endpoints, name=name)
    return int(port)


@contextlib.contextmanager
def client(port: int, host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A client that takes answers from exactly the address that it sends to."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(DEADLINE)
        sock.connect((host, port))
        yield sock


def test_two_clients_are_told_apart(relay, tasks):
    a, _ = tasks
    port = serve(relay, a.endpoint())
    with client(port) as one, client(port) as other:
        one.send(b"1")
        other.send(b"2")
        peers = {a.receive() for _ in range(2)}
        assert {said for said, _ in peers} == {b"1", b"2"}
        assert len({peer for _, peer in peers}) == 2
        for said, peer in peers:
            a.sock.sendto(b"for " + said, peer)

        assert one.recv(100) == b"for 1"
        assert other.recv(100) == b"for 2"
        counted = relay.counters()
        assert (counted.open, counted.total, counted.held, counted.dropped) == (2, 2, 0, 0)
        assert (counted.received, counted.sent) == (2, 10)
        assert counted.by_endpoint == (("a", 2),)
        assert counted.taking == ("a",)


def test_a_client_keeps_its_task_and_clients_are_spread(relay, tasks):
    port = serve(relay, *(task.endpoint() for task in tasks))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client(port)) for _ in range(6)]
        for _ in range(3):
            for number, one in enumerate(clients):
                one.send(b"?")
                assert tasks[number % 2].receive()[0] == b"?"

        assert dict(relay.counters().by_endpoint) == {"a": 3, "b": 3}
        assert relay.counters().total == 6


@pytest.mark.parametrize("listen", [["127.0.0.1", "::1"], ["0.0.0.0", "::"]], ids=["loopback", "everywhere"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_answer_comes_from_the_address_that_was_asked(relay, tasks, listen, host):
    """A connected client's kernel takes answers from there alone."""
    port = serve(relay, tasks[0].endpoint(), addresses=listen)
    with client(port, host) as one:
        one.send(b"?")
        tasks[0].answer()
        assert one.recv(100) == b"a?"


def test_a_forward_on_all_addresses_answers_from_each_of_them(relay, tasks):
    """The kernel alone would answer from 127.0.0.1, which the asker at 127.0.0.2 never sent to."""
    port = serve(relay, tasks[0].endpoint(), addresses=["0.0.0.0"])
    with client(port, "127.0.0.2") as one, client(port, "127.0.0.3") as other:
        for who in (one, other):
            who.send(b"?")
            tasks[0].answer()
            assert who.recv(100) == b"a?"


def test_one_client_that_asks_two_addresses_is_answered_by_each(relay, tasks):
    port = serve(relay, tasks[0].endpoint(), addresses=["0.0.0.0"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(DEADLINE)
        one.bind(("0.0.0.0", 0))
        for host in ("127.0.0.2", "127.0.0.3"):
            one.sendto(host.encode(), (host, port))
            tasks[0].answer()
            assert one.recvfrom(100) == (b"a" + host.encode(), (host, port))


@pytest.mark.parametrize("size", [0, 1, 1472, 9000, 65507])
def test_datagrams_of_every_size_pass_whole(relay, tasks, size):
    port = serve(relay, tasks[0].endpoint())
    payload = bytes(i % 251 for i in range(size))
    with client(port) as one:
        one.send(payload)
        said, peer = tasks[0].receive()
        assert said == payload
        tasks[0].sock.sendto(payload, peer)
        assert one.recv(1 << 17) == payload


def test_a_datagram_that_is_too_long_for_its_way_is_dropped_and_said(relay, tasks):
    """IPv6 carries 20 bytes more than IPv4."""
    port = serve(relay, tasks[0].endpoint(), addresses=["::1"])
    with client(port, "::1") as one:
        one.send(bytes(65527))
        assert "65527 bytes is too long" in relay.wait(Refused, endpoint="").error
        assert relay.counters().dropped == 1
        one.send(b"short")
        assert tasks[0].receive()[0] == b"short"


def test_datagrams_that_nobody_takes_are_dropped_and_counted(relay, tasks):
    port = serve(relay)
    with client(port) as one:
        one.send(b"lost")
        until(lambda: relay.counters().dropped == 1)
        assert (relay.counters().total, relay.counters().held) == (0, 0)

        relay.snapshot(tasks[0].endpoint())
        one.send(b"?")
        assert tasks[0].receive()[0] == b"?"


def test_a_silent_client_is_forgotten(relay, tasks):
    port = serve(relay, tasks[0].endpoint(), idle=0.2)
    relay.loop.send(Watch("f", on=True))
    with client(port) as one:
        one.send(b"?")
        first = tasks[0].answer()
        assert one.recv(100) == b"a?"
        began = time.monotonic()
        assert relay.wait(Opened, number=1).peer == f"127.0.0.1:{one.getsockname()[1]}"

        ended = relay.wait(Ended, number=1)
        assert (ended.why, ended.received, ended.sent) == ("idle", 1, 2)
        assert 0.1 < time.monotonic() - began < 5
        assert (relay.counters().open, relay.counters().total) == (0, 1)
        assert relay.counters().by_endpoint == (("a", 0),)

        one.send(b"!")
        assert tasks[0].answer() != first  # a client anew, by a socket anew
        assert one.recv(100) == b"a!"
        counted = relay.counters()
        assert (counted.total, counted.received, counted.sent) == (2, 2, 4)


@pytest.mark.parametrize("speaker", ["client", "task"])
def test_a_client_stays_while_either_side_speaks(relay, tasks, speaker):
    port = serve(relay, tasks[0].endpoint(), idle=1.0)
    relay.loop.send(Watch("f", on=True))
    with client(port) as one:
        one.send(b"?")
        _, peer = tasks[0].receive()
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            if speaker == "client":
                one.send(b".")
                tasks[0].receive()
            else:
                tasks[0].sock.sendto(b".", peer)
                one.recv(100)
            time.sleep(0.01)
        assert relay.counters().total == 1
        assert not relay.of(Ended)
        assert relay.wait(Ended).why == "idle"


def test_expiry_costs_no_timer_for_each_datagram(relay, tasks):
    port = serve(relay, tasks[0].endpoint())
    with client(port) as one:
        for _ in range(200):
            one.send(b"?")
            tasks[0].receive()
        assert len(relay.loop._timers) <= 2


def test_one_client_too_many_displaces_the_one_that_was_silent_longest(relay, tasks, monkeypatch):
    monkeypatch.setattr(udp, "COARSE", 0.0)
    port = serve(relay, tasks[0].endpoint(), clients=3)
    relay.loop.send(Watch("f", on=True))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client(port)) for _ in range(4)]
        for number in (0, 1, 2, 0, 3):
            clients[number].send(b"?")
            tasks[0].answer()
            assert clients[number].recv(100) == b"a?"

        ended = relay.wait(Ended)
        assert ended.number == 2
        assert "silent longest" in ended.why
        assert (relay.counters().open, relay.counters().total) == (3, 4)
        for number in (0, 2, 3):
            clients[number].send(b"!")
            tasks[0].answer()
            assert clients[number].recv(100) == b"a!"
        assert relay.counters().total == 4


def test_fewer_clients_from_now_on(relay, tasks):
    port = serve(relay, tasks[0].endpoint())
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(client(port)).send(b"?")
            tasks[0].receive()
        relay.loop.send(Listen("f", (), datagrams=Datagrams(clients=2)))
        assert relay.counters().open == 2


def test_a_refused_client_goes_to_another_task_and_nothing_of_it_is_lost(relay, tasks):
    a, b = tasks
    port = serve(relay, a.endpoint(), b.endpoint())
    with client(port) as one:
        one.send(b"1")
        assert a.receive()[0] == b"1"
        a.close()
        one.send(b"2")  # nobody knows yet; the refusal says that nobody got it
        b.answer()
        assert one.recv(100) == b"b2"
        refused = relay.wait(Refused)
        assert (refused.endpoint, refused.error) == ("a", "Connection refused")
        for number in range(5):
            one.send(b"%d" % number)
            b.answer()
            assert one.recv(100) == b"b%d" % number
        assert relay.counters().total == 1
        assert relay.counters().dropped == 0
        assert dict(relay.counters().by_endpoint)["b"] == 1


def test_the_only_task_is_asked_again_after_it_refused(relay):
    task = Task("a")
    port = serve(relay, task.endpoint())
    task.close()
    with client(port) as one, client(port) as other:
        one.send(b"lost")
        relay.wait(Refused, endpoint="a")
        assert relay.counters().dropped == 1
        task = Task("a", port=task.port)
        with contextlib.closing(task):
            for who in (one, other):  # one that was refused, and one that comes while the task is set aside
                who.send(b"?")
                task.answer()
                assert who.recv(100) == b"a?"
        assert relay.counters().dropped == 1


def test_what_is_large_is_not_sent_again(relay, tasks):
    a, b = tasks
    port = serve(relay, a.endpoint(), b.endpoint())
    with client(port) as one:
        one.send(b"1")
        a.answer()
        assert one.recv(100) == b"a1"
        a.close()
        one.send(bytes(datagrams.KEPT + 1))
        relay.wait(Refused, endpoint="a")
        one.send(b"2")
        b.answer()
        assert one.recv(100) == b"b2"


def test_what_a_task_that_drains_refuses_goes_to_another(relay, tasks, monkeypatch):
    monkeypatch.setattr(udp, "GRACE", 30.0)
    a, b = tasks
    port = serve(relay, a.endpoint())
    with client(port) as one:
        one.send(b"1")
        a.receive()
        relay.snapshot(a.endpoint(draining=True), b.endpoint())
        assert not relay.of(Drained)
        (leaving,) = relay.loop._forwards["f"]._leaving
        a.close()
        leaving.sock.send(b"x")  # so that there is a refusal; a closed socket alone says nothing
        b.answer()
        assert one.recv(100) == b"b1"
        relay.wait(Drained, endpoint="a")


def test_a_refusal_that_shows_at_the_next_datagram_does_not_lose_that(relay, monkeypatch):
    """The kernel tells of it by the next call, which then does nothing else."""
    task = Task("a")
    port = serve(relay, task.endpoint())
    real, raised = datagrams.Upstream.send, threading.Event()

    def send(self, data):
        if not raised.is_set():
            raised.set()
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        real(self, data)

    monkeypatch.setattr(datagrams.Upstream, "send", send)
    with contextlib.closing(task), client(port) as one:
        one.send(b"?")
        assert task.receive()[0] == b"?"
        assert raised.is_set()
        assert relay.counters().dropped == 0


def test_clients_of_a_task_that_drains_move_at_once(relay, tasks):
    a, b = tasks
    port = serve(relay, a.endpoint())
    with client(port) as one:
        one.send(b"?")
        a.answer()
        assert one.recv(100) == b"a?"

        relay.snapshot(a.endpoint(draining=True), b.endpoint())
        assert relay.of(Drained) == [Drained("f", "a")]
        one.send(b"!")
        b.answer()
        assert one.recv(100) == b"b!"
        assert (relay.counters().open, relay.counters().total) == (1, 1)


def test_a_task_that_drains_may_answer_what_it_was_asked(relay, tasks, monkeypatch):
    monkeypatch.setattr(udp, "GRACE", 30.0)
    a, b = tasks
    port = serve(relay, a.endpoint())
    with client(port) as one:
        one.send(b"1")
        _, peer = a.receive()

        relay.snapshot(a.endpoint(draining=True), b.endpoint())
        one.send(b"2")
        b.answer()
        assert one.recv(100) == b"b2"
        assert not relay.of(Drained)
        a.sock.sendto(b"late", peer)
        assert one.recv(100) == b"late"
        relay.wait(Drained, endpoint="a")


def test_an_answer_that_never_comes_does_not_keep_a_task(relay, tasks, monkeypatch):
    monkeypatch.setattr(udp, "GRACE", 0.2)
    a, _ = tasks
    port = serve(relay, a.endpoint())
    with client(port) as one:
        one.send(b"1")
        a.receive()
        relay.snapshot(a.endpoint(draining=True))
        relay.wait(Drained, endpoint="a", seconds=5)
        one.send(b"2")
        until(lambda: relay.counters().dropped == 1)
        assert relay.counters().by_endpoint == (("a", 0),)


def test_a_task_that_is_gone_from_the_snapshot_is_left(relay, tasks):
    a, b = tasks
    port = serve(relay, a.endpoint())
    with client(port) as one:
        one.send(b"?")
        a.answer()
        one.recv(100)
        relay.snapshot(b.endpoint())
        one.send(b"!")
        b.answer()
        assert one.recv(100) == b"b!"
        assert relay.counters().by_endpoint == (("b", 1),)


def test_closing_ends_everything(relay, tasks):
    port = serve(relay, tasks[0].endpoint())
    relay.loop.send(Watch("f", on=True))
    with client(port) as one:
        one.send(b"?")
        tasks[0].receive()
        relay.loop.send(Close("f", connections=False))
        assert relay.wait(Ended).why == "the forward was stopped"
        relay.settle()
        for sock in listener.bind(["127.0.0.1"], port, udp=True):  # it is free
            sock.close()


def test_a_forward_may_become_one_of_tcp_and_back(relay, tasks):
    task = Upstream()
    with contextlib.closing(task):
        port = serve(relay, tasks[0].endpoint())
        with client(port) as one:
            one.send(b"?")
            tasks[0].receive()
        relay.loop.send(Listen("f", listener.bind(["127.0.0.1"], port), HoldLimits()))
        relay.snapshot(task.endpoint())
        with connect(port) as one, task.accept() as served:
            one.sendall(b"tcp")
            assert served.recv(3) == b"tcp"
        serve(relay, tasks[0].endpoint())
        assert relay.counters().dropped == 0


def test_tcp_and_udp_share_a_number(relay, tasks):
    task = Upstream()
    with contextlib.closing(task):
        port = serve(relay, tasks[0].endpoint(), name="u")
        relay.loop.send(Listen("t", listener.bind(["127.0.0.1"], port)))
        relay.snapshot(task.endpoint(), name="t")
        with client(port) as one, connect(port) as other, task.accept() as served:
            one.send(b"u")
            other.sendall(b"t")
            assert tasks[0].receive()[0] == b"u"
            assert served.recv(1) == b"t"


def test_a_flood_does_not_keep_others_waiting(relay, tasks):
    """Datagrams of 60 kB as fast as one thread can send them, to a task that does not read."""
    task = Upstream()
    done = threading.Event()
    port = serve(relay, tasks[0].endpoint(), name="u")
    tcp = relay.forward(task.endpoint(), name="t")

    def flood() -> None:
        with client(port) as one:
            while not done.is_set():
                with contextlib.suppress(OSError):
                    one.send(bytes(60_000))

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        with contextlib.closing(task), connect(tcp) as one, task.accept() as served:
            slowest = 0.0
            for _ in range(200):
                began = time.monotonic()
                one.sendall(b"?")
                assert served.recv(1) == b"?"
                slowest = max(slowest, time.monotonic() - began)
            assert slowest < 1.0
    finally:
        done.set()
        thread.join()


def test_a_turn_reads_a_part_of_what_waits(relay, tasks, monkeypatch):
    monkeypatch.setattr(datagrams, "BATCH", 3)
    monkeypatch.setattr(datagrams, "REPLIES", 2)
    port = serve(relay, tasks[0].endpoint())
    with client(port) as one:
        for number in range(20):
            one.send(b"%d" % number)
        peers = []
        for number in range(20):
            said, peer = tasks[0].receive()
            assert said == b"%d" % number
            peers.append(peer)
        for number, peer in enumerate(peers):
            tasks[0].sock.sendto(b"%d" % number, peer)
        assert [one.recv(100) for _ in range(20)] == [b"%d" % number for number in range(20)]


def test_without_room_for_another_descriptor_an_own_client_makes_way(relay, tasks):
    port = serve(relay, tasks[0].endpoint())
    with client(port) as one, client(port) as other:
        one.send(b"1")
        tasks[0].receive()
        relay.loop._ceiling = (len(relay.loop.ends) + relay.loop.held) * 4 // 3
        other.send(b"2")
        assert tasks[0].receive()[0] == b"2"
        assert (relay.counters().open, relay.counters().total) == (1, 2)


def test_the_last_quarter_of_the_descriptors_is_for_connections(relay, tasks):
    task = Upstream()
    with contextlib.closing(task):
        port = serve(relay, tasks[0].endpoint(), name="u")
        tcp = relay.forward(task.endpoint(), name="t")
        for number in range(12):
            serve(relay, name=f"u{number}")
        relay.loop._ceiling = (len(relay.loop.ends) + relay.loop.held) * 4 // 3
        with client(port) as one, connect(tcp) as other:
            one.send(b"lost")
            assert "no descriptor" in relay.wait(Refused, forward="u").error
            assert relay.counters("u").dropped == 1
            with task.accept() as served:
                other.sendall(b"?")
                assert served.recv(1) == b"?"


def test_when_the_kernel_has_no_descriptor_it_is_said_and_the_forward_goes_on(relay, tasks, monkeypatch):
    port = serve(relay, tasks[0].endpoint())
    real = datagrams._connected

    def exhausted(_to):
        monkeypatch.setattr(datagrams, "_connected", real)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(datagrams, "_connected", exhausted)
    with client(port) as one:
        one.send(b"lost")
        assert relay.wait(Refused, endpoint="").error == "Too many open files"
        one.send(b"?")
        assert tasks[0].receive()[0] == b"?"
        assert (relay.counters().dropped, relay.counters().open) == (1, 1)


def test_a_defect_costs_one_client(relay, tasks, monkeypatch, caplog):
    port = serve(relay, tasks[0].endpoint())
    with client(port) as one, client(port) as other:
        for who in (one, other):
            who.send(b"?")
            tasks[0].answer()
            who.recv(100)
        real, failed = datagrams.Door.answer, threading.Event()

        def answer(self, of, data):
            if not failed.is_set():
                failed.set()
                raise RuntimeError("a defect")
            real(self, of, data)

        monkeypatch.setattr(datagrams.Door, "answer", answer)
        one.send(b"?")
        tasks[0].answer()
        until(failed.is_set)
        other.send(b"?")
        tasks[0].answer()
        assert other.recv(100) == b"a?"
        assert (relay.counters().failed, relay.counters().open) == (1, 1)
    assert "a defect" in caplog.text


def test_a_client_that_left_costs_only_its_answers(relay, tasks):
    a, _ = tasks
    port = serve(relay, a.endpoint())
    with client(port) as one:
        one.send(b"?")
        _, peer = a.receive()
    for _ in range(3):
        a.sock.sendto(b"!", peer)
    with client(port) as other:
        other.send(b"?")
        a.answer()
        assert other.recv(100) == b"a?"


def test_an_address_that_is_none_is_a_refusal(relay):
    port = serve(relay, Endpoint("a", "no.such.host", 53))
    with client(port) as one:
        one.send(b"?")
        assert "not a numeric address" in relay.wait(Refused, endpoint="a").error
        until(lambda: relay.counters().dropped == 1)


def test_a_socket_never_asks_itself(relay, monkeypatch):
    """The kernel may choose the task's own port as the source port of the socket to it."""
    monkeypatch.setattr("kecs.net.dial.ephemeral_range", lambda: (1, 65535))
    free = Task("a")
    free.close()
    real = socket.SocketType.connect

    class Itself(socket.SocketType):
        def connect(self, where):
            self.bind(where)
            real(self, where)

    monkeypatch.setattr(datagrams.socket, "SocketType", Itself)
    port = serve(relay, free.endpoint())
    with client(port) as one:
        one.send(b"?")
        assert relay.wait(Refused, endpoint="a").error == "Connection refused"
        until(lambda: relay.counters().dropped == 1)


def test_what_was_refused_is_not_sent_again_for_a_client_that_is_forgotten(tasks):
    """The loop's turns are taken by hand, so that the client goes between the refusal and its consequence."""
    loop = RelayLoop(lambda _message: None)
    served = udp.ServedByDatagrams(loop, "f")
    (sock,) = listener.bind(["127.0.0.1"], 0, udp=True)
    served.listen((sock,), Datagrams())
    served.snapshot(tuple(task.endpoint() for task in tasks))
    with client(sock.getsockname()[1]) as one:
        one.send(b"?")
        loop._turn()
        (session,) = served.sessions.values()
        served.refused(session.upstream, ConnectionRefusedError())
        served.close(connections=True)
        loop._turn()
        assert (served.dropped, served.counters().by_endpoint) == (1, (("a", 0), ("b", 0)))
    loop._close_all()
