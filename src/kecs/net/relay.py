"""Moving the bytes of one connection: two ends, back-pressure, half-close, resets.

An `End` is one socket of a connection. The loop tells it what epoll saw; it reads into the loop's one
shared buffer and sends to its peer directly. Only what the peer does not take is kept (at most one
buffer), and nothing more is read until that is gone: a reader that stalls costs its own connection
and no more memory than that. A direction that proves bulky goes by a pipe of the kernel (`kecs.net.bulk`),
and what its peer does not take stays in there.

Events are edges: an edge that cannot be used at once is never asked for again, so whoever begins to
read anew reads until the kernel has no more. A read shorter than the buffer says just that on Linux
(epoll(7), question 9), unless the other side ended, failed or sent urgent data.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import sys
import termios
from typing import TYPE_CHECKING

from kecs.net import bulk, options
from kecs.net.poller import EDGE, ERROR, HANG_UP, IN, OUT, READ_END, URGENT

if TYPE_CHECKING:
    from kecs.net.connection import Connection
    from kecs.net.loop import RelayLoop
    from kecs.net.lull import Flow
    from kecs.net.stream import Stream

BUFFER = 64 * 1024
"""Size of the shared buffer, and so the most that a connection keeps for each direction."""

TURN = 4 * BUFFER
"""Bytes that one end may move before the others have had their turn: about 0.1 ms of copying."""

_DISCARD = 16
"""Buffers of unwanted bytes that are read away before an orderly close."""

EVENTS = IN | READ_END | URGENT | EDGE
"""What epoll is asked to report of an end; OUT besides once the end has been full."""

_LINUX = sys.platform == "linux"
_RESETS = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN, errno.ECONNABORTED})
_TO_THE_END = READ_END | HANG_UP | URGENT | ERROR
_MORE = IN
"""An event after which a read that does not fill the buffer is the last one."""
_LAST = IN | READ_END
"""An event after which such a read is followed by nothing but the end: what came before it is there already
(`tcp_fin` in net/ipv4/tcp_input.c says so only once it is in order)."""
if not _LINUX:  # only Linux promises that
    _TO_THE_END |= IN
    _MORE = _LAST = 0
_WITH_MORE: int = getattr(socket, "MSG_MORE", 0)
"""What is sent so waits for what follows at once: more, or the end (send(2), tcp_send_fin)."""


class End:
    """One socket of a connection."""

    __slots__ = (
        "connection", "count", "deaf", "ended", "fd", "flow", "loop", "out", "peer", "pending", "queued",
        "score", "sock", "stirred",
    )  # fmt: skip

    def __init__(self, loop: RelayLoop, connection: Connection, sock: socket.SocketType) -> None:
        self.loop = loop
        self.connection = connection
        self.sock = sock
        self.fd = sock.fileno()
        self.peer: End | Stream | None = None
        """The other end once both are connected, until the connection is closed."""
        self.count = 0
        """Bytes read from this socket."""
        self.pending: memoryview | bulk.Pipe | None = None
        """Bytes that this socket has still to take; while there are some, the peer is not read."""
        self.score = 0
        """How bulky it is: full reads, less those that were not full (`bulk.PROOF`)."""
        self.flow: Flow | None = None
        """How fast it is; once it was bulky."""
        self.ended = False
        """Its FIN was read; nothing more comes from it."""
        self.deaf = False
        """It ended and then refused to take more: what it had said is still delivered."""
        self.out = False
        """Whether epoll also reports that it can be written."""
        self.queued = False
        """Its turn was cut short; it goes on in the next one."""
        self.stirred = False
        """Something came before there was a peer."""

    def on_event(self, mask: int) -> None:
        """Do what epoll saw."""
        peer = self.peer
        if peer is None:
            self.connection.early(self, mask)
            return
        if mask == _MORE and peer.pending is None and not peer.deaf and self.score < bulk.PROOF:
            # Nearly all events are this one. (Had it ended before, READ_END would be there too.)
            if self._move(peer) == BUFFER:
                self.score += 1
                self.pump(to_the_end=False)
            return
        if mask == _LAST and not self.ended and peer.pending is None and not peer.deaf:
            if self.score >= bulk.PROOF:
                self.pump(to_the_end=True)
                return
            # What is read now and the end leave in one segment: a packet less, a wake-up of the peer's
            # less, and no read just to be told of the end.
            size = self._move(peer, _WITH_MORE)
            if size == BUFFER:
                self.score += 1
                self.pump(to_the_end=True)
            elif size:
                self.ended = True
                self.pass_end(peer)
            return
        if mask & URGENT:
            self.score = bulk.NEVER
        if mask & OUT and self.pending is not None:
            self._flush(self.pending)
            if self.peer is None:
                return
        if self.ended or peer.deaf or peer.pending is not None:
            if mask & ERROR:
                self._failed()
        elif mask & ~OUT:
            self.pump(to_the_end=mask & _TO_THE_END != 0)

    def fail(self, error: Exception) -> None:
        """Keep an unexpected error in handling this end with its connection."""
        self.connection.fail(error)

    def pump(self, *, to_the_end: bool) -> None:
        """Move what came from this socket to its peer, until there is no more or the peer is full."""
        left = TURN
        while (peer := self.peer) is not None:
            if self.score >= bulk.PROOF:
                if isinstance(peer, End):
                    bulk.move(self, peer)
                    return
                self.score = bulk.NEVER
            size = self._move(peer)
            if size == BUFFER:
                self.score += 1
            else:
                if self.score > 0:
                    self.score -= 1
                if not size or not to_the_end:
                    return
            left -= size
            if left <= 0:
                self.cut_short()
                return

    def _move(self, peer: End | Stream, flags: int = 0) -> int:
        """Move what came, at most a buffer; return how much, 0 when there is no more for now.

        A system call is nine tenths of what this costs, so there is one for each way and nothing else.
        """
        view = self.loop.view
        try:
            size = self.sock.recv_into(view)
        except BlockingIOError:
            return 0
        except OSError as error:
            self.broken(error.errno)
            return 0
        if not size:
            self.ended = True
            self.pass_end(peer)
            return 0
        if not self.count:
            self.connection.begins(self)
        self.count += size
        try:
            sent = peer.sock.send(view[:size], flags)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            peer.broken(error.errno)
            return 0
        if sent != size:
            peer.keep(view[sent:size])
            return 0
        return size

    def cut_short(self) -> None:
        """Go on in the next turn, after others had theirs."""
        if not self.queued:
            self.queued = True
            self.loop.ready.append(self)

    def resume(self) -> None:
        """Go on after a turn that was cut short."""
        self.queued = False
        peer = self.peer
        if peer is not None and peer.pending is None and not self.ended and not peer.deaf:
            self.pump(to_the_end=True)

    def keep(self, rest: memoryview | bulk.Pipe) -> None:
        """Keep what this socket did not take, and ask to be told when it takes more."""
        self.pending = memoryview(bytes(rest)) if isinstance(rest, memoryview) else rest
        if not self.out:
            # Asked for only now: most connections never fill a socket, and each would get one event
            # for nothing. Asking also looks at once, so no edge is missed.
            self.out = True
            self.loop.poller.modify(self.fd, EVENTS | OUT)

    def _flush(self, pending: memoryview | bulk.Pipe) -> None:
        try:
            if isinstance(pending, bulk.Pipe):
                if not pending.drain(self.fd):
                    return
                self.loop.pipes.give(pending)
            elif (sent := self.sock.send(pending)) < len(pending):
                self.pending = pending[sent:]
                return
        except BlockingIOError:
            return
        except OSError as error:
            self.broken(error.errno)
            return
        self.pending = None
        assert self.peer is not None
        self.peer.pump(to_the_end=True)

    def pass_end(self, peer: End | Stream) -> None:
        """Pass this end's FIN on; close when both are done.

        All that came before it was handed over: nothing is read while the peer has pending bytes.
        """
        if not self.count:
            self.connection.unheard(self)
        if self.deaf:
            peer.take_leave()
        elif peer.ended:
            self.connection.end("closed")
        else:
            try:
                peer.sock.shutdown(socket.SHUT_WR)
            except OSError as error:
                peer.broken(peer.error() or error.errno)

    def _failed(self) -> None:
        """Epoll saw an error while nothing could be read from this socket."""
        code = self.error()
        if code:
            self.broken(code)

    def broken(self, code: int | None) -> None:
        """Reset both, as this socket failed; unless it had ended in order before.

        Linux says EPIPE where a FIN came before the RST (`tcp_reset` in net/ipv4/tcp_input.c): the
        peer closed, and then got more from us. What it said until then is whole, and is delivered.
        """
        peer = self.peer
        if peer is None:
            return
        if not self.count:
            self.connection.unheard(self)
        if self.deaf or not (self.ended or (_LINUX and code == errno.EPIPE)):
            self.connection.reset("reset" if code is None or code in _RESETS else os.strerror(code))
            return
        self.deaf = True
        self._drop_pending()
        if self.ended:
            self.pass_end(peer)
        elif peer.pending is None:
            self.pump(to_the_end=True)

    def _drop_pending(self) -> None:
        if isinstance(self.pending, bulk.Pipe):
            self.loop.pipes.drop(self.pending)
        self.pending = None

    def take_leave(self) -> None:
        """Close: the peer ended in order and was reset after that; all it said was handed to this end.

        A reset is passed on as a reset, but not before the kernel has delivered that and the FIN:
        while it has not, the close is an orderly one, without unread bytes (they would reset it).
        """
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        if not self._undelivered():
            self.connection.reset("reset")
            return
        with contextlib.suppress(OSError):  # nothing more to read, or reset: both end here
            for _ in range(_DISCARD):
                if not self.sock.recv_into(self.loop.view):
                    break
        self.connection.end("reset")

    def _undelivered(self) -> int:
        """Bytes (and FIN) that the other side's kernel has not acknowledged (tcp(7), SIOCOUTQ)."""
        try:
            raw = fcntl.ioctl(self.sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        except OSError:
            return 0
        return int(struct.unpack("i", raw)[0])

    def error(self) -> int:
        """Take the socket's error off it; 0 when there is none."""
        return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def close(self, *, orderly: bool) -> None:
        """Close the socket: in order, or as the reset that the kernel makes of it (`options.prepare`)."""
        self.loop.ends.pop(self.fd, None)
        self.peer = None
        if self.pending is not None:
            self._drop_pending()
        if orderly:
            options.end_orderly(self.sock)
        self.sock.close()
