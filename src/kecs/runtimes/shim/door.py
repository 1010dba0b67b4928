"""The shim's door: tells connected control planes the task's state, a JSON object a line, and takes orders.

States are whole, so only the newest one is kept for a reader that is slow.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable

from kecs.runtimes import process
from kecs.runtimes.shim import SOCKET
from kecs.runtimes.shim.loop import READ, WRITE, Loop

_MAX_ORDER = 64 * 1024
"""Bytes of an order: it is a word or two."""


class _Guest:
    """One connected control plane."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.received = b""
        self.leaving = b""
        """What is left of a line that was begun."""
        self.next: bytes | None = None
        """The newest state, when it has not been begun."""


class Door:
    """Listens on `shim.sock` in the working directory; a relative name, so that no path is too long."""

    def __init__(self, loop: Loop, on_order: Callable[[str], None]) -> None:
        self._loop = loop
        self._on_order = on_order
        self._guests: dict[int, _Guest] = {}
        self._latest = b""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET)  # noqa: PTH108 - pathlib takes 8 ms to import
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            self._listener.bind(SOCKET)
        finally:
            os.umask(before)
        self._listener.listen(16)
        self._listener.setblocking(False)
        loop.watch(self._listener.fileno(), READ, self._accept)

    def admit(self, connected: socket.socket, received: bytes = b"") -> None:
        """Serve a connection from now on; `received` was read from it already."""
        connected.setblocking(False)
        guest = _Guest(connected)
        self._guests[connected.fileno()] = guest
        self._loop.watch(connected.fileno(), READ, lambda: self._serve(guest))
        self._take(guest, received)
        if self._latest:
            guest.next = self._latest
            self._send(guest)

    def tell(self, state: dict) -> None:  # type: ignore[type-arg] # JSON
        """Send `state` to everyone if it differs from the last one."""
        line = json.dumps(state).encode() + b"\n"
        if line == self._latest:
            return
        self._latest = line
        for guest in list(self._guests.values()):
            guest.next = line
            self._send(guest)

    def close(self, patience: float) -> None:
        """Send what is not sent yet, waiting at most `patience` seconds for each reader; then leave."""
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(SOCKET)  # noqa: PTH108
        for guest in list(self._guests.values()):
            with contextlib.suppress(OSError):
                guest.socket.settimeout(patience)
                guest.socket.sendall(guest.leaving + (guest.next or b""))
            self._drop(guest)

    def _accept(self) -> None:
        try:
            connected, _ = self._listener.accept()
        except OSError:
            return
        if process.peer_uid(connected) not in (0, os.getuid()):
            connected.close()
            return
        self.admit(connected)

    def _serve(self, guest: _Guest) -> None:
        try:
            data = guest.socket.recv(1 << 16)
        except BlockingIOError:
            data = None
        except OSError:
            data = b""
        if data == b"" or len(guest.received) > _MAX_ORDER:
            self._drop(guest)
            return
        self._send(guest)
        self._take(guest, data or b"")

    def _take(self, guest: _Guest, data: bytes) -> None:
        *lines, guest.received = (guest.received + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._on_order(json.loads(line)["order"])

    def _send(self, guest: _Guest) -> None:
        try:
            while guest.leaving or guest.next:
                if not guest.leaving:
                    guest.leaving, guest.next = guest.next or b"", None
                guest.leaving = guest.leaving[guest.socket.send(guest.leaving) :]
        except BlockingIOError:
            self._loop.watch(guest.socket.fileno(), READ | WRITE, lambda: self._serve(guest))
        except OSError:
            self._drop(guest)
        else:
            self._loop.watch(guest.socket.fileno(), READ, lambda: self._serve(guest))

    def _drop(self, guest: _Guest) -> None:
        if self._guests.pop(guest.socket.fileno(), None) is not None:
            self._loop.unwatch(guest.socket.fileno())
            guest.socket.close()
