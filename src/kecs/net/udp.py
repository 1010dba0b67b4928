"""One UDP forward as the relay loop serves it: its clients, each with a socket of its own to one task.

On the loop's thread only, beside `kecs.net.served`, which does this for TCP. UDP has no connections, so a
client is an address that has sent something: it keeps to one task while that takes it, and is forgotten after
a time without a datagram. A task that leaves is left at once, and may still answer what it was asked last.
Where no task takes a datagram it is dropped and counted: nothing is held, since a client of UDP asks again.
"""

from __future__ import annotations

import collections
import errno
import logging
import socket
import time
from typing import TYPE_CHECKING, Any

from kecs.net.datagrams import Client, Door, Upstream
from kecs.net.dial import EXHAUSTED
from kecs.net.messages import Counters, Datagrams, Drained, Ended, Endpoint, Opened, Refused
from kecs.net.places import Place, Places

if TYPE_CHECKING:
    from kecs.net.loop import RelayLoop

_log = logging.getLogger(__name__)

GRACE = 1.0
"""Seconds for which a task that leaves may still answer what it was asked last. Well below the time in which
the control plane waits for `Drained` (docs/design/contracts.md, 2)."""

COARSE = 1.0
"""Seconds within which a second datagram of a client does not count as news of it: the order in which clients
are forgotten is kept by an ordered dictionary, and that need not be touched for each datagram."""

REPORT_EVERY = 1.0
"""Seconds between two reports that there is no room."""


class Session:
    """One client."""

    __slots__ = ("active", "client", "number", "received", "sent", "since", "upstream")

    def __init__(self, client: Client, number: int, now: float) -> None:
        self.client = client
        self.number = number
        self.since = self.active = now
        self.upstream: Upstream | None = None
        """None while no task takes it."""
        self.received = self.sent = 0
        """Bytes from the client, and to it."""


