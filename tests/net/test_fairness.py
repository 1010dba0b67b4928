"""One loop, and all at once: a bulk stream, a tunnel at full speed, and a thousand small connections.

The test takes the place of the loop's thread: it has a turn done, and looks what came of it. So everything is
counted in turns, of which only those count in which the kernel had something for the loop: neither another
process nor a second thread of this one has a say in the outcome.
"""

from __future__ import annotations

import collections
import contextlib
import math
import resource
import select
import socket
import struct
from collections.abc import Iterator

import pytest
from tests.net.carriers import carried
from tests.net.peers import Upstream, connect

from kecs.kube.tunnel import Tunnel
from kecs.kube.upgrade import Upgraded
from kecs.net import bulk, listener, precedence
from kecs.net.accept import BURST
from kecs.net.congestion import HIGH
from kecs.net.connection import Connection
from kecs.net.loop import _EVENTS, NARROW, PUT_OFF, RelayLoop
from kecs.net.messages import Carry, Endpoint, HoldLimits, Listen, Snapshot
from kecs.net.relay import End
from kecs.net.stream import Stream
from kecs.wire import spdy_headers

SMALL = 1000
GROUP = 100
"""Small connections that are opened at once, and that have a request under way at once."""
ROUNDS = 3
BLOCK = bytes(256 * 1024)
FRAME = 8 * 1024
"""Bytes of the tunnel's frames."""
BOUND = 2
"""Turns in which a small end is heard: the one that begins with its bytes there, or the next."""
STORM_BOUND = math.ceil((SMALL + 8) / _EVENTS) + 1
"""The same when all speak at once: a turn takes so many events, in the order of their coming."""
PATIENCE = 2000
"""Turns after which the test gives up."""


