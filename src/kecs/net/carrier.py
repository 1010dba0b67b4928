"""What carries many connections over one socket, as the relay loop sees it; and all of them by name.

A carrier is made outside (`kecs.kube.tunnel`) and handed over by `Carry`; from then on it is the loop's, like
every socket. This module knows no protocol: frames, TLS and signs of life are the carrier's own.
"""

from __future__ import annotations

import errno
from collections.abc import Container, Iterator
from typing import TYPE_CHECKING, Protocol

from kecs.net.messages import CarrierLost, Congested
from kecs.net.stream import Stream

if TYPE_CHECKING:
    from kecs.net.connection import Connection
    from kecs.net.loop import RelayLoop


class Closes(Protocol):
    """What is needed of a carrier's socket."""

    def close(self) -> None:
        """Close it without waiting for anything."""


class Carrier(Protocol):
    """A connection that carries many streams. Everything happens on the loop's thread, nothing waits.

    It calls `received`, `finish`, `fail`, `lose` and `go_on` of each `Stream`, and `Pools.lost`,
    `Pools.changed` of its owner.
    """

    fd: int

    @property
    def sock(self) -> Closes:
        """The socket."""
        ...

    @property
    def load(self) -> int:
        """Streams that are open."""
        ...

    @property
    def takes(self) -> bool:
        """Whether it opens streams at all: not once the far end has said that it goes away."""
        ...

    @property
    def congested(self) -> bool:
        """Whether a stream holds up the others: new ones are better off elsewhere."""
        ...

    @property
    def silent(self) -> bool:
        """Whether the far end owes a sign of life: what new streams say may be lost."""
        ...

    def begin(self, loop: RelayLoop, name: str) -> None:
        """Begin to watch the socket; called once."""

    def open(self, port: int, stream: Stream) -> int:
        """Begin a stream to `port` and return its channel. Nothing is known yet of its success."""
        ...

    def send(self, channel: int, data: memoryview) -> int:
        """Take a copy of bytes; return how many. Of none, `Stream.go_on` says when to try again."""
        ...

    def quieten(self, channel: int) -> None:
        """Note that this side of the stream sends nothing more; the far end is not told yet."""

    def end(self, channel: int) -> None:
        """Say that this side of the stream sends nothing more."""

    def abort(self, channel: int) -> None:
        """End the stream at once. It is not called again, and what still comes for it is dropped."""

    def relieved(self, stream: Stream) -> None:
        """Note that `stream.buffered` has become less."""

    def retire(self) -> None:
        """Close when the last stream has ended; new ones are not opened any more."""

    def rouse(self) -> None:
        """Ask for a sign of life now: this machine has slept, and the far end may have gone meanwhile."""

    def on_event(self, mask: int, /) -> None:
        """Handle these events of the socket."""

    def resume(self) -> None:
        """Go on after a turn that was cut short."""

    def fail(self, error: Exception, /) -> None:
        """Handle an unexpected error: the carrier is lost."""


class Pools(Container[str]):
    """The carriers by name; a name has several when one is congested."""

    def __init__(self, loop: RelayLoop) -> None:
        self._loop = loop
        self._carriers: dict[str, list[Carrier]] = {}
        self._said: set[str] = set()
        """Names of which it was said that all their carriers are congested."""

    def __contains__(self, name: object) -> bool:
        """Whether `name` has a carrier that takes streams, and none that may be lost."""
        return name in self._carriers and any(not one.silent for one in self._carriers[str(name)])

    def __iter__(self) -> Iterator[Carrier]:
        """All carriers."""
        return (carrier for each in self._carriers.values() for carrier in each)

    def add(self, name: str, carrier: Carrier) -> None:
        """Take a carrier over."""
        self._carriers.setdefault(name, []).append(carrier)
        self._said.discard(name)
        carrier.begin(self._loop, name)

    def open(self, name: str, port: int, connection: Connection) -> Stream:
        """Begin a stream: on the least loaded carrier of `name`, and on a congested one only where all are.

        Raises `OSError` when there is none.
        """
        carriers = self._carriers.get(name)
        if not carriers:
            raise OSError(errno.ENOTCONN, "no tunnel is open")
        carrier = carriers[0]
        if len(carriers) > 1:
            carrier = min(carriers, key=lambda one: (one.silent, one.congested, one.load))
        return Stream(self._loop, connection, carrier, port)

    def others(self, name: str, carrier: Carrier) -> int:
        """Count the carriers of `name` beside this one that are not congested."""
        return sum(1 for one in self._carriers.get(name, ()) if one is not carrier and not one.congested)

    def changed(self, name: str, carrier: Carrier) -> None:
        """Note that `carrier` became congested, is so no longer, or takes no more streams."""
        carriers = self._carriers.get(name, [])
        if carrier in carriers and not carrier.takes:
            self._forget(name, carrier)
            carrier.retire()
            self._loop.say(CarrierLost(name, "it takes no more connections", len(carriers)))
        elif carriers and all(one.congested for one in carriers):
            if name not in self._said:
                self._said.add(name)
                self._loop.say(Congested(name, len(carriers)))
        else:
            self._said.discard(name)

    def heard(self) -> None:
        """Note that a carrier that was silent has spoken: those that wait are tried again."""
        self._loop.chores.append(self._loop.try_again)

    def lost(self, name: str, carrier: Carrier, why: str) -> None:
        """Forget a carrier that has ended, and say so unless it was retired before."""
        carriers = self._carriers.get(name, [])
        if carrier in carriers:
            self._forget(name, carrier)
            self._loop.say(CarrierLost(name, why, len(carriers)))

    def retire(self, name: str) -> None:
        """Open nothing more on the carriers of `name`; each closes with its last stream."""
        for carrier in self._carriers.pop(name, []):
            carrier.retire()
        self._said.discard(name)

    def spare(self, name: str, carrier: Carrier) -> None:
        """Retire one that is not needed any more beside another."""
        if carrier in self._carriers.get(name, []):
            self._forget(name, carrier)
            carrier.retire()

    def _forget(self, name: str, carrier: Carrier) -> None:
        self._carriers[name].remove(carrier)
        if not self._carriers[name]:
            del self._carriers[name]
