"""The two kinds of sockets of a UDP forward: one that clients send to, and one to a task for each client.

Used by `kecs.net.udp` on the relay loop's thread, and watched by the loop, level-triggered: what a turn
leaves is reported again, so that a flood takes a bounded part of each turn. In here is how datagrams are read
and written; which task a client's go to is decided there.

A datagram is read whole: the loop's buffer is larger than any (65,507 bytes over IPv4, 65,527 over IPv6
without jumbograms; RFC 768, RFC 8200). What a socket does not take is dropped, as by every hop of UDP:
there is no queue in here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from kecs.net.dial import Address
from kecs.net.poller import IN

if TYPE_CHECKING:
    from kecs.net.loop import RelayLoop
    from kecs.net.places import Place
    from kecs.net.udp import Session

BATCH = 64
"""Datagrams that one listening socket is read for in a turn."""
REPLIES = 16
"""The same for one client's socket: there may be a thousand of them."""
TURN = 256 * 1024
"""Bytes of datagrams that one socket may move in a turn, as an end of TCP may (`kecs.net.relay`)."""
KEPT = 2048
"""Bytes of a datagram that is kept until it is answered, at most: more than a packet of Ethernet holds."""
ROOM = 1024 * 1024
"""Bytes that the kernel shall keep of a burst before it drops; it gives at most net.core.rmem_max."""

_DATAGRAM = int(socket.SOCK_DGRAM) | int(getattr(socket, "SOCK_NONBLOCK", 0))
_PKTINFO = 8
"""IP_PKTINFO of Linux (include/uapi/linux/in.h); Python has no name for it."""
_PKTINFO_4 = struct.Struct("=i4s4s")
"""struct in_pktinfo: interface, local address, address of the header (ip(7))."""
_PKTINFO_6 = struct.Struct("=16si")
"""struct in6_pktinfo: address, interface (ipv6(7))."""
_LINUX = sys.platform == "linux"


class Client(NamedTuple):
    """From where a datagram came, and to where: what is answered goes back the same way."""

    door: Door
    peer: Any
    """Its socket address."""
    source: bytes
    """What makes the kernel send from the address that was sent to; empty where the socket has only one."""


class Door:
    """One bound socket that clients send to."""

    __slots__ = ("_many", "_take", "closed", "fd", "loop", "sock")

    def __init__(
        self, loop: RelayLoop, sock: socket.socket, take: Callable[[Client, memoryview], None]
    ) -> None:
        """`take` gets each datagram, which is gone when it returns; it must not raise."""
        self.loop = loop
        self.sock = sock
        self.fd = sock.fileno()
        self.closed = False
        self._take = take
        self._many = _LINUX and sock.getsockname()[0] in ("0.0.0.0", "::")  # noqa: S104 - recognised only
        """It stands for several addresses: of each datagram the kernel is asked which was meant."""
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        if self._many and sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        elif self._many:
            sock.setsockopt(socket.IPPROTO_IP, _PKTINFO, 1)
        loop.add(self, IN)

    def on_event(self, _mask: int) -> None:
        """Read once this round of events is over: a datagram may need a new descriptor (`RelayLoop`)."""
        self.loop.chores.append(self.receive)

    def fail(self, error: Exception) -> None:
        """Nothing above can fail."""
        raise error

    def receive(self) -> None:
        """Read what waits, a part of it when there is much."""
        view = self.loop.view
        left = TURN
        for _ in range(BATCH):
            if self.closed or left <= 0:
                return
            try:
                if self._many:
                    size, client = self._receive_from_one_of_many(view)
                else:
                    size, peer = self.sock.recvfrom_into(view)
                    client = Client(self, peer, b"")
            except OSError:
                return  # nothing more; or an error of an earlier answer, which is its client's own affair
            left -= size
            self._take(client, view[:size])

    def _receive_from_one_of_many(self, view: memoryview) -> tuple[int, Client]:
        size, said, _, peer = self.sock.recvmsg_into([view], socket.CMSG_SPACE(_PKTINFO_6.size))
        for level, kind, data in said:
            if (level, kind) == (socket.IPPROTO_IP, _PKTINFO):
                return size, Client(self, peer, _PKTINFO_4.pack(0, data[4:8], bytes(4)))
            if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) and data[0] != 0xFF:
                return size, Client(self, peer, _PKTINFO_6.pack(data[:16], 0))  # no group (RFC 4291, 2.7)
        return size, Client(self, peer, b"")

    def answer(self, client: Client, data: memoryview) -> None:
        """Send to a client, from the address that it sent to. Raises `OSError` when that is not taken."""
        if not client.source:
            self.sock.sendto(data, client.peer)
        elif self.sock.family == socket.AF_INET6:
            control = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, client.source)
            self.sock.sendmsg([data], [control], 0, client.peer)
        else:
            self.sock.sendmsg([data], [(socket.IPPROTO_IP, _PKTINFO, client.source)], 0, client.peer)

    def close(self) -> None:
        """Close the socket."""
        self.closed = True
        self.loop.ends.pop(self.fd, None)
        self.sock.close()