class Pour:
    """One that says as much as its socket takes."""

    def __init__(self, sock: socket.socket, block: bytes = BLOCK) -> None:
        sock.setblocking(False)
        self._sock, self._block, self._rest = sock, memoryview(block), memoryview(b"")

    def more(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._rest = self._rest or self._block
                self._rest = self._rest[self._sock.send(self._rest) :]


class Swallow:
    """One that reads all there is."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock, self._into = sock, bytearray(1 << 20)
        self.count = 0

    def more(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while size := self._sock.recv_into(self._into):
                self.count += size


class Small:
    """All small connections: clients that ask one byte and wait, servers that answer it."""

    def __init__(self) -> None:
        self.clients: dict[int, socket.socket] = {}
        self.servers: dict[int, socket.socket] = {}
        self.rounds: dict[int, int] = {}
        """How often each client has had its answer."""
        self.under_way: set[int] = set()
        self._poll = select.epoll()

    def add(self, client: socket.socket, server: socket.socket) -> None:
        for sock, group in ((client, self.clients), (server, self.servers)):
            sock.setblocking(False)
            group[sock.fileno()] = sock
            self._poll.register(sock.fileno(), select.EPOLLIN)
        self.rounds[client.fileno()] = 0

    def ask(self, client: int) -> None:
        self.clients[client].sendall(b"?")
        self.under_way.add(client)

    def serve(self) -> None:
        """Answer what came to the servers, and take what came to the clients."""
        for fd, _ in self._poll.poll(0):
            if fd in self.servers:
                assert self.servers[fd].recv(16) == b"?"
                self.servers[fd].sendall(b"!")
            else:
                assert self.clients[fd].recv(16) == b"!"
                self.under_way.remove(fd)
                self.rounds[fd] += 1

    def close(self) -> None:
        self._poll.close()
        for sock in [*self.clients.values(), *self.servers.values()]:
            sock.close()


class Watch:
    """Ends of the loop: for how many turns each has had something to read, and not been heard."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._waits: dict[int, int] = {}
        self.longest = 0

    def add(self, fd: int) -> None:
        self._poll.register(fd, select.POLLIN)

    def look(self) -> int:
        """Look before a turn; return how many wait for it."""
        waits = self._waits
        self._waits = {fd: waits.get(fd, 0) + 1 for fd, _ in self._poll.poll(0)}
        self.longest = max(self.longest, *self._waits.values(), 0)
        return len(self._waits)


class Progress:
    """How much something moves in a turn, and for how many turns it does not although it could."""

    def __init__(self) -> None:
        self.total = self.most = self.pause = self.longest_pause = self.times = 0
        self.beyond = 0
        """Bytes by which it moved more in a turn than was due in that one."""

    def note(self, total: int, *, could: bool, alone: bool = False, due: float = math.inf) -> None:
        """Take how much it has moved by now; what it moves while nobody else is there counts for nothing."""
        moved, self.total = total - self.total, total
        if not alone:
            self.most = max(self.most, moved)
            self.beyond = max(self.beyond, moved - due)
        self.times += moved > 0
        self.pause = 0 if moved else self.pause + could
        self.longest_pause = max(self.longest_pause, self.pause)


class Scene:
    """The loop and all who talk through it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.stack = stack
        self.loop = RelayLoop(lambda _message: None)
        stack.callback(self.loop._close_all)
        self.upstream = stack.enter_context(contextlib.closing(Upstream()))
        self.small = stack.enter_context(contextlib.closing(Small()))
        self.watch = Watch()
        self.begins_tunnel()
        self.small_port = self.forward("small", self.upstream.endpoint())
        self.begins_bulk()

    def forward(self, name: str, endpoint: Endpoint) -> int:
        sockets = listener.bind(["127.0.0.1"], 0)
        port = sockets[0].getsockname()[1]
        self.loop.send(Listen(name, sockets, HoldLimits()))
        self.loop.send(Snapshot(name, 1, (endpoint,)))
        self.loop._turn()
        return int(port)

    def begins_tunnel(self) -> None:
        """Open a tunnel with two connections: one gets a body without an end, one asks now and then."""
        near, self.far = socket.socketpair()
        self.stack.enter_context(self.far)
        near.setblocking(False)
        self.carrier = Tunnel(Upgraded(near, "spdy", b""))
        self.loop.send(Carry("ns/pod", self.carrier))
        port = self.forward("carried", carried())
        reader = self.stack.enter_context(connect(port))
        body = self.stream()
        assert body.channel is not None
        self.stream_of_body = body
        self.far.sendall(reply(body.channel))
        self.far_pours = Pour(self.far, frame(body.channel, bytes(FRAME)) * 16)
        self.swallows = [Swallow(reader)]
        self.asker = self.stack.enter_context(connect(port))
        self.questions = self.stream()
        self.watch_asker = Watch()
        assert isinstance(self.questions.peer, End)
        self.watch_asker.add(self.questions.peer.fd)
        self.asking = False
        self.asked: int | None = None
        """The turn before which the question that is under way could be read."""
        self.slowest_question = self.heard_questions = 0

    def stream(self) -> Stream:
        """Return the next connection through the tunnel."""
        stream = self.connection("carried").upstream
        assert isinstance(stream, Stream)
        return stream

    def connection(self, forward: str) -> Connection:
        """Have turns done until the next connection of the forward has both its ends."""
        served = self.loop._forwards[forward]
        number = 1 + max((one.number for one in served.connections if one.client.peer), default=0)
        for _ in range(PATIENCE):
            for one in served.connections:
                if one.number == number and one.client.peer is not None:
                    return one
            self.loop.at(self.loop.now + 0.01, lambda: None)  # the kernel may take a moment
            self.loop._turn()
        raise AssertionError(f"no connection came to {forward}")

    def begins_bulk(self) -> None:
        """Open a connection whose client never stops."""
        port = self.forward("bulk", self.upstream.endpoint())
        client = self.stack.enter_context(connect(port))
        connection = self.connection("bulk")
        self.bulk_end = connection.client
        self.bulk_end.score = bulk.PROOF + bulk.PATIENCE  # so it is spliced from the first byte on
        assert connection.upstream is not None
        self.bulk_poll = select.poll()
        self.bulk_poll.register(self.bulk_end.fd, select.POLLIN)
        self.bulk_poll.register(connection.upstream.fd, select.POLLOUT)
        self.swallows.append(Swallow(self.stack.enter_context(self.upstream.accept())))
        self.pours = [self.far_pours, Pour(client)]
        self.spliced = self.gave_way = 0
        """Turns after which the bulk stream counted as bulky, and before which the tunnel gave way."""
        self.restart()

    def restart(self) -> None:
        """Begin to count anew."""
        self.bulk, self.tunnel = Progress(), Progress()
        self.bulk.total, self.tunnel.total = self.bulk_end.count, self.of_tunnel()
        self.watch.longest = self.kept = 0

    def of_tunnel(self) -> int:
        return self.stream_of_body.count + self.stream_of_body.buffered

    def turn(self) -> None:
        """Have all say and read what they can, and then the loop's turn."""
        for one in (*self.swallows, *self.pours):
            one.more()
        self.small.serve()
        alone = not self.watch.look()
        if self.watch_asker.look() and self.asked is None:
            self.asked = self.loop.turn
        bulk_could = len(self.bulk_poll.poll(0)) == 2
        gives_way = self.carrier._gives_way
        self.gave_way += gives_way
        self.loop._turn()
        self.spliced += self.bulk_end.score >= bulk.PROOF
        self.bulk.note(self.bulk_end.count, could=bulk_could)
        due = precedence.PORTION if self.loop.hurried else NARROW
        self.tunnel.note(self.of_tunnel(), could=not gives_way, alone=alone, due=due)
        ends = [end for end in self.loop.ends.values() if isinstance(end, End)]
        kept = sum(len(end.pending) for end in ends if end.pending is not None)
        self.kept = max(self.kept, kept + self.stream_of_body.buffered)
        self.hear_question()

    def others(self) -> int:
        """Return how often somebody had something to say who cannot wait."""
        return self.loop._heard - self.loop.patient

    def ask_through_tunnel(self) -> None:
        """Have the other client of the tunnel ask, if it has had its last question heard."""
        if not self.asking:
            self.asking = True
            self.asker.sendall(QUESTION)

    def hear_question(self) -> None:
        with contextlib.suppress(BlockingIOError):
            said = self.far.recv(1 << 16)
            if QUESTION in said:
                assert self.asked is not None
                self.slowest_question = max(self.slowest_question, self.loop.turn - self.asked)
                self.heard_questions += 1
                self.asking, self.asked = False, None

    def connect(self, count: int) -> int:
        """Open so many small connections; return for how many turns there were some to be let in."""
        sockets = [connect(self.small_port) for _ in range(count)]
        clients = {sock.getsockname(): sock for sock in sockets}
        for sock in sockets:
            self.stack.callback(sock.close)
        served = self.loop._forwards["small"]
        wanted = served.total + count
        queue = select.poll()
        queue.register(served.listeners[0].fd, select.POLLIN)
        turns = 0
        while served.total < wanted or any(each.client.peer is None for each in served.connections):
            turns += len(queue.poll(0))
            self.turn()
            assert self.loop.turn < PATIENCE
        by_peer = {}
        for each in served.connections:
            by_peer[each.upstream.sock.getsockname()] = each
        for _ in range(count):
            server = self.upstream.accept()
            relayed = by_peer[server.getpeername()]
            self.small.add(clients[relayed.client.sock.getpeername()], server)
            self.watch.add(relayed.client.fd)
            self.watch.add(relayed.upstream.fd)
        return turns


QUESTION = b"how far is it to the pod"


def frame(channel: int, data: bytes) -> bytes:
    """A SPDY frame of data."""
    return struct.pack("!II", channel, len(data)) + data


def reply(channel: int) -> bytes:
    """A SPDY frame that takes a stream that was opened (SYN_REPLY)."""
    body = struct.pack("!I", channel) + spdy_headers.Deflater().deflate(spdy_headers.block())
    return struct.pack("!HHI", 0x8003, 2, len(body)) + body


@pytest.fixture
def descriptors_enough(nothing_left: None) -> Iterator[None]:
    """Four for each small connection, two of them the loop's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 4 * SMALL + 1000
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"a process may have {hard} open files here, this takes {needed}")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors_enough")
def test_a_bulk_stream_a_tunnel_and_a_thousand_small_connections_share_the_loop():
    with contextlib.ExitStack() as stack:
        scene = Scene(stack)
        small = scene.small

        # Two bodies: neither is one for whose sake the other waits.
        others = scene.others()
        for _ in range(100):
            scene.turn()
        assert scene.others() == others
        assert scene.spliced or not bulk.AVAILABLE
        assert not scene.gave_way

        # A thousand come, a group at a time.
        slowest = max(scene.connect(GROUP) for _ in range(SMALL // GROUP))
        assert slowest <= 2 * math.ceil(GROUP / BURST) + 5  # a listener's burst doubles from 1
        assert scene.bulk.longest_pause <= BOUND
        assert scene.tunnel.longest_pause <= BOUND

        # Each in its turn asks, `GROUP` at once, and next when it has its answer.
        scene.restart()
        queue = collections.deque(list(small.clients) * ROUNDS)
        while queue or small.under_way:
            while queue and len(small.under_way) < GROUP:
                small.ask(queue.popleft())
            scene.ask_through_tunnel()
            scene.turn()
            assert scene.loop.turn < PATIENCE
        assert set(small.rounds.values()) == {ROUNDS}
        assert_fair(scene, BOUND)
        assert scene.gave_way, "while so many ask a tunnel gives way"
        assert scene.tunnel.times > 1, "for a moment, and again"

        # All ask at once.
        scene.restart()
        for client in small.clients:
            small.ask(client)
        while small.under_way:
            scene.turn()
            assert scene.loop.turn < PATIENCE
        assert set(small.rounds.values()) == {ROUNDS + 1}
        assert_fair(scene, STORM_BOUND)

        assert scene.heard_questions > 3
        assert scene.slowest_question <= PUT_OFF + STORM_BOUND
        if bulk.AVAILABLE:
            assert scene.spliced >= bulk.PATIENCE
            assert scene.loop.pipes.bytes <= (bulk.SPARE + 1) * bulk.CAPACITY


def assert_fair(scene: Scene, bound: int) -> None:
    """Nobody waited for more turns than that, nobody took more of one than is due, and little was kept."""
    assert 1 <= scene.watch.longest <= bound
    assert scene.bulk.longest_pause <= bound
    assert scene.tunnel.longest_pause <= bound
    assert scene.bulk.most <= 2 * (bulk.TURN + bulk.CAPACITY)  # an event's and a cut-short turn's
    assert scene.tunnel.beyond == 0
    assert scene.kept <= bulk.CAPACITY + HIGH
