"""The life of one connection: accepted, held or dialled, open, closed.

Who takes it and how long it waits is `kecs.net.served`'s to say; the bytes are `kecs.net.relay`'s.
"""

from __future__ import annotations

import logging
import socket
import time
from typing import TYPE_CHECKING

from kecs.net import dial
from kecs.net.poller import ERROR, HANG_UP, IN, OUT, READ_END
from kecs.net.relay import EVENTS, End

if TYPE_CHECKING:
    from kecs.net.places import Place
    from kecs.net.served import Served
    from kecs.net.stream import Stream

_log = logging.getLogger(__name__)
NOTHING: frozenset[Place] = frozenset()


class Connection:
    """One client and, once there is one, the endpoint that serves it."""

    __slots__ = (
        "client", "dialled_at", "doubted", "number", "place", "served", "since", "tried", "unsaid",
        "upstream",
    )  # fmt: skip

    def __init__(self, served: Served, sock: socket.SocketType, number: int, since: float) -> None:
        self.served = served
        self.number = number
        """Counts from 1 in each forward."""
        self.since = since
        """When it was accepted (monotonic seconds)."""
        self.dialled_at = 0.0
        """When the last dial for it began."""
        self.client = End(served.loop, self, sock)
        self.upstream: End | Stream | None = None
        """There while it is dialled and open."""
        self.place: Place | None = None
        self.doubted = False
        """It is connected to something that may have nobody behind it: nothing is sent yet."""
        self.tried: frozenset[Place] = NOTHING
        """Places that refused it since it was last held."""
        self.unsaid = b""
        """What the client said to `kecs.net.front`, or to a place that turned out to have refused it: the
        next place gets it first."""

    def take_over(self, said: bytes) -> None:
        """Go on with a client that is watched already and has said this much, to nobody who keeps it."""
        self.unsaid = said
        client = self.client
        client.count = len(said)
        client.stirred = True  # its last event may have brought more than was read
        self.served.loop.ends[client.fd] = client

    def watch(self) -> None:
        """Have the client watched before it has a peer."""
        if self.client.fd not in self.served.loop.ends:
            self.served.loop.add(self.client, EVENTS)

    def dialling(self, sock: socket.SocketType) -> None:
        """Wait until `sock` is connected."""
        self.watch()
        self.upstream = upstream = End(self.served.loop, self, sock)
        upstream.out = True
        self.served.loop.add(upstream, EVENTS | OUT)

    def open(self, sock: socket.SocketType) -> None:
        """Relay between the client and `sock`, which is connected."""
        loop = self.served.loop
        self.tried = NOTHING
        self.doubted = False
        client = self.client
        upstream = self.upstream
        if upstream is None:
            self.upstream = upstream = End(loop, self, sock)
            loop.add(upstream, EVENTS)  # reports at once what came already
        client.peer = upstream
        upstream.peer = client
        if self.unsaid and not self._say_again(upstream):
            return
        if client.fd not in loop.ends:
            loop.add(client, EVENTS)
        elif client.stirred and upstream.pending is None:
            client.pump(to_the_end=True)

    def carried(self, stream: Stream) -> None:
        """Relay between the client and `stream`, of which it is not known yet whether it leads anywhere.

        What the client has sent by the next turn leaves with the opening, in one write.
        """
        loop = self.served.loop
        client = self.client
        self.upstream = stream
        client.peer = stream
        stream.peer = client
        if self.unsaid and not self._say_again(stream):
            return
        if client.fd not in loop.ends:
            loop.add(client, EVENTS)
        elif client.stirred and stream.pending is None:
            client.pump(to_the_end=True)

    def answered(self) -> None:
        """Take that the stream leads somewhere."""
        self.tried = NOTHING
        if self.place is not None:
            self.place.delay = 0.0

    def returned(self, said: bytes, error: OSError) -> None:
        """Go elsewhere: the stream led nowhere, and nothing of `said` was delivered to anybody."""
        self.unsaid = said
        client = self.client
        client.peer = None
        client.ended = False  # it is read once more
        client.stirred = True
        self.served.refused(self, error)

    def begins(self, end: End | Stream) -> None:
        """Take that the first byte came from this end."""
        if end is self.upstream:
            self.served.first_bytes.observe(time.monotonic() - self.since)

    def _say_again(self, upstream: End | Stream) -> bool:
        """Repeat what another place never got; False when that ended the connection."""
        said, self.unsaid = memoryview(self.unsaid), b""
        try:
            sent = upstream.sock.send(said)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            upstream.broken(error.errno)
            return upstream.peer is not None
        if sent < len(said):
            upstream.keep(said[sent:])
        return True

    def early(self, end: End, mask: int) -> None:
        """Something happened while the ends are not peers: the client is held, or the dial is done."""
        if end is self.client:
            self._client_early(mask)
        elif end is self.upstream and self.place is not None:
            if not self.doubted:
                try:
                    done = dial.finished(end.sock, self.place.address)
                except OSError as error:
                    self.served.refused(self, error)
                    return
                if not done:
                    return
                self.served.connected(self, end.sock)
            if end.peer is not None:
                end.on_event(mask)
            elif self.doubted:
                self._hear(end)

    def lasted(self) -> None:
        """Believe the place that was doubted: the connection has not ended."""
        if isinstance(self.upstream, End):
            self.served.believe(self, self.upstream.sock)

    def _hear(self, end: End) -> None:
        """Believe the place that is doubted when it says something; when it ends instead, go elsewhere."""
        try:
            if not end.sock.recv(1, socket.MSG_PEEK):
                raise dial.nobody_behind()
        except BlockingIOError:
            return
        except OSError as error:
            self.served.refused(self, error)
            return
        self.served.believe(self, end.sock)
        if self.client.pending is None:
            end.pump(to_the_end=True)

    def _client_early(self, mask: int) -> None:
        client = self.client
        if mask & IN:
            client.stirred = True
        if mask & (ERROR | HANG_UP) and client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.reset("reset")
        elif mask & READ_END and self.upstream is None:
            self.drop_if_left()

    def drop_if_left(self) -> None:
        """Drop a held client that ended without having sent a byte: nobody is there to be served.

        One that ended after sending (half-close) still waits for its answer.
        """
        if self.unsaid:
            return
        try:
            left = not self.client.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            left = True
        if left:
            self.reset("closed")

    def unheard(self, end: End) -> None:
        """Take that `end` ends or fails, and that nothing was ever heard of it.

        This client cannot be helped: what it said was taken. But others can.
        """
        place = self.place
        if end is self.upstream and place is not None and not self.client.ended:
            self.served.suspect(place)

    def drop_upstream(self, *, orderly: bool = False) -> None:
        """Close and forget the upstream end, if there is one."""
        self.doubted = False
        if self.upstream is not None:
            self.upstream.close(orderly=orderly)
            self.upstream = None

    def end(self, why: str) -> None:
        """Close both sides in order: all was delivered, or is the kernel's to deliver."""
        self._close(why, orderly=True)

    def reset(self, why: str) -> None:
        """Close both sides with a reset."""
        self._close(why, orderly=False)

    def fail(self, error: Exception) -> None:
        """Reset after an unexpected error."""
        _log.error("connection %d of %s failed", self.number, self.served.name, exc_info=error)
        self.served.failed += 1
        self.reset(f"{type(error).__name__}: {error}")

    @property
    def received(self) -> int:
        """Bytes that came from the client."""
        return self.client.count

    @property
    def sent(self) -> int:
        """Bytes that the client's socket took."""
        upstream, pending = self.upstream, self.client.pending
        return 0 if upstream is None else upstream.count - (0 if pending is None else len(pending))

    def _close(self, why: str, *, orderly: bool) -> None:
        if self not in self.served.connections:
            return  # closed already
        self.served.ended(self, why)
        self.client.close(orderly=orderly)
        self.drop_upstream(orderly=orderly)
        del self.client  # it points here; so both are freed now, without the garbage collector
