"""Beginning a connection to an endpoint without waiting for it. Called by the relay loop only.

Names are never resolved here (that would stop the whole loop): an endpoint is a numeric address.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from kecs.net import options

_NONBLOCK: int = getattr(socket, "SOCK_NONBLOCK", 0)
_STREAM = int(socket.SOCK_STREAM) | int(_NONBLOCK)
_LEVEL = int(socket.SOL_SOCKET)
_ERROR = int(socket.SO_ERROR)
_TCP = int(socket.IPPROTO_TCP)
_INFO: int | None = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None
_ESTABLISHED = b"\x01"
"""`tcpi_state`, the first byte of Linux' struct tcp_info."""
_UNDER_WAY = frozenset({errno.EINPROGRESS, errno.EINTR, errno.EWOULDBLOCK})

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors that say that this process or machine has no room, whatever the endpoint."""


class Address(NamedTuple):
    """Where to dial, in the kernel's terms."""

    family: int
    sockaddr: tuple[Any, ...]
    may_meet_itself: bool
    """The port is on this machine and in the range from which the kernel takes source ports."""
    local: bool = False
    """It is a loopback address."""


def address(host: str, port: int) -> Address:
    """Return the address for `host` (a numeric IPv4 or IPv6 address). Raises `OSError` for others."""
    family, _, _, _, sockaddr = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    )[0]
    local = options.is_loopback(str(sockaddr[0]))
    low, high = ephemeral_range()
    return Address(int(family), sockaddr, local and low <= port <= high, local)


def begin(to: Address) -> tuple[socket.SocketType, bool]:
    """Begin to connect; return the socket and whether it is connected already.

    A connect over loopback is mostly done before the call that began it returns, so asking at once
    saves a turn of the loop. Raises `OSError` when it failed at once.
    """
    sock = socket.SocketType(to.family, _STREAM, 0)
    try:
        if not _NONBLOCK:
            sock.setblocking(False)
        options.prepare(sock, local=to.local)
        code = sock.connect_ex(to.sockaddr)
        if code and code not in _UNDER_WAY:
            _fail(code)
        return sock, finished(sock, to)
    except BaseException:
        sock.close()
        raise


def finished(sock: socket.SocketType, to: Address) -> bool:
    """Tell whether the connect is done; False while it is under way. Raises `OSError` when it failed.

    SO_ERROR alone cannot tell "connected" from "under way", and an event can be stale.
    """
    if _INFO is not None and not to.may_meet_itself and sock.getsockopt(_TCP, _INFO, 1) == _ESTABLISHED:
        return True  # in one call what the following asks in two
    code = sock.getsockopt(_LEVEL, _ERROR)
    if code:
        _fail(code)
    try:
        peer = sock.getpeername()
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.EINVAL):
            return False
        raise
    if to.may_meet_itself and peer == sock.getsockname():
        # TCP's simultaneous open (RFC 9293, 3.5): nobody listens, and the kernel happened to choose
        # the port itself as the source port. Kept, it would take the port from the task for good.
        _fail(errno.ECONNREFUSED)
    return True


def nobody_behind() -> OSError:
    """Return the error of a connection that was accepted and ended at once, without a word."""
    return OSError(errno.ECONNREFUSED, "nobody is there behind what accepts")


def _fail(code: int) -> NoReturn:
    raise OSError(code, os.strerror(code))


def ephemeral_range() -> tuple[int, int]:
    """Return the ports from which the kernel takes source ports; IANA's range where it does not say."""
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return int(low), int(high)
    except (OSError, ValueError):
        return 49152, 65535
