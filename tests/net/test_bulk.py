"""Bulk by splice: when a direction takes it and leaves it, its ends, its bounds, and what replaces it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import random
import socket
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.net.carriers import FakeCarrier, carried
from tests.net.peers import (
    Relay,
    Upstream,
    connect,
    descriptors,
    fill,
    read,
    reset,
    until,
    was_reset,
)

from kecs.net import bulk
from kecs.net.messages import Carry, Ended, Watch
from kecs.net.relay import BUFFER, End

pytestmark = pytest.mark.skipif(not bulk.AVAILABLE, reason="no splice here")

MEGABYTE = 1 << 20


@pytest.fixture
def moves(monkeypatch) -> list[End]:
    """The ends whose bytes went by a pipe, once for each time."""
    seen: list[End] = []
    move = bulk.move

    def noted(end: End, peer: End) -> None:
        seen.append(end)
        move(end, peer)

    monkeypatch.setattr(bulk, "move", noted)
    return seen


def send(sock: socket.socket, size: int, seed: int = 1) -> str:
    """Send random bytes; return their hash."""
    rng, digest = random.Random(seed), hashlib.sha256()
    while size:
        block = rng.randbytes(min(size, MEGABYTE))
        digest.update(block)
        sock.sendall(block)
        size -= len(block)
    return digest.hexdigest()


class Writer(threading.Thread):
    """Sends in the background, and ends its side after that."""

    def __init__(self, sock: socket.socket, size: int, *, end: bool = True) -> None:
        super().__init__()
        self._work = (sock, size, end)
        self.digest = ""
        self.start()

    def run(self) -> None:
        sock, size, end = self._work
        self.digest = send(sock, size)
        if end:
            sock.shutdown(socket.SHUT_WR)


def read_digest(sock: socket.socket, size: int | None = None) -> tuple[int, str]:
    """Read `size` bytes, or to the FIN; return how many they were, and their hash."""
    got, digest = 0, hashlib.sha256()
    while size is None or got < size:
        part = sock.recv(MEGABYTE if size is None else min(MEGABYTE, size - got))
        if not part:
            break
        got += len(part)
        digest.update(part)
    return got, digest.hexdigest()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("way", ["up", "down"])
def test_bulk_goes_by_a_pipe_and_arrives_whole_with_its_end(relay, moves, host, way):
    size = 24 * MEGABYTE + 12345
    with contextlib.closing(Upstream(host)) as upstream:
        port = relay.forward(upstream.endpoint(), addresses=[host])
        with connect(port, host) as client, upstream.accept() as server:
            source, target = (client, server) if way == "up" else (server, client)
            writer = Writer(source, size)
            got, digest = read_digest(target)
            writer.join()

            assert (got, digest) == (size, writer.digest)
            assert moves
            counted = relay.counters()
            assert (counted.received, counted.sent) == ((size, 0) if way == "up" else (0, size))
            target.sendall(b"the other way goes on")
            assert read(source, 21) == b"the other way goes on"


def test_both_ways_at_once_by_pipes(relay, upstream, moves):
    size = 12 * MEGABYTE
    port = relay.forward(upstream.endpoint())
    relay.loop.send(Watch("f", on=True))
    with connect(port) as client, upstream.accept() as server:
        writers = [Writer(client, size), Writer(server, size)]
        there: list[tuple[int, str]] = []
        reader = threading.Thread(target=lambda: there.append(read_digest(server)))
        reader.start()
        here = read_digest(client)
        for thread in (*writers, reader):
            thread.join()

    assert [*there, here] == [(size, writer.digest) for writer in writers]
    assert len(set(moves)) == 2
    ended = relay.wait(Ended)
    assert (ended.why, ended.received, ended.sent) == ("closed", size, size)


def test_small_messages_never_touch_a_pipe(relay, upstream, moves):
    port = relay.forward(upstream.endpoint())
    with connect(port) as client, upstream.accept() as server:
        for size in (1, 1000, 60_000, 100_000) * 5:
            client.sendall(bytes(size))
            assert read(server, size) == bytes(size)
            server.sendall(bytes(size))
            assert read(client, size) == bytes(size)

    assert not moves
    assert relay.loop.pipes.bytes == 0


def test_a_direction_that_becomes_small_goes_back(relay, upstream, moves):
    port = relay.forward(upstream.endpoint())
    with connect(port) as client, upstream.accept() as server:
        writer = Writer(client, 16 * MEGABYTE, end=False)
        read_digest(server, 16 * MEGABYTE)
        writer.join()
        assert moves
        for _ in range(10 * bulk.PATIENCE):  # two that come at once count once
            client.sendall(b"small")
            assert read(server, 5) == b"small"
        moves.clear()
        for _ in range(5):
            client.sendall(b"small")
            assert read(server, 5) == b"small"
        assert not moves

        writer = Writer(client, 16 * MEGABYTE, end=False)
        read_digest(server, 16 * MEGABYTE)
        writer.join()
        assert moves, "and to a pipe again"


def stall(
    relay: Relay, port: int, upstream: Upstream, stack: contextlib.ExitStack
) -> tuple[socket.socket, socket.socket, int]:
    """Have a server send until nothing is taken any more by a client that does not read."""
    client = stack.enter_context(connect(port, window=8192))
    server = stack.enter_context(upstream.accept())
    until(lambda: relay.counters().by_endpoint[0][1] == len(ends(relay)) / 2)
    for end in ends(relay):
        end.score = bulk.PROOF + bulk.PATIENCE  # as if it had sent much before
    return client, server, fill(server, quiet=0.1)


def ends(relay: Relay) -> list[End]:
    return [end for end in list(relay.loop.ends.values()) if isinstance(end, End)]


def in_pipes(relay: Relay) -> list[int]:
    """What waits in pipes, by reader."""
    return [len(end.pending) for end in ends(relay) if isinstance(end.pending, bulk.Pipe)]


def test_a_stalled_reader_keeps_one_pipe_and_gets_everything_later(relay, upstream):
    port = relay.forward(upstream.endpoint())
    with contextlib.ExitStack() as stack:
        client, server, taken = stall(relay, port, upstream, stack)
        kept = in_pipes(relay)
        assert len(kept) == 1
        assert 0 < kept[0] <= bulk.CAPACITY
        counted = relay.counters()
        assert counted.received == 0
        assert 0 < counted.sent < taken, "what is in the pipe was not sent yet"
        server.shutdown(socket.SHUT_WR)

        assert read_digest(client)[0] == taken
        until(lambda: relay.counters().sent == taken)
        assert in_pipes(relay) == []


def test_many_stalled_readers_never_have_all_pipes_and_others_go_on(relay, upstream, monkeypatch, moves):
    """However many stall, pipes stay within their bound and a new bulky direction still goes by one."""
    monkeypatch.setattr(bulk, "MOST", 3 * bulk.CAPACITY)
    port = relay.forward(upstream.endpoint())
    with contextlib.ExitStack() as stack:
        stalled = [stall(relay, port, upstream, stack) for _ in range(5)]
        assert len(in_pipes(relay)) == 2
        assert relay.loop.pipes.bytes <= 3 * bulk.CAPACITY
        memory = [len(end.pending) for end in ends(relay) if isinstance(end.pending, memoryview)]
        assert len(memory) == 3
        assert max(memory) <= bulk.DEFAULT

        moves.clear()
        with connect(port) as client, upstream.accept() as server:
            writer = Writer(server, 16 * MEGABYTE)
            assert read_digest(client)[0] == 16 * MEGABYTE
            writer.join()
        assert moves
        for client, server, taken in stalled:
            server.shutdown(socket.SHUT_WR)
            assert read_digest(client)[0] == taken


@pytest.mark.parametrize("who", ["reader", "writer"])
def test_a_reset_with_bytes_in_a_pipe_is_a_reset_on_the_other_side(relay, upstream, who):
    port = relay.forward(upstream.endpoint())
    with contextlib.ExitStack() as stack:
        client, server, _ = stall(relay, port, upstream, stack)
        assert in_pipes(relay)
        reset(client if who == "reader" else server)
        assert was_reset(server if who == "reader" else client)
        until(lambda: relay.counters().open == 0)

        assert in_pipes(relay) == []
        assert relay.loop.pipes.bytes <= bulk.SPARE * bulk.CAPACITY, "what was in it is gone with it"


def test_a_reset_of_the_source_in_the_middle_of_bulk_is_passed_on(relay, upstream, moves):
    port = relay.forward(upstream.endpoint())
    client, server = connect(port), upstream.accept()
    seen: list[bool] = []
    reader = threading.Thread(target=lambda: seen.append(was_reset(server)))
    reader.start()
    send(client, 24 * MEGABYTE)
    assert moves
    reset(client)
    reader.join()
    server.close()

    assert seen == [True]
    until(lambda: relay.counters().open == 0)


def test_a_reset_of_the_target_in_the_middle_of_bulk_is_passed_on(relay, upstream, moves):
    port = relay.forward(upstream.endpoint())
    client, server = connect(port), upstream.accept()

    def leave() -> None:
        read_digest(server, 24 * MEGABYTE)
        reset(server)

    reader = threading.Thread(target=leave)
    reader.start()
    with pytest.raises(ConnectionResetError):
        send(client, 200 * MEGABYTE)
    reader.join()
    client.close()

    assert moves
    until(lambda: relay.counters().open == 0)


def test_bytes_in_the_pipe_at_the_end_are_delivered_before_it_although_a_reset_follows(relay, upstream):
    """The server sent all, closed, and then got more from the client: its kernel answers with RST."""
    port = relay.forward(upstream.endpoint())
    with contextlib.ExitStack() as stack:
        client, server, taken = stall(relay, port, upstream, stack)
        assert in_pipes(relay)
        server.shutdown(socket.SHUT_WR)
        client.sendall(b"late")
        assert read(server, 4) == b"late"

        assert read_digest(client)[0] == taken


class Kernel:
    """`fcntl` as a user who is not root may find it."""

    F_SETPIPE_SZ = fcntl.F_SETPIPE_SZ
    F_GETPIPE_SZ = fcntl.F_GETPIPE_SZ

    def __init__(self, size: int) -> None:
        self.size = size
        self.refused = 0

    def fcntl(self, descriptor: int, command: int, argument: int = 0) -> int:
        if command == self.F_SETPIPE_SZ:
            self.refused += 1
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return self.size


def test_where_pipes_may_not_grow_small_ones_do(relay, upstream, moves, monkeypatch):
    """EPERM: the user's pipes have `pipe-user-pages-soft` already (pipe(7))."""
    kernel = Kernel(bulk.DEFAULT)
    monkeypatch.setattr(bulk, "fcntl", kernel)
    port = relay.forward(upstream.endpoint())
    with connect(port) as client, upstream.accept() as server:
        writer = Writer(client, 16 * MEGABYTE)
        assert read_digest(server) == (16 * MEGABYTE, writer.digest)
        writer.join()

    assert moves
    assert kernel.refused
    assert 0 < relay.loop.pipes.bytes <= bulk.SPARE * bulk.DEFAULT


