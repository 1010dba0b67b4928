"""The upstream end of a connection that goes through a carrier: what an `End` is for a socket.

A client's `End` pumps into it as into another `End`, so the direct path knows nothing of carriers: here are
`sock.send`, `keep`, `pending`, `broken` and the rest, with the meaning that they have there. The carrier
(`kecs.net.carrier`) says what comes from the far end.

Three things are different from a socket:

* Whether the far end could connect shows late (Kubernetes never says that it could). So what the client
  said first is kept, up to `EARLY`, until the first answer: a refusal proves that none of it was delivered,
  and another place gets it. Nothing else is ever said twice.
* A client that does not read cannot stop the far end from sending. What comes meanwhile is kept here, and the
  carrier sees by `buffered` how much that is (`kecs.net.congestion`).
* The far end closes both directions soon after one has ended (docs/design/contracts.md, 2). So the client's
  FIN is kept back until the target ends, or nothing came for `IDLE`; an end that follows it may have cut an
  answer, and becomes a reset.
"""

from __future__ import annotations

import collections
import errno
import math
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kecs.net.carrier import Carrier
    from kecs.net.connection import Connection
    from kecs.net.loop import RelayLoop
    from kecs.net.relay import End

EARLY = 64 * 1024
"""Bytes of the client that are kept until the first answer."""

PIECES = 1024
"""How many pieces one call takes, at most (IOV_MAX of Linux and macOS; more are EMSGSIZE, sendmsg(2))."""

IDLE = 2.0
"""Seconds without an answer after which a client's FIN is passed on: more than the second for which the far
end keeps the target's own end back, so that this comes first and is no cut."""


