"""Bytes, ends and resets through the relay."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import random
import socket
import struct
import termios
import threading
import time

import pytest
from tests.net.peers import (
    Upstream,
    connect,
    fill,
    read,
    read_all,
    reset,
    until,
    was_reset,
)

from kecs.net import bulk
from kecs.net.relay import BUFFER, End


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_bytes_pass_both_ways(relay, host):
    """A connection is relayed on IPv4 and IPv6."""
    with contextlib.closing(Upstream(host)) as upstream:
        port = relay.forward(upstream.endpoint(), addresses=[host])
        with connect(port, host) as client, upstream.accept() as server:
            client.sendall(b"question")
            asked = read(server, 8)
            server.sendall(b"answer")

            assert (asked, read(client, 6)) == (b"question", b"answer")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_sides_are_probed_do_not_delay_and_end_by_a_reset_if_the_process_dies(relay, host):
    with contextlib.closing(Upstream(host)) as upstream:
        port = relay.forward(upstream.endpoint(), addresses=[host])
        with connect(port, host), upstream.accept():
            until(lambda: relay.counters().open == 1)
            ends = [end.sock for end in relay.loop.ends.values() if isinstance(end, End)]
            options = [
                (
                    sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                    sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                    sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                    sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
                    sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
                    struct.unpack("ii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)),
                )
                for sock in ends
            ]

            assert options == [(1, 60, 15, 4, 1, (1, 0))] * 2


def test_the_server_may_speak_first(relay, upstream):
    port = relay.forward(upstream.endpoint())
    with connect(port) as client, upstream.accept() as server:
        server.sendall(b"220 ready")

        assert read(client, 9) == b"220 ready"


@pytest.mark.parametrize("first", ["client", "server"])
def test_half_close_passes_and_the_other_direction_goes_on(relay, upstream, first):
    port = relay.forward(upstream.endpoint())
    with connect(port) as client, upstream.accept() as server:
        one, two = (client, server) if first == "client" else (server, client)
        one.sendall(b"the last of it")
        one.shutdown(socket.SHUT_WR)
        assert read_all(two) == b"the last of it"
        assert relay.counters().open == 1
        two.sendall(b"still talking")
        assert read(one, 13) == b"still talking"
        two.sendall(b", now done")
        two.shutdown(socket.SHUT_WR)

        assert read_all(one) == b", now done"
        until(lambda: relay.counters().open == 0)


def _segments_received(sock: socket.socket) -> int:
    """Segments that came for a socket (`tcpi_segs_in` in Linux' struct tcp_info)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144)
    return int(struct.unpack_from("I", info, 140)[0])


def test_the_last_bytes_and_the_end_leave_together(relay, upstream):
    """What came with a FIN goes on with it: one packet, and one wake-up of who reads."""
    port = relay.forward(upstream.endpoint())
    with connect(port) as client, upstream.accept() as server:
        client.sendall(b"ask")
        read(server, 3)
        before = _segments_received(client)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # they come together, too
        server.sendall(b"the answer")
        server.shutdown(socket.SHUT_WR)

        assert read_all(client) == b"the answer"
        assert _segments_received(client) - before == 1
        client.sendall(b"thanks")
        assert read(server, 6) == b"thanks"


@pytest.mark.parametrize("size", [1, BUFFER - 1, BUFFER, BUFFER + 1, 3 * BUFFER])
@pytest.mark.parametrize("window", [None, 4096])
def test_what_comes_with_the_end_arrives_whole(relay, upstream, size, window):
    """However much it is, and however slowly it is taken."""
    data = random.Random(size).randbytes(size)
    port = relay.forward(upstream.endpoint())
    with connect(port, window=window) as client, upstream.accept() as server:
        until(lambda: relay.counters().open == 1)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        server.sendall(data)
        server.close()

        assert read_all(client) == data


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_on_one_side_is_a_reset_on_the_other(relay, host, who):
    with contextlib.closing(Upstream(host)) as upstream:
        port = relay.forward(upstream.endpoint(), addresses=[host])
        client, server = connect(port, host), upstream.accept()
        one, two = (client, server) if who == "client" else (server, client)
        one.sendall(b"some")
        assert read(two, 4) == b"some"
        reset(one)

        assert was_reset(two)
        two.close()


def test_a_reset_after_a_half_close_is_a_reset_on_the_other_side(relay, upstream):
    """The client asked, half-closed and died: the server that still sends is told by a reset."""
    port = relay.forward(upstream.endpoint())
    client, server = connect(port), upstream.accept()
    client.sendall(b"ask")
    client.shutdown(socket.SHUT_WR)
    assert read_all(server) == b"ask"
    server.sendall(b"begin")
    assert read(client, 5) == b"begin"
    reset(client)

    # After a FIN Linux tells of a RST by EPIPE; an orderly close would leave no error at all.
    until(lambda: server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EPIPE)
    server.close()


def test_what_came_before_a_reset_is_passed_on_before_it(relay, upstream):
    """As without a relay: the early answer of a server that then resets can be read."""
    port = relay.forward(upstream.endpoint())
    client, server = connect(port), upstream.accept()
    client.sendall(b"unread by the server")
    until(lambda: relay.counters().received == 20)
    server.sendall(b"413 too large")
    server.close()  # with unread bytes: Linux makes it a RST

    assert read(client, 13) == b"413 too large"
    assert was_reset(client)
    client.close()


def test_data_before_a_fin_is_delivered_to_a_slow_reader_although_a_reset_follows(relay, upstream):
    """The server sent all, closed, and then got more from the client: its kernel answers with RST."""
    port = relay.forward(upstream.endpoint())
    client, server = connect(port, window=4096), upstream.accept()
    total = 0
    while True:  # until the relay holds bytes of a server that was rid of them all
        server.sendall(bytes(1 << 16))
        total += 1 << 16
        until(lambda: undelivered(server) == 0)
        if not comes_true(lambda so_far=total: relay.counters().sent == so_far):
            break
    server.close()
    client.sendall(b"too late")
    until(lambda: relay.counters().received == 8)

    assert len(read_all(client)) == total
    client.close()
    until(lambda: relay.counters().open == 0)


def undelivered(sock: socket.socket) -> int:
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"    "))[0]


