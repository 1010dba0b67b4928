"""The wake-up descriptor of the relay loop: rung by any thread, heard by the loop (`kecs.net.loop`)."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kecs.net.loop import RelayLoop


class Bell:
    """The descriptor; one for each loop."""

    def __init__(self, loop: RelayLoop) -> None:
        self._loop = loop
        self._rung = False
        self._lock = threading.Lock()
        self._there: socket.socket | None
        self.sock, self._there = socket.socketpair()
        self.sock.setblocking(False)
        self._there.setblocking(False)
        self.fd = self.sock.fileno()

    def ring(self) -> bool:
        """Wake the loop unless it is about to look anyway; False when it has ended."""
        with self._lock:
            if self._there is None:
                return False
            if not self._rung:
                self._rung = True
                self._there.send(b"\0")
            return True

    def on_event(self, _mask: int) -> None:
        """Have the messages handled once this round of events is over."""
        with contextlib.suppress(BlockingIOError):
            self.sock.recv(64)
        self._rung = False  # before the inbox is looked at: what comes now rings again
        self._loop.chores.append(self._loop.handle_messages)

    def fail(self, error: Exception) -> None:
        """Without it the loop would be deaf."""
        raise error

    def close(self) -> None:
        """End both descriptors; `ring` says so from now on."""
        with self._lock:
            if self._there is not None:
                self._there.close()
            self._there = None
