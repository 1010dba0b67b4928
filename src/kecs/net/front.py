"""The one port for all names: a client says which forward it wants, and is handed to that.

On the relay loop's thread only (`kecs.net.loop`). What a client says up to its host is read here, and said
again to whoever serves it; from then on the connection is one of that forward, as if its own port had taken
it: held while no endpoint is there, tried elsewhere, counted. Who asks for nothing that is known is told so
in its own language and leaves in order.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kecs.net import options, turned_away
from kecs.net.accept import Accepting
from kecs.net.greeting import Asked, Greeting
from kecs.net.relay import BUFFER, EVENTS

if TYPE_CHECKING:
    from kecs.net.loop import RelayLoop

_log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds within which a client has to say what it wants. Browsers open connections ahead of use."""

VISITORS = 1024
"""Clients that may be about to say it at the same time; further ones are reset."""

LEAVE = 2.0
"""Seconds for one that is turned away to read the answer: a close with unread bytes would reset it."""

_UNREAD = 16 * BUFFER
"""Bytes that such a client may still send meanwhile."""


class Front:
    """The listeners of the one port, and those who have not said yet what they want."""

    def __init__(self, loop: RelayLoop) -> None:
        self.name = "names"
        """In what the loop reports, as if it were a forward."""
        self.names: Mapping[str, str] = {}
        """Host -> the id of its forward."""
        self._loop = loop
        self._listeners: list[Accepting] = []
        self._visitors: dict[Visitor, None] = {}
        """In the order of their arrival, so that the first one's time is over first."""
        self._leaving: dict[Visitor, None] = {}
        self._ticking = False

    def listen(self, sockets: tuple[socket.socket, ...]) -> None:
        """Take clients on these too."""
        for sock in sockets:
            self._listeners.append(Accepting(self._loop, self, sock))

    def close(self) -> None:
        """Take no more clients; who has not said yet what it wants is reset, all others go on."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for visitor in [*self._visitors, *self._leaving]:
            visitor.drop()

    def accepted(self, sock: socket.SocketType, peer: object) -> None:
        """Let a new client say what it wants."""
        if len(self._visitors) >= VISITORS:
            sock.close()  # a reset (`options.prepare`)
            return
        visitor = Visitor(self, self._loop, sock, peer)
        self._visitors[visitor] = None
        self._loop.held += 1  # it will need one descriptor more
        self._loop.add(visitor, EVENTS)
        self._tick_later()

    def asked(self, visitor: Visitor, asked: Asked) -> None:
        """Hand over who has said what it wants, or tell it that this is not here."""
        forward = self.names.get(asked.host) if asked.host is not None else None
        self.forget(visitor)
        said = bytes(visitor.greeting.said)
        if forward is None or not self._loop.hand_over(forward, visitor.sock, visitor.peer, said):
            port = visitor.sock.getsockname()[1]
            self.turn_away(visitor, turned_away.answer(asked, self.names, port))

    def turn_away(self, visitor: Visitor, answer: bytes) -> None:
        """Say `answer` and close, once the client has it."""
        self.forget(visitor)
        self._leaving[visitor] = None
        self._loop.at(self._loop.now + LEAVE, visitor.end)
        visitor.leave(answer)

    def forget(self, visitor: Visitor) -> None:
        """Take `visitor` out of the account of those who are about to say what they want."""
        if visitor in self._visitors:
            del self._visitors[visitor]
            self._loop.held -= 1
        self._leaving.pop(visitor, None)

    def closed(self, visitor: Visitor) -> None:
        """Take that the socket of `visitor` was closed: there is a descriptor again."""
        self.forget(visitor)
        self._loop.unpause()

    def _tick_later(self) -> None:
        if not self._ticking and self._visitors:
            self._ticking = True
            self._loop.at(next(iter(self._visitors)).since + PATIENCE, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        for visitor in list(self._visitors):
            if visitor.since + PATIENCE > self._loop.now:
                break
            visitor.too_slow()
        self._tick_later()


class Visitor:
    """One client that has not been handed over."""

    __slots__ = (
        "_asked",
        "_front",
        "_leaving",
        "_loop",
        "_unread",
        "fd",
        "greeting",
        "peer",
        "since",
        "sock",
    )

    def __init__(self, front: Front, loop: RelayLoop, sock: socket.SocketType, peer: object) -> None:
        self._front = front
        self._loop = loop
        self.sock = sock
        self.fd = sock.fileno()
        self.peer = peer
        self.since = loop.now
        self.greeting = Greeting()
        self._asked: Asked | None = None
        """It said what it wants; it is served in the chores, where descriptors may be made."""
        self._leaving = False
        self._unread = _UNREAD

    def on_event(self, _mask: int) -> None:
        """Read what it says."""
        if self._leaving:
            self._discard()
        elif self._asked is None:
            self._read()

    def fail(self, error: Exception) -> None:
        """Reset after an unexpected error."""
        _log.error("a connection to the names' port failed", exc_info=error)
        self.drop()

    def _read(self) -> None:
        view = self._loop.view
        while True:
            try:
                size = self.sock.recv_into(view)
            except BlockingIOError:
                return
            except OSError:
                self.drop()
                return
            if not size:
                self.end()  # it left without a word, or in the middle of one
                return
            self._asked = self.greeting.feed(view[:size])
            if self._asked is not None:
                self._loop.chores.append(self._serve)
                return

    def _serve(self) -> None:
        asked = self._asked
        if asked is None or self._loop.ends.get(self.fd) is not self:
            return  # the port was closed in the same turn
        try:
            self._front.asked(self, asked)
        except Exception as error:  # noqa: BLE001 - the top of this connection's handling
            self.fail(error)

    def too_slow(self) -> None:
        """Turn away one that did not say in time what it wants; without a word if it said none."""
        if self.greeting.said:
            self._front.turn_away(self, turned_away.too_slow(self.greeting.speech))
        else:
            self.end()

    def leave(self, answer: bytes) -> None:
        """Say `answer`, and wait for the client's end."""
        self._leaving = True
        try:
            self.sock.send(answer)  # a few KB, into an empty buffer
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.drop()
        else:
            self._discard()

    def _discard(self) -> None:
        while self._unread > 0:
            try:
                size = self.sock.recv_into(self._loop.view)
            except BlockingIOError:
                return
            except OSError:
                break
            if not size:
                self.end()
                return
            self._unread -= size
        self.drop()

    def end(self) -> None:
        """Close in order."""
        if self._loop.ends.get(self.fd) is self:
            options.end_orderly(self.sock)
            self.drop()

    def drop(self) -> None:
        """Close the socket, unless that is done or it was handed over; a reset, but after `end`."""
        if self._loop.ends.get(self.fd) is self:
            del self._loop.ends[self.fd]
            with contextlib.suppress(OSError):
                self.sock.close()
            self._front.closed(self)
