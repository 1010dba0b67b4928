"""What a tunnel keeps from the far end's workers for the others' sake, and what it asks them.

`kecs.kube.tunnel` has one, on the relay loop's thread. The account itself is `kecs.kube.uploads`'; here are
the moments: which worker a new stream gets, when the first bytes may follow an opening, when workers are
asked, when one that does not answer is given up. It ends no connection itself.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Protocol

from kecs.kube.uploads import STUCK, WORKERS, Uploads

if TYPE_CHECKING:
    from kecs.net.loop import RelayLoop
    from kecs.wire.portforward import Client

CAUTIOUS = 0.01
"""Seconds after one round trip in which the far end may say that nobody listens on a port that has not
answered yet; as much again for each further connection that waits for that, and never less than two round
trips. Until then nothing is sent there: what a refused connection does not take is never taken."""
CAUTIOUS_AT_MOST = 0.25
WARY = 0.5
"""The same on a port where nobody listened before."""
AT_MOST = 1.0
"""The same without a round trip."""
JAMMED = 1.0
"""Seconds after which a worker that waits with something that nobody takes any more is given up."""
HOPELESS = 5.0
"""The same where somebody might still take it."""


class Face(Protocol):
    """What is needed of the tunnel."""

    def ping(self) -> int:
        """Send a PING, with what else there is to say; return its number."""
        ...

    def is_backlogged(self) -> bool:
        """Whether answers may be late for a reason on this side: nothing is read, or much is to be sent."""
        ...

    def go_on(self) -> None:
        """Let connections send that could not."""

    def judged(self) -> None:
        """Take that `jammed` may have changed."""

    def give_up(self, workers: set[int]) -> None:
        """End what needs these workers, and open nothing more."""


class Courtesy:
    """The state of one tunnel."""

    def __init__(self, loop: RelayLoop, client: Client, face: Face) -> None:
        self._loop = loop
        self._client = client
        self._face = face
        self.uploads = Uploads()
        self.jammed = False
        """A worker stands still: new connections are better off elsewhere."""
        self._checking = False
        self._closed = False
        self._proven: set[int] = set()
        """Ports that have answered."""
        self._refused: set[int] = set()
        """Ports on which nobody listened."""
        self._held: dict[int, tuple[int, int, float]] = {}
        """Channels on which nothing is sent yet -> port, the PING that went with the opening, and when."""

    # Streams

    def open(self, port: int) -> int:
        """Open a stream where it is best off."""
        client, uploads = self._client, self.uploads
        costs = [uploads.cost(*client.next_streams(ahead)) for ahead in range(WORKERS)]
        client.skip(costs.index(min(costs)))
        error, channel = client.next_streams()
        client.open(port)
        uploads.opened(error, channel)
        if port not in self._proven:
            self._held[channel] = port, self._ping(), self._loop.now
            self._loop.at(self._loop.now + AT_MOST, functools.partial(self._release, channel))
        return channel

    def may_send(self, channel: int) -> bool:
        """Tell whether a frame of data may be sent."""
        return channel not in self._held and self.uploads.has_room(channel)

    def answered(self, channel: int, port: int) -> None:
        """Take that the Pod has answered."""
        self.uploads.answered(channel)
        if port not in self._proven:
            self._proven.add(port)
            self._refused.discard(port)
            for other, (its_port, _, _) in list(self._held.items()):
                if its_port == port:
                    self._release(other)

    def refused(self, port: int) -> None:
        """Take that nobody listens on `port`."""
        self._proven.discard(port)
        self._refused.add(port)

    def over(self, channel: int, *, given_up: bool) -> None:
        """Forget a stream; `given_up` as in `Uploads.over`."""
        self._held.pop(channel, None)
        self.uploads.over(channel, given_up=given_up)

    def _release(self, channel: int) -> None:
        """Let a stream send: it would have been refused by now."""
        if self._held.pop(channel, None) is not None:
            self._face.go_on()

    def close(self) -> None:
        """Do nothing more: the tunnel is closed."""
        self._closed = True
        self._held.clear()

    # Workers

    def ask(self) -> None:
        """Ask for a sign of life: all workers, where one that stands still might have to answer for all."""
        if self.uploads.quiet:
            self._ping()
        else:
            self._ping_all()

    def ask_if_due(self) -> None:
        """Ask what was taken, where much is under way and no answer is still due."""
        if self.uploads.due() and not (self.uploads.asking and self._checking):
            self._ping_all()

    def pong(self, ping: int) -> None:
        """Take that a worker has answered."""
        self.uploads.pong(ping)
        for channel, (port, its_ping, opened_at) in self._held.items():
            if its_ping == ping:
                grace = max(CAUTIOUS * len(self._held), 2 * (self._loop.now - opened_at))
                grace = min(grace, CAUTIOUS_AT_MOST)
                if port in self._refused:
                    grace = WARY
                self._loop.at(self._loop.now + grace, functools.partial(self._release, channel))
        self._face.go_on()

    def watch(self) -> None:
        """Look after the workers in a moment."""
        if not self._checking:
            self._checking = True
            self._loop.at(self._loop.now + STUCK, self._check)

    def _ping(self) -> int:
        number = self._face.ping()
        self.uploads.asked(number, self._loop.now)
        return number

    def _ping_all(self) -> None:
        for _ in range(WORKERS):
            self._ping()
        self.watch()

    def _check(self) -> None:
        """See who stands still, and whether for ever."""
        self._checking = False
        if self._closed:
            return
        now, uploads = self._loop.now, self.uploads
        if self._face.is_backlogged():
            uploads.wait_anew(now)
        self.jammed = bool(uploads.stuck(now, STUCK))
        lost = uploads.stuck(now, JAMMED) & uploads.suspects(certain=True)
        lost |= uploads.stuck(now, HOPELESS) & uploads.suspects()
        if lost:
            self._face.give_up(lost)
        self._face.judged()
        if uploads.due():
            self._ping_all()
        elif uploads.asking:
            self.watch()
