"""A connect without a client, to see whether a place is back that did not answer.

Used by `kecs.net.served`. The connection is closed at once; no byte is sent on it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from kecs.net import dial
from kecs.net.poller import EDGE, OUT

if TYPE_CHECKING:
    from kecs.net.loop import RelayLoop
    from kecs.net.places import Place


class Probe:
    """One try."""

    def __init__(
        self,
        loop: RelayLoop,
        place: Place,
        patience: float,
        tell: Callable[[Place, OSError | None], None],
    ) -> None:
        """`tell` hears the outcome, once; within `patience` seconds after `begin`."""
        self._loop = loop
        self._place = place
        self._patience = patience
        self._tell = tell
        self.fd = -1
        self.sock: socket.SocketType | None = None

    def begin(self) -> None:
        """Dial; among the chores, like everything that makes descriptors."""
        try:
            self.sock, done = dial.begin(self._place.address)
        except OSError as error:
            self._end(error)
            return
        if done:
            self._end(None)
            return
        self.fd = self.sock.fileno()
        self._loop.add(self, OUT | EDGE)
        self._loop.at(self._loop.now + self._patience, self._give_up)

    def on_event(self, _mask: int) -> None:
        """Look whether it is connected."""
        if self.sock is None:
            return
        try:
            done = dial.finished(self.sock, self._place.address)
        except OSError as error:
            self._end(error)
        else:
            if done:
                self._end(None)

    def fail(self, error: Exception) -> None:
        """Count an unexpected error as a refusal."""
        self._end(OSError(errno.EIO, f"{type(error).__name__}: {error}"))

    def _give_up(self) -> None:
        if self.sock is not None:
            self._end(TimeoutError(errno.ETIMEDOUT, f"no answer within {self._patience:g} s"))

    def _end(self, error: OSError | None) -> None:
        if self.sock is not None:
            self._loop.ends.pop(self.fd, None)
            self.sock.close()
            self.sock = None
        if self._place.probing:
            self._place.probing = False
            self._tell(self._place, error)