class ServedByDatagrams:
    """One forward of UDP."""

    __slots__ = (
        "_coarse", "_leaving", "_reported_at", "_wake_at", "closing", "doors", "dropped", "failed", "limits",
        "loop", "name", "places", "received", "sent", "sessions", "total", "watched_from",
    )  # fmt: skip

    def __init__(self, loop: RelayLoop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.limits = Datagrams()
        self.doors: list[Door] = []
        self.places = Places()
        self.sessions: collections.OrderedDict[Client, Session] = collections.OrderedDict()
        """Those that were silent longest come first."""
        self.closing = False
        self.watched_from: int | None = None
        """Number of the first client that is reported; None while nobody watches."""
        self.total = self.dropped = self.failed = 0
        self.received = self.sent = 0
        """Bytes of clients that are forgotten."""
        self._coarse = COARSE
        self._leaving: dict[Upstream, float] = {}
        """Sockets to tasks that leave and still owe an answer, with when they are closed."""
        self._wake_at = float("inf")
        self._reported_at = float("-inf")

    # What the owner asks

    def listen(self, sockets: tuple[socket.socket, ...], limits: Datagrams) -> None:
        """Serve these sockets too."""
        self.closing = False
        self.limits = limits
        self._coarse = min(COARSE, limits.idle / 8)
        self.doors += [Door(self.loop, sock, self._take) for sock in sockets]
        while len(self.sessions) > limits.clients:
            self._forget_one()
        self._wake_for_the_oldest()

    def snapshot(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Use these endpoints from now on; leave those that drain, now."""
        for endpoint in self.places.replace(endpoints):
            self.loop.say(Drained(self.name, endpoint))
        for session in self.sessions.values():
            upstream = session.upstream
            if upstream is not None and upstream.place.draining:
                session.upstream = None
                self._leave(upstream)

    def try_again(self) -> None:
        """Nothing waits."""

    def serve_held(self) -> None:
        """Nothing waits."""

    def rouse(self) -> None:
        """Prefer every task again as if it had never refused."""
        self.places.rouse(self.loop.now)

    def watch(self, *, on: bool) -> None:
        """Report clients that come from now on, or none."""
        self.watched_from = self.total + 1 if on else None

    def close(self, *, connections: bool) -> None:  # noqa: ARG002 - without its door no client has anything
        """Close all."""
        self.closing = True
        for door in self.doors:
            door.close()
        self.doors.clear()
        for session in list(self.sessions.values()):
            self._forget(session, "the forward was stopped")

    @property
    def connections(self) -> int:
        """How many clients there are."""
        return len(self.sessions)

    def counters(self) -> Counters:
        """Count."""
        sessions = self.sessions.values()
        return Counters(
            open=len(sessions),
            total=self.total,
            received=self.received + sum(session.received for session in sessions),
            sent=self.sent + sum(session.sent for session in sessions),
            failed=self.failed,
            dropped=self.dropped,
            by_endpoint=self.places.counts(),
            taking=self.places.taking(self.loop.now),
        )

    # From clients

    def _take(self, client: Client, data: memoryview) -> None:
        """Send on what a client sent."""
        session = self.sessions.get(client)
        try:
            if session is None:
                session = self._admit(client)
            else:
                self._note(session)
            if session is None or not self._send(session, data):
                self.dropped += 1
        except Exception as error:  # noqa: BLE001 - the top of this datagram's handling
            self._failed(self.sessions.get(client), error)

    def _admit(self, client: Client) -> Session | None:
        """Begin with a new client; None when no task takes it, or there is no room."""
        place = self._choose(())
        if place is None or not self._has_room():
            return None
        session = Session(client, self.total + 1, self.loop.now)
        if not self._open(session, place):
            return None
        self.total += 1
        self.sessions[client] = session
        if self.watched_from is not None:
            self.loop.say(Opened(self.name, session.number, _text(client.peer)))
        self._wake_for_the_oldest()
        return session

    def _send(self, session: Session, data: memoryview) -> bool:
        """Send to the client's task, or to another one that takes it; False when none does."""
        upstream = self._well(session)
        tried: set[Place] = set()
        while upstream is not None:
            try:
                upstream.send(data)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    self._report(f"a datagram of {len(data)} bytes is too long for its way")
                    return False
                # Mostly what became of an earlier one: the same task has another try, once.
                self.refused(upstream, error)
                if upstream.place in tried:
                    return False
                tried.add(upstream.place)
                upstream = self._well(session)
            else:
                session.received += len(data)
                return True
        return False

    def _send_again(self, session: Session, refused: Upstream, data: bytes) -> None:
        """Send what was refused to another task, if there is one that takes it."""
        try:
            known = self.sessions.get(session.client) is session
            other = self._well(session) if known else None
            if other is None or other is refused:
                self.dropped += 1
            else:
                other.send(data)
        except OSError:
            self.dropped += 1
        except Exception as error:  # noqa: BLE001 - the top of this datagram's handling
            self._failed(session, error)

    def _well(self, session: Session) -> Upstream | None:
        """Return the socket to the client's task, where that is possible to one that did not refuse."""
        upstream = session.upstream
        return self._move(session) if upstream is None or upstream.shunned else upstream

    def _move(self, session: Session) -> Upstream | None:
        """Give a client another task, where there is one; else leave it the one that it has."""
        before = session.upstream
        place = self._choose(() if before is None else (before.place,))
        if place is not None and self._open(session, place) and before is not None:
            self._leave(before)
        elif before is not None:
            before.shunned = False
        return session.upstream

    def _choose(self, not_these: tuple[Place, ...]) -> Place | None:
        """Choose a task; of those that have refused a moment ago only where there is no other at all."""
        place = self.places.choose(self.loop.now, not_these)
        return place if place is not None or not_these else self.places.set_aside(())

    def _open(self, session: Session, place: Place) -> bool:
        """Open the client's socket to a task; what it had is not closed. False when that cannot be."""
        try:
            upstream = Upstream(self.loop, self, session, place)
        except OSError as error:
            if error.errno in EXHAUSTED:
                self._report(error.strerror or str(error))
            else:
                self._refuse(place, error)
            return False
        place.open += 1
        session.upstream = upstream
        return True

    def _has_room(self) -> bool:
        """Make room for one client more: the one that was silent longest is forgotten for it."""
        if len(self.sessions) >= self.limits.clients:
            self._forget_one()
        if self.sessions and not self.loop.has_room_for_clients():
            self._forget_one()
        if self.loop.has_room_for_clients():
            return True
        self._report("no descriptor is left for another client")
        return False

    # From tasks

    def answered(self, upstream: Upstream, data: memoryview) -> None:
        """Send on what a task sent, from the address that the client had sent to."""
        session = upstream.session
        upstream.place.delay = 0.0
        self._note(session)
        try:
            session.client.door.answer(session.client, data)
        except OSError:
            self.dropped += 1
        else:
            session.sent += len(data)
        upstream.last = None
        if upstream.owed:
            upstream.owed -= 1
        if not upstream.owed and upstream in self._leaving:
            self._close(upstream)

    def refused(self, upstream: Upstream, error: OSError) -> None:
        """Set the task aside for a moment, and give another one what nobody got; its client goes on."""
        lost, upstream.last = upstream.last, None
        session = upstream.session
        if upstream in self._leaving:
            self._close(upstream)
        else:
            upstream.shunned = True
            self._refuse(upstream.place, error)
        if lost is not None:
            # Not now: descriptors are made between two rounds of events only (`RelayLoop`).
            self.loop.chores.append(lambda: self._send_again(session, upstream, lost))

    def broken(self, upstream: Upstream, error: Exception) -> None:
        """Keep an unexpected error with its client."""
        self._failed(upstream.session, error)

    def _refuse(self, place: Place, error: OSError) -> None:
        # Never as one that is silent: of such a place a probe tells when it is back, and probes are TCP's.
        if self.places.refused(place, self.loop.now, errno.ECONNREFUSED):
            self.loop.say(Refused(self.name, place.endpoint.id, error.strerror or str(error), time.time()))

    # Ends

    def _leave(self, upstream: Upstream) -> None:
        """Send nothing more by this socket; close it as soon as no answer is due."""
        until = upstream.asked_at + GRACE
        if not upstream.owed or until <= self.loop.now:
            self._close(upstream)
        else:
            self._leaving[upstream] = until
            self._wake(until)

    def _close(self, upstream: Upstream) -> None:
        self._leaving.pop(upstream, None)
        upstream.close()
        place = upstream.place
        if self.places.release(place):
            self.loop.say(Drained(self.name, place.endpoint.id))

    def _forget_one(self) -> None:
        session = next(iter(self.sessions.values()))
        self._forget(session, f"no room: it was silent longest of {len(self.sessions)}")

    def _forget(self, session: Session, why: str) -> None:
        del self.sessions[session.client]
        for upstream in [one for one in self._leaving if one.session is session]:
            self._close(upstream)
        if session.upstream is not None:
            self._close(session.upstream)
            session.upstream = None
        self.received += session.received
        self.sent += session.sent
        if self.watched_from is not None and session.number >= self.watched_from:
            seconds = self.loop.now - session.since
            self.loop.say(Ended(self.name, session.number, why, session.received, session.sent, seconds))
        self.loop.unpause()

    def _failed(self, session: Session | None, error: Exception) -> None:
        _log.error("forward %s: a defect ended a client of UDP", self.name, exc_info=error)
        self.failed += 1
        if session is not None and self.sessions.get(session.client) is session:
            self._forget(session, f"{type(error).__name__}: {error}")

    def _report(self, why: str) -> None:
        """Say what is nobody's fault but this machine's."""
        if self.loop.now - self._reported_at >= REPORT_EVERY:
            self._reported_at = self.loop.now
            self.loop.say(Refused(self.name, "", why, time.time()))

    # Time

    def _note(self, session: Session) -> None:
        """Note that something came from or for a client."""
        now = self.loop.now
        if now - session.active >= self._coarse:
            session.active = now
            self.sessions.move_to_end(session.client)

    def _wake_for_the_oldest(self) -> None:
        session = next(iter(self.sessions.values()), None)
        if session is not None:
            self._wake(session.active + self.limits.idle + self._coarse)

    def _wake(self, when: float) -> None:
        """Have `_tick` called at `when` or before."""
        if when < self._wake_at:
            self._wake_at = when
            self.loop.at(when, self._tick)

    def _tick(self) -> None:
        """Forget who was silent for too long, and close what owes no answer any more."""
        now = self.loop.now
        if now < self._wake_at:
            return  # an earlier call did it
        self._wake_at = float("inf")
        for upstream, until in list(self._leaving.items()):
            if until <= now:
                self._close(upstream)
            else:
                self._wake(until)
        while self.sessions:
            session = next(iter(self.sessions.values()))
            if session.active + self.limits.idle + self._coarse > now:
                self._wake_for_the_oldest()
                return
            self._forget(session, "idle")


def _text(peer: Any) -> str:
    host, port = peer[0], peer[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