def copied(relay: Relay, upstream: Upstream) -> None:
    """Have bulk arrive whole, with no pipe left."""
    port = relay.forward(upstream.endpoint())
    with connect(port) as client, upstream.accept() as server:
        writer = Writer(client, 40 * MEGABYTE)
        got = read_digest(server)
        writer.join()
        assert got == (40 * MEGABYTE, writer.digest)
    assert relay.loop.pipes.bytes == 0


def test_a_pipe_of_two_pages_is_not_worth_it(relay, upstream, monkeypatch):
    """What a user above that bound gets: recv and send move more at once."""
    monkeypatch.setattr(bulk, "fcntl", Kernel(8192))
    before = descriptors()
    copied(relay, upstream)
    until(lambda: relay.counters().open == 0)

    assert descriptors() <= before + 1  # the listener


def test_without_descriptors_for_pipes_bulk_is_copied(relay, upstream, monkeypatch):
    asked = []

    def exhausted(flags: int) -> tuple[int, int]:
        asked.append(flags)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pipe2", exhausted)
    copied(relay, upstream)

    assert 1 <= len(asked) <= 40 * MEGABYTE / bulk.DEFAULT / -bulk.LATER + 1, "asked for now and then"


def test_where_there_is_no_splice_bulk_is_copied_and_nothing_is_asked_for(
    relay, upstream, moves, monkeypatch
):
    monkeypatch.setattr(bulk, "AVAILABLE", False)
    copied(relay, upstream)

    assert len(moves) == 1, "the first try says that there is none"