class Hears(Protocol):
    """Who is told of what comes back from a task."""

    def answered(self, upstream: Upstream, data: memoryview, /) -> None:
        """Take a datagram, which is gone when this returns."""

    def refused(self, upstream: Upstream, error: OSError, /) -> None:
        """Take that a datagram which was sent before did not arrive."""

    def broken(self, upstream: Upstream, error: Exception, /) -> None:
        """Keep an unexpected error with its client."""


class Upstream:
    """One client's socket to one task: only from there does the kernel take answers."""

    __slots__ = ("asked_at", "fd", "hears", "last", "loop", "owed", "place", "session", "shunned", "sock")

    def __init__(self, loop: RelayLoop, hears: Hears, session: Session, place: Place) -> None:
        """Open it. Raises `OSError`: no descriptor is left, or there is no way."""
        if place.invalid is not None:
            raise place.invalid
        self.loop = loop
        self.hears = hears
        self.session = session
        self.place = place
        self.owed = 0
        """Datagrams that were sent and not answered, as far as each gets one answer."""
        self.asked_at = 0.0
        """When the last one was sent."""
        self.last: bytes | None = None
        """That one, while it is not answered: were it refused, nobody has got it, and another task may."""
        self.shunned = False
        """What was sent was refused: another task is preferred, where there is one."""
        self.sock = _connected(place.address)
        self.fd = self.sock.fileno()
        loop.add(self, IN)

    def on_event(self, _mask: int) -> None:
        """Hand on what came, a part of it when there is much."""
        view = self.loop.view
        left = TURN
        for _ in range(REPLIES):
            if self.fd < 0 or left <= 0:
                return
            try:
                size = self.sock.recv_into(view)
            except BlockingIOError:
                return
            except OSError as error:
                # What ICMP said of a datagram of ours (RFC 1122, 4.1.3.3); the socket goes on.
                self.hears.refused(self, error)
                continue
            left -= size
            self.hears.answered(self, view[:size])

    def fail(self, error: Exception) -> None:
        """Keep an unexpected error with its client."""
        self.hears.broken(self, error)

    def send(self, data: memoryview | bytes) -> None:
        """Send to the task. Raises `OSError`, also for what was sent before; then this was not sent."""
        self.sock.send(data)
        self.owed += 1
        self.asked_at = self.loop.now
        self.last = bytes(data) if len(data) <= KEPT else None

    def close(self) -> None:
        """Close the socket."""
        self.loop.ends.pop(self.fd, None)
        self.fd = -1
        self.sock.close()


def _connected(to: Address) -> socket.SocketType:
    sock = socket.SocketType(to.family, _DATAGRAM, 0)
    try:
        sock.setblocking(False)
        sock.connect(to.sockaddr)
        met_itself = to.may_meet_itself and sock.getsockname() == sock.getpeername()
    except BaseException:
        sock.close()
        raise
    if met_itself:
        # Nobody listens there, and the kernel happened to choose the port itself as the source port: the
        # client would be answered by itself.
        sock.close()
        raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    return sock
