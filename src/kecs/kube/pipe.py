"""Reading and writing a non-blocking socket, with TLS or without, in one manner.

Used by `kecs.kube.tunnel` on the relay loop's thread. The socket is connected, and its handshake done.
"""

from __future__ import annotations

import socket
import ssl
from typing import Protocol

RECORD = 16 * 1024
"""Bytes of the longest TLS record (RFC 8446, 5.1), and so of what one read of TLS returns."""


class Pipe(Protocol):
    """A byte stream. Every method may raise `OSError`: then it is broken."""

    def read(self, into: memoryview) -> int | None:
        """Read into a buffer; return how many bytes, 0 at the end, None when there are none now."""
        ...

    def write(self, data: memoryview) -> int:
        """Write some of `data`; return how many bytes were taken, 0 when none can be now."""
        ...

    def more(self, read: int) -> bool:
        """Whether a read of so many bytes was perhaps not the last that can be had now."""
        ...


class Plain:
    """A socket as it is."""

    __slots__ = ("_sock",)

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def read(self, into: memoryview) -> int | None:
        """Read."""
        try:
            return self._sock.recv_into(into)
        except BlockingIOError:
            return None

    def write(self, data: memoryview) -> int:
        """Write."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0

    def more(self, read: int) -> bool:  # noqa: ARG002 - as `Tls` is asked
        """One read took all; what came since is reported anew."""
        return False


class Tls:
    """A socket with TLS. A read may have to wait until the socket can be written, and the other way round.

    That happens for a key update only (RFC 8446, 4.6.3): what has to be written is then written with the next
    write, at the latest with the next sign of life.
    """

    __slots__ = ("_sock",)

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock

    def read(self, into: memoryview) -> int | None:
        """Read what one record holds."""
        try:
            return self._sock.recv_into(into)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except ssl.SSLEOFError:  # the peer closed without `close_notify`, as many do
            return 0

    def write(self, data: memoryview) -> int:
        """Write one record, or more."""
        try:
            return self._sock.send(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0

    def more(self, read: int) -> bool:
        """Whether the record was a full one (the next follows), or some of it was left."""
        return read >= RECORD or self._sock.pending() > 0


def pipe(sock: socket.socket) -> Pipe:
    """Return the pipe for `sock`."""
    return Tls(sock) if isinstance(sock, ssl.SSLSocket) else Plain(sock)
