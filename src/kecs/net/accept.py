"""Accepting: a listener in the relay loop, from its first connection to its close.

A listener is level-triggered, unlike the rest: then one accept may be all that a turn does, and
nothing has to be asked until the kernel says "no more".
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Protocol

from kecs.net import options
from kecs.net.poller import IN

if TYPE_CHECKING:
    from kecs.net.loop import RelayLoop

_STREAM = int(socket.SOCK_STREAM)

BURST = 16
"""Connections that one listener accepts in a turn, at most: about 2 ms with their dials."""

_NETWORK = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED", "EINTR", "ENETDOWN", "EPROTO", "ENOPROTOOPT", "EHOSTDOWN", "ENONET",
        "EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "EPERM",
    )
    if hasattr(errno, name)
)  # fmt: skip
"""Errors that belong to the connection that was to be accepted: take the next (accept(2))."""


class Takes(Protocol):
    """Who takes the connections: a forward (`Served`), or the one port for all names (`Front`)."""

    @property
    def name(self) -> str:
        """For reports."""

    def accepted(self, sock: socket.SocketType, peer: object, /) -> None:
        """Take a new connection; `peer` is the client's socket address."""


class Accepting:
    """One listener."""

    __slots__ = (
        "burst", "closed", "family", "fd", "inherited", "last_turn", "local", "loop", "served", "sock",
    )  # fmt: skip

    def __init__(self, loop: RelayLoop, served: Takes, sock: socket.socket) -> None:
        self.loop = loop
        self.served = served
        self.sock = sock
        self.fd = sock.fileno()
        self.family = int(sock.family)
        self.burst = 1
        self.last_turn = 0
        self.closed = False
        self.inherited = False
        """Whether what is accepted has the listener's options: not what was in its queue before."""
        self.local = options.is_loopback(sock.getsockname()[0])
        sock.setblocking(False)
        options.prepare(sock, local=self.local)
        loop.add(self, IN)

    def on_event(self, _mask: int) -> None:
        """Accept once this round of events is over (`RelayLoop`)."""
        self.loop.chores.append(self.accept)

    def fail(self, error: Exception) -> None:
        """Nothing above can fail."""
        raise error

    def accept(self) -> None:
        """Accept what waits: one when it trickles, more each time that more is there at once."""
        loop = self.loop
        if not self.inherited:
            self.burst = BURST  # until its first queue is empty
        else:
            self.burst = min(self.burst * 2, BURST) if loop.turn == self.last_turn + 1 else 1
        self.last_turn = loop.turn
        for _ in range(self.burst):
            if self.closed:
                return
            if not loop.has_room():
                loop.pause_accepting(self, "too many connections for the limit of open files")
                return
            try:
                sock, peer = self._take()
            except BlockingIOError:
                self.burst = 1
                self.inherited = options.INHERITED
                return
            except OSError as error:
                if error.errno in _NETWORK:
                    continue
                # Out of descriptors or memory, or what accept(2) does not list: the listener stays,
                # and is not asked again at once.
                loop.pause_accepting(self, error.strerror or str(error))
                return
            self.served.accepted(sock, peer)

    def _take(self) -> tuple[socket.SocketType, object]:
        """Accept one, non-blocking. `socket.accept` would build a Python object around the C one."""
        fd, peer = self.sock._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        sock = socket.SocketType(self.family, _STREAM, 0, fd)
        sock.setblocking(False)
        if not self.inherited:
            options.prepare(sock, local=self.local)
        return sock, peer

    def pause(self) -> None:
        """Report nothing for now."""
        self.loop.poller.modify(self.fd, 0)

    def resume(self) -> None:
        """Report again."""
        if not self.closed:
            self.loop.poller.modify(self.fd, IN)

    def close(self) -> None:
        """Close the listener; those that were not accepted yet are reset by the kernel."""
        self.closed = True
        self.loop.ends.pop(self.fd, None)
        self.sock.close()