def test_pipes_leave_the_last_descriptors_to_connections(monkeypatch):
    room = [True]
    pipes = bulk.Pipes(lambda: room[0])
    try:
        pipe = pipes.take()
        assert pipe is not None
        assert pipes.descriptors == 2
        assert pipes.may_keep()
        room[0] = False
        assert pipes.take() is None
        assert not pipes.may_keep()
        pipes.give(pipe)
        assert pipes.take() is pipe
        pipes.give(pipe)
        pipes.trim()
        assert (pipes.descriptors, pipes.bytes) == (0, 0)
    finally:
        pipes.close()


def test_only_a_few_empty_pipes_are_kept():
    pipes = bulk.Pipes(lambda: True)
    taken = [pipes.take() for _ in range(bulk.SPARE + 3)]
    for pipe in taken:
        assert pipe is not None
        pipes.give(pipe)

    assert pipes.descriptors == 2 * bulk.SPARE
    pipes.close()
    assert pipes.descriptors == 0


def test_urgent_data_in_bulk_stalls_nothing_and_ends_nothing(relay, upstream, moves):
    """Splice stops at the urgent mark for good: what follows goes on by recv."""
    port = relay.forward(upstream.endpoint())
    with connect(port) as client, upstream.accept() as server:
        size = 8 * MEGABYTE
        server.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)

        def write() -> None:
            for _ in range(3):
                send(client, size)
                client.send(b"!", socket.MSG_OOB)
            client.sendall(b"and more")
            client.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=write)
        thread.start()
        got = 0
        last = b""
        while part := server.recv(MEGABYTE):
            got += len(part)
            last = (last + part)[-8:]
        thread.join()

    assert moves
    assert last == b"and more"
    assert got == 3 * size + 8  # an urgent byte is not data: it is not passed on, and was not before


