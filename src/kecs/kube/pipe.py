"""Reading and writing a non-blocking socket, with TLS or without, in one manner.

Used by `kecs.kube.tunnel` on the relay loop's thread. The socket is connected, and its handshake done.
"""

from __future__ import annotations

import socket
from typing import Protocol

from kecs.kube.tls import TlsSocket


class Pipe(Protocol):
    """A byte stream. Every method may raise `OSError`: then it is broken."""

    def read(self, into: memoryview) -> int | None:
        """Read into a buffer; return how many bytes, 0 at the end, None when there are none now."""
        ...

    def write(self, data: memoryview) -> int:
        """Write some of `data`; return how many bytes were taken, 0 when none can be now.

        After 0 the next write must begin with the same bytes.
        """
        ...

    def begun(self) -> int:
        """Return how many bytes the kernel has of what `write` has not told of yet."""
        ...

    def more(self) -> bool:
        """Whether the last read left something that no poll reports."""
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

    def begun(self) -> int:
        """Say none: `write` tells of each byte."""
        return 0

    def more(self) -> bool:
        """Say no: what a read left is reported again."""
        return False


def pipe(sock: socket.socket | TlsSocket) -> Pipe:
    """Return the pipe for `sock`."""
    return sock if isinstance(sock, TlsSocket) else Plain(sock)