class Stream:
    """One stream of a carrier, as a connection's upstream end."""

    __slots__ = (
        "_active_at", "_backlog", "_early", "_outcome", "buffered", "carrier", "channel", "connection",
        "count", "deaf", "ended", "loop", "peer", "pending", "port", "waiting_since",
    )  # fmt: skip

    def __init__(self, loop: RelayLoop, connection: Connection, carrier: Carrier, port: int) -> None:
        loop.patient += 1  # its client came
        self.loop = loop
        self.connection = connection
        self.carrier = carrier
        self.port = port
        self.peer: End | None = None
        """The client, until the connection is closed."""
        self.count = 0
        """Bytes handed to the client's end."""
        self.pending: memoryview | None = None
        """Bytes that the carrier has still to take; while there are some, the client is not read."""
        self.ended = False
        """The target ended in order, and all that it said was handed over."""
        self.deaf = False
        """The target ended and the client still talks: that goes nowhere."""
        self.buffered = 0
        """Bytes that wait for the client to take them."""
        self.waiting_since = loop.now
        """Since when an answer is due: from its beginning or the first bytes after the last answer."""
        self._backlog: collections.deque[bytes] = collections.deque()
        self._early: bytearray | None = bytearray()
        """What the client said before the first answer; None when it may have been delivered."""
        self._active_at = math.inf
        """When something came last; counted from the client's FIN on."""
        self._outcome: str | None = None
        """How the target ended: in order (empty), or why not."""
        self.channel: int | None = carrier.open(port, self)
        """None when the far end is rid of it."""

    # What the client's end does with its peer

    @property
    def sock(self) -> Stream:
        """Stand for the socket that an `End` would have."""
        return self

    def send(self, data: memoryview, _flags: int = 0) -> int:
        """Take bytes of the client; return how many. Raises `ConnectionResetError` after the target's end."""
        self.loop.patient += 1
        if self._outcome is not None or self.channel is None:
            raise ConnectionResetError(errno.ECONNRESET, "the target has ended")
        taken = self.carrier.send(self.channel, data)
        if taken:
            if self.waiting_since == math.inf:
                self.waiting_since = self.loop.now
            early = self._early
            if early is not None:
                if len(early) + taken <= EARLY:
                    early += data[:taken]
                else:
                    self._early = None
        return taken

    def keep(self, rest: memoryview) -> None:
        """Keep what the carrier did not take; it says when it takes more."""
        self.pending = memoryview(bytes(rest))

    def shutdown(self, _how: int) -> None:
        """Keep the client's FIN back until nothing comes for a while."""
        self._active_at = self.loop.now
        self.loop.at(self._active_at + IDLE, self._pass_fin)
        if self.channel is not None:
            self.carrier.quieten(self.channel)

    def broken(self, _code: int | None) -> None:
        """Take that the client talks on after the target's end; it is reset when it has all that was said."""
        self.deaf = True
        self.pending = None
        if self.ended:
            self.take_leave_of_client()

    def take_leave(self) -> None:
        """Close: the client ended in order and was reset after that."""
        self.connection.reset("reset")

    def error(self) -> int:
        """Return 0: a stream has no error of its own."""
        return 0

    def pump(self, *, to_the_end: bool = True) -> None:  # noqa: ARG002 - as an `End` is called
        """Hand what waits to the client, until it is full."""
        self.loop.patient += 1
        client = self.peer
        if client is None:
            return
        backlog = self._backlog
        before = self.buffered
        while backlog and client.pending is None:
            data = backlog.popleft()
            self.buffered -= len(data)
            self._hand(client, (memoryview(data),))
            if self.peer is None:
                return
        if self._outcome is not None:
            self._conclude(client)
        if before != self.buffered and self.channel is not None:
            self.carrier.relieved(self)

    def close(self, *, orderly: bool) -> None:  # noqa: ARG002 - the far end is told the same
        """End it at the far end too, unless that has ended already."""
        self.loop.patient += 1  # its client ended
        channel, self.channel = self.channel, None
        self.peer = self.pending = self._early = None
        self._backlog.clear()
        self.buffered = 0
        if channel is not None:
            self.carrier.abort(channel)

    # What the carrier says

    def received(self, pieces: Sequence[memoryview]) -> None:
        """Take the next bytes of the target, in one piece or several; valid during this call only."""
        client = self.peer
        if client is None:
            return
        if self._early is not None:
            self._early = None
            self.connection.answered()
        self.waiting_since = math.inf
        if self._active_at != math.inf:
            self._active_at = self.loop.now
        if client.pending is None and not self._backlog:
            self._hand(client, pieces)
        elif not client.deaf:
            data = b"".join(pieces)
            self._backlog.append(data)
            self.buffered += len(data)

    def finish(self, *, whole: bool) -> None:
        """Take that the target has ended; not `whole`: it may have been cut, as this side ended first."""
        self._over("" if whole else "closed")

    def fail(self, why: str, *, untouched: bool) -> None:
        """Take that the target reset the connection, or refused it (`untouched`: it got no byte)."""
        if untouched and self._early is not None:
            self._hand_back(errno.ECONNREFUSED, why)
        else:
            self._over(why)

    def lose(self, why: str) -> None:
        """Take that the carrier is gone. Only a connection on which nobody has spoken can be made again."""
        if self._early is not None and not self._early and self.pending is None:
            self._hand_back(errno.ECONNABORTED, why)
        else:
            self._over(why)

    def go_on(self) -> None:
        """Send what was kept, and more of the client, as the carrier has room."""
        client, pending = self.peer, self.pending
        if client is None or pending is None:
            return
        taken = self.send(pending)
        if taken < len(pending):
            self.pending = pending[taken:]
            return
        self.pending = None
        client.pump(to_the_end=True)

    # How it is done

    def _hand(self, client: End, pieces: Sequence[memoryview]) -> None:
        if client.deaf:
            return
        if len(pieces) > PIECES:  # small frames: a bufferful has thousands of them
            pieces = (memoryview(b"".join(pieces)),)
        try:
            # One call for all of them: the kernel works per call, and so does who reads on the other side.
            sent = client.sock.send(pieces[0]) if len(pieces) == 1 else client.sock.sendmsg(pieces)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            client.broken(error.errno)
            return
        size = sum(map(len, pieces))
        if not self.count:
            self.connection.begins(self)
        self.count += size
        if sent != size:
            client.keep(memoryview(b"".join(pieces))[sent:])

    def _over(self, outcome: str) -> None:
        self.channel = None
        self.waiting_since = math.inf
        self._outcome = outcome
        self._early = None
        client = self.peer
        if client is not None:
            if self.pending is not None:
                self.broken(errno.ECONNRESET)  # the client still talked
            self._conclude(client)

    def _conclude(self, client: End) -> None:
        """End the client's side, once it has all that the target said."""
        if self._backlog or client.pending is not None or self.peer is None or self.ended:
            return
        if self._outcome:
            self.connection.reset(self._outcome)
            return
        self.ended = True
        if client.deaf:
            self.connection.reset("reset")
        elif self.deaf:
            self.take_leave_of_client()
        elif client.ended:
            self.connection.end("closed")
        else:
            try:
                client.sock.shutdown(socket.SHUT_WR)
            except OSError as error:
                client.broken(client.error() or error.errno)

    def take_leave_of_client(self) -> None:
        """Reset the client, but not before its kernel has what the target said."""
        if self.peer is not None:
            self.peer.take_leave()

    def _hand_back(self, code: int, why: str) -> None:
        """Give the connection back to be made elsewhere, with all that its client has said."""
        said = bytes(self._early or b"") + bytes(self.pending or b"")
        self.channel = None
        self.connection.returned(said, OSError(code, why))

    def _pass_fin(self) -> None:
        if self.peer is None or self.channel is None:
            return
        due = self._active_at + IDLE
        if self._backlog or self.peer.pending is not None:
            due = self.loop.now + IDLE  # the client has not had all yet that came
        if due > self.loop.now:
            self.loop.at(due, self._pass_fin)
        else:
            self.carrier.end(self.channel)
