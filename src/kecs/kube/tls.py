"""A TLS client on a socket that takes many records with one system call.

`kecs.kube.dial` makes one on a worker thread, where it may block; then it is the relay loop's, by
`kecs.kube.pipe`, and may not. `ssl.SSLSocket` reads record by record, and the header of each with a call of
its own (OpenSSL reads ahead only when told to, and Python cannot tell it). So here the kernel is asked for
all it has, and OpenSSL takes it from memory (`ssl.SSLObject`): with bodies of many megabytes this, and one
call to the client for all that came, halves what a tunnel costs.
"""

from __future__ import annotations

import math
import socket
import ssl
import time

PIECE = 64 * 1024
"""Bytes that are encrypted at once."""


class TlsSocket:
    """A connected socket in TLS. Errors are `OSError`, of which TLS's are; a time-out is for a whole call.

    Not for two threads at once. What TLS itself has to say while it reads (an answer to a key update, RFC
    8446, 4.6.3) leaves with the next write, of the tunnel's signs of life at the latest.
    """

    __slots__ = (
        "_at_hand", "_begun", "_ended", "_from_peer", "_sock", "_taken", "_tls", "_to_peer", "_unsent",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_hostname: str | None) -> None:
        self._sock = sock
        self._from_peer = ssl.MemoryBIO()
        self._to_peer = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._from_peer, self._to_peer, server_hostname=server_hostname)
        self._unsent = memoryview(b"")
        """Encrypted bytes that the kernel has not taken yet."""
        self._taken = 0
        """Of how many bytes of the caller they are."""
        self._begun = 0
        """Of the same piece, how many encrypted bytes the kernel has taken."""
        self._at_hand = False
        """The last read was ended by the size of its buffer: there may be more that no poll reports."""
        self._ended = False
        """The kernel's end was read."""

    # As a socket

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket, without a farewell of TLS: whoever is here would have to wait for it."""
        self._sock.close()

    def settimeout(self, seconds: float | None) -> None:
        """Set the time-out of each wait."""
        self._sock.settimeout(seconds)

    def gettimeout(self) -> float | None:
        """Return it; 0 when nothing waits."""
        return self._sock.gettimeout()

    def setblocking(self, flag: bool) -> None:
        """Wait for ever, or never."""
        self._sock.setblocking(flag)

    # On a worker thread

    def handshake(self) -> None:
        """Shake hands."""
        end = self._end_of_time()
        while not self._is_shaken():
            self._fill(end)

    def _is_shaken(self) -> bool:
        """Go on with the handshake as far as what came allows; tell whether it is done."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        else:
            return True
        finally:
            self._say()  # the next words, or the alert that tells the server what is wrong

    def sendall(self, data: bytes) -> None:
        """Send all of `data`."""
        self._tls.write(data)
        self._say()

    def recv(self, size: int) -> bytes:
        """Wait for some bytes, at most `size`; none at the end."""
        end = self._end_of_time()
        buffer = memoryview(bytearray(size))
        while (got := self._decrypt(buffer)) == 0 and not self._ended:
            self._fill(end)
        return bytes(buffer[:got])

    def at_hand(self) -> bytes:
        """Return what has come already and no poll will report."""
        buffer = memoryview(bytearray(PIECE))
        data = b""
        while got := self._decrypt(buffer):
            data += buffer[:got]
        return data

    def _say(self) -> None:
        if data := self._to_peer.read():
            self._sock.sendall(data)

    def _end_of_time(self) -> float:
        return time.monotonic() + (self._sock.gettimeout() or math.inf)

    def _fill(self, end: float) -> None:
        """Wait until `end` for more of the server."""
        if end != math.inf:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self._sock.settimeout(left)
        if data := self._sock.recv(PIECE):
            self._from_peer.write(data)
        else:
            self._end()

    # On the relay loop's thread

    def read(self, into: memoryview) -> int | None:
        """Read as much as there is and fits; return how much: 0 at the end, None when nothing has come."""
        if not self._ended:
            try:
                # Into the reader's own buffer: what is decrypted is shorter, and overwrites it.
                got = self._sock.recv_into(into)
            except BlockingIOError:
                pass
            else:
                if got:
                    self._from_peer.write(into[:got])
                else:
                    self._end()
        size = self._decrypt(into)
        return size or (0 if self._ended else None)

    def more(self) -> bool:
        """Whether the last read left something that no poll reports."""
        return self._at_hand or self._ended

    def write(self, data: memoryview) -> int:
        """Write some of `data`; return how much of it the kernel has.

        After 0 the next write must begin with the same bytes: some of them are encrypted already.
        """
        if not self._unsent:
            self._taken = self._tls.write(data[:PIECE])
            self._unsent = memoryview(self._to_peer.read())
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            return 0
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._begun += sent
            return 0
        self._begun = 0
        return self._taken

    def begun(self) -> int:
        """Return how many bytes the kernel has of what `write` has not told of yet."""
        return self._begun

    def _decrypt(self, into: memoryview) -> int:
        """Fill `into` with what can be decrypted; return how much that was."""
        read, size, room = self._tls.read, 0, len(into)
        self._at_hand = False
        while size < room:
            try:
                # The stubs know the kind of call that returns bytes only.
                got: int = read(room - size, into[size:])  # type: ignore[assignment]
            except ssl.SSLWantReadError:
                return size
            except ssl.SSLEOFError:  # the peer closed without `close_notify`, as many do
                return size
            if not got:
                self._end()
                return size
            size += got
        self._at_hand = True
        return size

    def _end(self) -> None:
        self._ended = True
        self._from_peer.write_eof()
