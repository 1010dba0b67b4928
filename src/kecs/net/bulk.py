"""Bulk transfer: what one socket says moves to another inside the kernel (splice(2), Linux).

Used by `kecs.net.relay` for a direction that has proved bulky, on the relay loop's thread only. Where there
is no splice, `Pipes.take` has nothing to give and that direction goes on with recv and send.

What a socket said goes into a pipe, and from there to its peer. Only an empty pipe is filled: so EAGAIN can
only mean that the socket has no more (of a pipe with bytes in it, it could as well be full), and FIN and
reset are seen when all before them was handed on. An empty pipe belongs to nobody: one serves all directions
whose readers keep up. A reader that does not keeps its pipe until it has taken what is in there, which bounds
what it costs; but never the last one, so that however many stall, the others go on.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from kecs.net import lull

if TYPE_CHECKING:
    from kecs.net.relay import End

AVAILABLE = sys.platform == "linux" and hasattr(os, "splice") and hasattr(fcntl, "F_SETPIPE_SZ")

CAPACITY = 512 * 1024
"""Bytes of a pipe, and so the most that a stalled reader keeps in one."""

DEFAULT = 64 * 1024
"""What a pipe has where it may not be larger: a user who is not root may have `pipe-user-pages-soft` in all
(pipe(7))."""

MOST = 32 * 1024 * 1024
"""Bytes of all pipes together."""

SPARE = 4
"""Empty pipes that are kept for the next directions."""

TURN = 512 * 1024
"""Bytes that one end may move before the others have had their turn: about 0.2 ms."""

PORTION = 384 * 1024
"""Bytes that are worth waiting for while nobody else has anything to say (`kecs.net.lull`)."""

REST = 0.0002
"""Seconds to wait for them: at 14 Gbit/s 350 kB come meanwhile."""

FAST = 100e6
"""Bytes a second from which on that is tried."""

PROOF = 4
"""Full reads, less those that were not full, after which a direction counts as bulky."""

PATIENCE = 8
"""Turns in a row that brought little, after which it does so no longer."""

LITTLE = 32 * 1024
"""Bytes in a turn that recv and send move as cheaply: they take one call less."""

NEVER = -(1 << 60)
"""A score from which no end gets back to `PROOF`: here it is not to be spliced."""

LATER = -256
"""The score while no pipe can be had: it is asked for again after as many full reads."""

_splice: Callable[..., int] = getattr(os, "splice", os.sendfile)
_NONBLOCK: int = getattr(os, "SPLICE_F_NONBLOCK", 2)


class Pipe:
    """A pipe of the kernel. Its length is what is in it: bytes that a socket has still to take."""

    __slots__ = ("capacity", "entrance", "exit", "rest")

    def __init__(self) -> None:
        """Make one. Raises `OSError` when no descriptors are left."""
        self.exit, self.entrance = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.rest = 0
        try:
            self.capacity = _grow(self.entrance)
        except OSError:
            self.close()
            raise

    def __len__(self) -> int:
        """Return the number of bytes in it."""
        return self.rest

    def drain(self, to: int) -> bool:
        """Move what is in it to the socket `to`; False when that is full before. Raises `OSError`."""
        while self.rest:
            try:
                self.rest -= _splice(self.exit, to, self.rest, None, None, _NONBLOCK)
            except BlockingIOError:
                return False
        return True

    def close(self) -> None:
        """Close it, with whatever is in it."""
        os.close(self.exit)
        os.close(self.entrance)


class Pipes:
    """All pipes of a loop."""

    def __init__(self, has_room: Callable[[], bool]) -> None:
        """`has_room` tells whether two more descriptors may be used."""
        self._has_room = has_room
        self._all: set[Pipe] = set()
        self._free: list[Pipe] = []
        self._bytes = 0

    @property
    def descriptors(self) -> int:
        """Descriptors that the pipes use."""
        return 2 * len(self._all)

    @property
    def bytes(self) -> int:
        """The capacity of all pipes."""
        return self._bytes

    def take(self) -> Pipe | None:
        """Return an empty pipe: give it back, keep it, or drop it. None when there is none to be had."""
        if self._free:
            return self._free.pop()
        if not AVAILABLE or self._bytes + CAPACITY > MOST or not self._has_room():
            return None
        try:
            pipe = Pipe()
        except OSError:
            return None
        if pipe.capacity < DEFAULT:  # the user has so many pipes that this one got two pages (pipe(7))
            pipe.close()
            return None
        self._all.add(pipe)
        self._bytes += pipe.capacity
        return pipe

    def give(self, pipe: Pipe) -> None:
        """Take an empty pipe back."""
        if len(self._free) < SPARE:
            self._free.append(pipe)
        else:
            self.drop(pipe)

    def may_keep(self) -> bool:
        """Whether a reader that does not keep up may be left a pipe: there is another, or room for one."""
        return bool(self._free) or (self._bytes + CAPACITY <= MOST and self._has_room())

    def drop(self, pipe: Pipe) -> None:
        """Close a pipe, with whatever is in it."""
        self._all.remove(pipe)
        self._bytes -= pipe.capacity
        pipe.close()

    def trim(self) -> None:
        """Close those that are not in use."""
        while self._free:
            self.drop(self._free.pop())

    def close(self) -> None:
        """Close all."""
        for pipe in list(self._all):
            self.drop(pipe)
        self._free.clear()


def move(end: End, peer: End) -> None:
    """Move what comes from `end` to `peer`: until there is no more, the peer is full or the turn is over."""
    end.loop.patient += 1
    pipes = end.loop.pipes
    pipe = pipes.take()
    if pipe is None:
        end.score = LATER if AVAILABLE else NEVER
        end.pump(to_the_end=True)
        return
    most = pipe.capacity if pipes.may_keep() else DEFAULT
    flow = end.flow
    if flow is None:
        flow = end.flow = lull.Flow(end.loop.now, FAST)
    portion = min(PORTION, most) if flow.resting else 0
    moved = 0
    while moved < TURN:
        try:
            size = _splice(end.fd, pipe.entrance, most, None, None, _NONBLOCK)
        except BlockingIOError:
            pipes.give(pipe)
            flow.moved(moved, end.loop.now)
            end.score = end.score - 1 if moved < LITTLE else PROOF + PATIENCE
            return
        except OSError as error:
            pipes.give(pipe)
            end.broken(error.errno)
            return
        if not size:
            # The end, or urgent data with the end behind it: at that splice stops for good
            # (`tcp_splice_read` in net/ipv4/tcp.c). Recv knows.
            pipes.give(pipe)
            end.score = NEVER
            end.pump(to_the_end=True)
            return
        end.count += size
        moved += size
        pipe.rest = size
        try:
            taken = pipe.drain(peer.fd)
        except OSError as error:
            pipes.drop(pipe)
            peer.broken(error.errno)
            return
        if not taken:
            _leave(pipes, pipe, peer)
            flow.moved(moved, end.loop.now)
            return
        if LITTLE <= size < portion:
            end.loop.may_rest[end] = REST
            break
    pipes.give(pipe)
    flow.moved(moved, end.loop.now)
    end.score = PROOF + PATIENCE
    end.cut_short()


def _leave(pipes: Pipes, pipe: Pipe, peer: End) -> None:
    """Leave what `peer` did not take to it: with its pipe, or in memory where that is the last one."""
    if pipe.rest <= DEFAULT and not pipes.may_keep():
        rest = memoryview(os.read(pipe.exit, pipe.rest))
        pipe.rest = 0
        pipes.give(pipe)
        peer.keep(rest)
    else:
        peer.keep(pipe)


def _grow(entrance: int) -> int:
    """Give a pipe its size; return how large it is."""
    try:
        return fcntl.fcntl(entrance, fcntl.F_SETPIPE_SZ, CAPACITY)
    except PermissionError:  # more than the user's pipes may have in all, or one may: it stays as it is
        return fcntl.fcntl(entrance, fcntl.F_GETPIPE_SZ)