def comes_true(condition, seconds: float = 0.1) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return False


def test_a_stalled_reader_costs_its_own_connection_and_bounded_memory(relay, upstream):
    port = relay.forward(upstream.endpoint())
    with connect(port, window=8192) as stalled, upstream.accept() as server:
        taken = fill(server)
        kept = [len(e.pending or b"") for e in relay.loop.ends.values() if isinstance(e, End)]
        assert 0 < sum(kept) <= bulk.CAPACITY
        with connect(port) as client, upstream.accept() as second:
            client.sendall(b"ping")
            assert read(second, 4) == b"ping"
            second.sendall(b"pong")
            assert read(client, 4) == b"pong"

        digest = 0
        server.shutdown(socket.SHUT_WR)
        while part := stalled.recv(1 << 16):
            digest += len(part)
        assert digest == taken


def test_random_bytes_arrive_whole_both_ways_past_slow_readers(relay, upstream):
    """Both directions at once, with readers and writers that pause at random; compared by hash."""
    port = relay.forward(upstream.endpoint())
    seeds = random.Random(5)

    def write(sock: socket.socket, seed: int, result: dict) -> None:
        rng, digest = random.Random(seed), hashlib.sha256()
        for _ in range(150):
            block = rng.randbytes(rng.choice([1, 100, 5000, 65536, 200_000]))
            digest.update(block)
            sock.sendall(block)
            if rng.random() < 0.1:
                time.sleep(0.002)
        sock.shutdown(socket.SHUT_WR)
        result["wrote"] = digest.hexdigest()

    def drain(sock: socket.socket, seed: int, result: dict) -> None:
        rng, digest = random.Random(seed), hashlib.sha256()
        while part := sock.recv(rng.choice([10, 1000, 100_000])):
            digest.update(part)
            if rng.random() < 0.02:
                time.sleep(0.002)
        result["read"] = digest.hexdigest()

    threads, results = [], []
    sockets = []
    for _ in range(3):
        client, server = connect(port, window=16384), upstream.accept()
        sockets += [client, server]
        for one, two in ((client, server), (server, client)):
            result: dict = {}
            results.append(result)
            threads.append(threading.Thread(target=write, args=(one, seeds.random(), result)))
            threads.append(threading.Thread(target=drain, args=(two, seeds.random(), result)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for sock in sockets:
        sock.close()

    assert all(result["wrote"] == result["read"] for result in results)
    until(lambda: relay.counters().open == 0)