def test_bulk_to_a_carrier_is_copied(relay, moves):
    carrier = FakeCarrier()
    relay.loop.send(Carry("ns/pod", carrier))
    port = relay.forward(carried())
    with contextlib.closing(carrier.far) as far, connect(port) as client:
        channel = far.opened()
        taken = fill(client)
        client.shutdown(socket.SHUT_WR)

        assert len(far.read(channel, taken)) == taken > 2 * bulk.PROOF * BUFFER
    assert not moves


def test_a_loop_that_ends_closes_pipes_that_are_in_use(upstream):
    relay = Relay()
    before = descriptors()
    port = relay.forward(upstream.endpoint())
    with contextlib.ExitStack() as stack:
        stall(relay, port, upstream, stack)
        assert in_pipes(relay)
        relay.stop()
    assert descriptors() < before


Pieces = list[tuple[int, float]]
PIECES: st.SearchStrategy[Pieces] = st.lists(
    st.tuples(
        st.sampled_from([1, 300, 5000, 65_536, 200_000, 700_000, 2_000_000]),
        st.sampled_from([0.0, 0.0, 0.0, 0.001]),
    ),
    max_size=10,
)


def test_whatever_is_said_arrives_to_the_byte_and_ends(relay, upstream):
    """Pieces of any size with pauses, both ways at once, with readers of all kinds."""
    port = relay.forward(upstream.endpoint())

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(PIECES, PIECES, st.sampled_from([None, 8192, 100_000]), st.sampled_from([700, MEGABYTE]))
    def check(up: Pieces, down: Pieces, window: int | None, bite: int) -> None:
        client, server = connect(port, window=window), upstream.accept()
        found = converse(client, server, up, down, bite)
        assert found["up said"] == found["up heard"]
        assert found["down said"] == found["down heard"]

    check()
    until(lambda: relay.counters().open == 0)


def converse(
    client: socket.socket, server: socket.socket, up: Pieces, down: Pieces, bite: int
) -> dict[str, str]:
    """Say all that from both sides, and end; return hashes of what was said and heard."""
    found: dict[str, str] = {}

    def write(sock: socket.socket, pieces, name: str) -> None:
        rng, digest = random.Random(name), hashlib.sha256()
        for size, pause in pieces:
            block = rng.randbytes(size)
            digest.update(block)
            sock.sendall(block)
            time.sleep(pause)
        sock.shutdown(socket.SHUT_WR)
        found[f"{name} said"] = digest.hexdigest()

    def listen(sock: socket.socket, name: str) -> None:
        digest = hashlib.sha256()
        while part := sock.recv(bite):
            digest.update(part)
        found[f"{name} heard"] = digest.hexdigest()

    threads = [
        threading.Thread(target=write, args=(client, up, "up")),
        threading.Thread(target=write, args=(server, down, "down")),
        threading.Thread(target=listen, args=(server, "up")),
        threading.Thread(target=listen, args=(client, "down")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    client.close()
    server.close()

    return found
