"""One forward as the relay loop serves it: its listeners, places, held connections and counters.

On the loop's thread only. A new connection goes to the place that `kecs.net.places` chooses; when
that refuses, to another; when none is left it is held, unread, until a snapshot or a retry.
"""

from __future__ import annotations

import errno
import itertools
import logging
import socket
import time
from typing import TYPE_CHECKING, Any

from kecs.net import dial
from kecs.net.accept import BURST, Accepting
from kecs.net.connection import NOTHING, Connection
from kecs.net.latency import Histogram
from kecs.net.messages import (
    Counters,
    Drained,
    Ended,
    Endpoint,
    HoldLimits,
    Opened,
    Refused,
    Waiting,
)
from kecs.net.places import Place, Places
from kecs.net.probe import Probe

if TYPE_CHECKING:
    from kecs.net.loop import RelayLoop

_log = logging.getLogger(__name__)

SWEEP = 0.02
"""Seconds between two looks at deadlines: one look ends all that is due, however many there are."""


class Served:
    """One forward."""

    __slots__ = (
        "closing", "connections", "dialled", "dialling", "expired", "failed", "first_bytes", "held", "hungry",
        "limits", "listeners", "loop", "name", "places", "received", "sent", "serving", "total", "wake_at",
        "watched_from",
    )  # fmt: skip

    def __init__(self, loop: RelayLoop, name: str, limits: HoldLimits) -> None:
        self.loop = loop
        self.name = name
        self.limits = limits
        self.listeners: list[Accepting] = []
        self.places = Places(loop.carriers)
        self.connections: set[Connection] = set()
        self.held: dict[Connection, None] = {}
        """In the order of their arrival."""
        self.dialling: dict[Connection, float] = {}
        """When to give the dial up, or to believe one that is `Connection.doubted`."""
        self.serving = False
        """Those that wait are about to be served."""
        self.hungry = False
        """No descriptor was left to dial for one of those that wait."""
        self.closing = False
        """No listeners any more; forgotten when its last connection has ended."""
        self.wake_at = float("inf")
        self.watched_from: int | None = None
        """Number of the first connection that is reported; None while nobody watches."""
        self.total = self.expired = self.failed = 0
        self.received = self.sent = 0
        """Bytes of connections that have ended."""
        self.dialled = Histogram()
        """Dials that led somewhere."""
        self.first_bytes = Histogram()
        """From being accepted to the target's first byte."""

    # What the owner asks

    def listen(self, sockets: tuple[socket.socket, ...], limits: HoldLimits) -> None:
        """Serve these listeners too."""
        self.closing = False
        self.limits = limits
        for sock in sockets:
            self.listeners.append(Accepting(self.loop, self, sock))

    def snapshot(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Use these endpoints from now on."""
        for endpoint in self.places.replace(endpoints):
            self.loop.say(Drained(self.name, endpoint))
        self.try_again()
        self._probe()

    def try_again(self) -> None:
        """Have those that wait tried again: places may take them that did not before."""
        if self.held:
            self._try_again()

    def rouse(self) -> None:
        """Try every place at once that was given up for a while."""
        self.places.rouse(self.loop.now)
        self.try_again()
        self._probe()

    def watch(self, *, on: bool) -> None:
        """Report connections accepted from now on, or none."""
        self.watched_from = self.total + 1 if on else None

    def close(self, *, connections: bool) -> None:
        """Close the listeners and the held connections, or all."""
        self.closing = True
        for listener in self.listeners:
            listener.close()
        self.listeners.clear()
        for connection in list(self.connections if connections else self.held):
            connection.reset("the forward was stopped")

    def counters(self) -> Counters:
        """Count."""
        held = len(self.held)
        return Counters(
            open=len(self.connections) - held,
            total=self.total,
            held=held,
            received=self.received + sum(c.received for c in self.connections),
            sent=self.sent + sum(c.sent for c in self.connections),
            expired=self.expired,
            failed=self.failed,
            dial=self.dialled.taken(),
            first_byte=self.first_bytes.taken(),
            by_endpoint=self.places.counts(),
            taking=self.places.taking(self.loop.now),
        )

    # The life of a connection

    def accepted(self, sock: socket.SocketType, peer: object) -> None:
        """Serve a new connection; `peer` is the client's socket address."""
        self.serve(self._admit(sock, peer))

    def handed(self, sock: socket.SocketType, peer: object, said: bytes) -> None:
        """Serve a connection that came by a name; its client has said this much."""
        connection = self._admit(sock, peer)
        connection.take_over(said)
        self.serve(connection)

    def _admit(self, sock: socket.SocketType, peer: object) -> Connection:
        self.total += 1
        connection = Connection(self, sock, self.total, self.loop.now)
        self.connections.add(connection)
        if self.watched_from is not None:
            self.loop.say(Opened(self.name, connection.number, _text(peer)))
        return connection

    def serve(self, connection: Connection) -> None:
        """Dial for `connection`, or hold it, behind those that wait already."""
        try:
            if self.held or not self._dial(connection):
                self._hold(connection)
        except Exception as error:  # noqa: BLE001 - the top of this connection's handling
            connection.fail(error)

    def _dial(self, connection: Connection) -> bool:
        """Begin to dial, each place at most once; False when none takes the connection now."""
        now = self.loop.now
        while (place := self.places.choose(now, connection.tried)) is not None:
            try:
                if place.carrier:
                    stream = self.loop.carriers.open(place.carrier, place.endpoint.port, connection)
                    self._take(connection, place)
                    connection.carried(stream)
                    return True
                if place.invalid is not None:
                    raise place.invalid
                connection.dialled_at = time.monotonic()
                sock, done = dial.begin(place.address)
            except OSError as error:
                if error.errno in dial.EXHAUSTED:
                    self.hungry = True
                    self.loop.exhausted(self, error)
                    self.wake(now + self.loop.pause)
                    break
                self._set_aside(connection, place, error)
                continue
            self._take(connection, place)
            if done and place.endpoint.doubt is None:
                place.delay = 0.0
                self.dialled.observe(time.monotonic() - connection.dialled_at)
                connection.open(sock)
            else:
                connection.dialling(sock)
                self.dialling[connection] = now + self._patience(place)
                self.wake(self.dialling[connection])
            return True
        else:
            self._fed()  # whatever it lacks now, it is not descriptors
        connection.tried = NOTHING
        self._probe()
        if (retry := self.places.retry_at(now)) is not None:
            self.wake(retry)
        return False

    def _take(self, connection: Connection, place: Place) -> None:
        """Count `connection` to `place`, which it waits for no longer."""
        if self.held:
            self._unhold(connection)
            self._fed()
        place.open += 1
        connection.place = place

    def _patience(self, place: Place) -> float:
        own = place.endpoint.patience
        return self.loop.connect_timeout if own is None else own

    def connected(self, connection: Connection, sock: socket.SocketType) -> None:
        """Relay, now that a dial is done; or wait whether it comes to its end at once."""
        assert connection.place is not None
        doubt = connection.place.endpoint.doubt
        if doubt is None:
            self.believe(connection, sock)
        else:
            connection.doubted = True
            self.dialling[connection] = time.monotonic() + doubt
            self.wake(self.dialling[connection])

    def believe(self, connection: Connection, sock: socket.SocketType) -> None:
        """Relay, now that there is somebody."""
        del self.dialling[connection]
        assert connection.place is not None
        connection.place.delay = 0.0
        self.dialled.observe(time.monotonic() - connection.dialled_at)
        connection.open(sock)

    def refused(self, connection: Connection, error: OSError) -> None:
        """Try another place, now that a dial failed."""
        self.dialling.pop(connection, None)
        place, connection.place = connection.place, None
        assert place is not None
        connection.drop_upstream()
        self._set_aside(connection, place, error)
        self._release(place)
        # Not now: descriptors are made between two rounds of events only (`RelayLoop`).
        self.loop.chores.append(lambda: self._again(connection))

    def _again(self, connection: Connection) -> None:
        if connection in self.connections:
            self.serve(connection)

    def ended(self, connection: Connection, why: str) -> None:
        """Take `connection`, which is about to be closed, out of all accounts."""
        self.connections.discard(connection)
        self.dialling.pop(connection, None)
        received, sent = connection.received, connection.sent
        self.received += received
        self.sent += sent
        if connection.place is not None:
            self._release(connection.place)
            connection.place = None
        else:
            self._unhold(connection)
        if self.watched_from is not None and connection.number >= self.watched_from:
            seconds = self.loop.now - connection.since
            self.loop.say(Ended(self.name, connection.number, why, received, sent, seconds))
        self.loop.freed(self)

    def _set_aside(self, connection: Connection, place: Place, error: OSError) -> None:
        connection.tried |= {place}
        self._refuse(place, error)

    def suspect(self, place: Place) -> None:
        """Have a place with `doubt` probed before it gets another connection."""
        if place.endpoint.doubt is not None:
            self._refuse(place, dial.nobody_behind())

    def _refuse(self, place: Place, error: OSError) -> None:
        if self.places.refused(place, self.loop.now, error.errno):
            text = error.strerror or str(error)
            self.loop.say(Refused(self.name, place.endpoint.id, text, time.time()))
        if place.lost:
            self.wake(place.aside_until)

    def _probe(self) -> None:
        """Look whether lost places are back, without a client."""
        due, later = self.places.due_for_a_probe(self.loop.now)
        for place in due:
            place.probing = True
            self.loop.chores.append(Probe(self.loop, place, self._patience(place), self._probed).begin)
        if later is not None:
            self.wake(later)

    def _probed(self, place: Place, error: OSError | None) -> None:
        if error is None:
            self.places.found(place)
            self.try_again()
        else:
            self._refuse(place, error)

    def _release(self, place: Place) -> None:
        if self.places.release(place):
            self.loop.say(Drained(self.name, place.endpoint.id))

    # Waiting

    def _hold(self, connection: Connection) -> None:
        if self.closing:
            connection.reset("the forward was stopped")
            return
        if len(self.held) >= self.limits.connections:
            self.expired += 1
            connection.reset(f"more than {self.limits.connections} connections are waiting")
            return
        connection.tried = NOTHING
        self.held[connection] = None
        self.loop.held += 1
        if len(self.held) == 1:
            self.loop.say(Waiting(self.name, 1))
        self.wake(connection.since + self.limits.seconds)
        self._try_again()
        if connection.client.fd in self.loop.ends:
            connection.drop_if_left()  # what it did while it was dialled for is not said again
        else:
            connection.watch()

    def _unhold(self, connection: Connection) -> None:
        if connection in self.held:
            del self.held[connection]
            self.loop.held -= 1
            if not self.held:
                self._fed()
                self.loop.say(Waiting(self.name, 0))

    def _fed(self) -> None:
        if self.hungry:
            self.hungry = False
            self.loop.fed(self)

    def _try_again(self) -> None:
        """Have those that wait served: in the next turn, or when a place that is set aside comes back."""
        now = self.loop.now
        if self.places.available(now) or self.places.last_resort(now):
            if not self.serving:
                self.serving = True
                self.loop.chores.append(self.serve_held)
            return
        self._probe()
        if (retry := self.places.retry_at(now)) is not None:
            self.wake(retry)

    def serve_held(self) -> None:
        """Dial for those that wait, the oldest first, until no place takes more; a few in each turn."""
        self.serving = False
        for connection in list(itertools.islice(self.held, BURST)):
            try:
                if not self._dial(connection):
                    break  # `_dial` saw to the next try
            except Exception as error:  # noqa: BLE001 - the top of this connection's handling
                connection.fail(error)
        else:
            if self.held:
                self._try_again()

    def wake(self, when: float) -> None:
        """Have `tick` called at `when` or before."""
        if when < self.wake_at:
            self.wake_at = when
            self.loop.at(when, self.tick)

    def tick(self) -> None:
        """Do what is due: give dials up, end those that waited too long, try again."""
        now = self.loop.now
        if now < self.wake_at:
            return  # an earlier call did it
        self.wake_at = float("inf")
        for connection, when in list(self.dialling.items()):
            if when > now:
                self.wake(when)
            elif connection.doubted:
                connection.lasted()
            elif connection.place is not None:
                seconds = self._patience(connection.place)
                self.refused(connection, TimeoutError(errno.ETIMEDOUT, f"no answer within {seconds:g} s"))
        self._probe()
        soonest = float("inf")
        for connection in list(self.held):
            deadline = connection.since + self.limits.seconds
            if deadline <= now:
                self.expired += 1
                connection.reset(f"no endpoint within {self.limits.seconds:g} s")
            else:
                soonest = min(soonest, deadline)
        if self.held:
            self.wake(max(soonest, now + SWEEP))
            self._try_again()


def _text(peer: Any) -> str:
    host, port = peer[0], peer[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
