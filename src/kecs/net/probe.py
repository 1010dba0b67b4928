"""A connect without a client, to see whether a place is back that did not answer.

Used by `kecs.net.served`. The connection is closed at once; no byte is sent on it. Where a connect proves
nothing (`Endpoint.doubt`), it has to last a while, or to bring a word.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from kecs.net import dial
from kecs.net.poller import EDGE, IN, OUT, READ_END

if TYPE_CHECKING:
    from kecs.net.loop import RelayLoop
    from kecs.net.places import Place

LASTS = 1.25
"""Seconds for which a connection lasts when there is somebody: much longer than clients wait for the same
(`Endpoint.doubt`), as nobody waits for a probe, and a busy machine may take its time to say no. A node
refuses by ICMP what has no endpoint (kube-proxy's REJECT), of which Linux sends one a second and drops the
rest: the SYN that is sent again after 1 s (RFC 6298, 2.1) gets an answer."""


class Probe:
    """One try."""

    def __init__(
        self,
        loop: RelayLoop,
        place: Place,
        patience: float,
        tell: Callable[[Place, OSError | None], None],
    ) -> None:
        """`tell` hears the outcome, once; within `patience` seconds after `begin`, or a little later."""
        self._loop = loop
        self._place = place
        self._patience = patience
        self._tell = tell
        self._doubted = False
        """It is connected; whether to somebody is to be seen."""
        self.fd = -1
        self.sock: socket.SocketType | None = None

    def begin(self) -> None:
        """Dial; among the chores, like everything that makes descriptors."""
        try:
            self.sock, done = dial.begin(self._place.address)
        except OSError as error:
            self._end(error)
            return
        if done and self._place.endpoint.doubt is None:
            self._end(None)
            return
        self.fd = self.sock.fileno()
        self._loop.add(self, IN | READ_END | OUT | EDGE)
        self._loop.at(self._loop.now + self._patience, self._give_up)

    def on_event(self, _mask: int) -> None:
        """Look whether it is connected, and to somebody."""
        if self.sock is None:
            return
        try:
            if self._doubted or dial.finished(self.sock, self._place.address):
                self._connected(self.sock)
        except OSError as error:
            self._end(error)

    def fail(self, error: Exception) -> None:
        """Count an unexpected error as a refusal."""
        self._end(OSError(errno.EIO, f"{type(error).__name__}: {error}"))

    def _connected(self, sock: socket.SocketType) -> None:
        if self._place.endpoint.doubt is None:
            self._end(None)
            return
        if not self._doubted:
            self._doubted = True
            self._loop.at(self._loop.now + LASTS, self._lasted)
        try:
            if not sock.recv(1, socket.MSG_PEEK):
                raise dial.nobody_behind()
        except BlockingIOError:
            return
        self._end(None)

    def _lasted(self) -> None:
        if self.sock is not None:
            self._end(None)

    def _give_up(self) -> None:
        if self.sock is not None and not self._doubted:
            self._end(TimeoutError(errno.ETIMEDOUT, f"no answer within {self._patience:g} s"))

    def _end(self, error: OSError | None) -> None:
        if self.sock is not None:
            self._loop.ends.pop(self.fd, None)
            self.sock.close()
            self.sock = None
        if self._place.probing:
            self._place.probing = False
            self._tell(self._place, error)
