"""The endpoints of one forward as the relay loop sees them: open connections, refusals, drains.

Used by `kecs.net.served` on the loop's thread only. It decides who takes a connection
(`kecs.forward.balance`) and says when a draining endpoint has none left; it opens nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Container, Sequence

from kecs.forward import balance
from kecs.net import dial
from kecs.net.messages import Endpoint

ASIDE = (0.05, 0.2)
"""Seconds that an endpoint which refused is not tried: first, and at most (doubling between). Short,
since a task may be about to listen; long enough that a task which was killed a moment ago and still
stands in the snapshot is not asked for every connection."""

LONG_ASIDE = (1.0, 30.0)
"""The same for a place with a `patience` of its own that did not answer at all, or is not to be reached.
Such a way may be cut off for hours: no client loses time by trying it, a probe looks whether it is back."""

DOUBTED_ASIDE = (0.1, 5.0)
"""The same for a place with `doubt`, which is always left to a probe: a connect to it succeeds also when
nobody is there, and clients are not what that is tried with."""

LAST_RESORT = 0.5
"""Seconds after which such a place is tried by clients all the same, where they would only wait otherwise.
It may be lost in part: behind a node's port Kubernetes still chooses tasks of a node that was cut off."""

REPORT_EVERY = 1.0
"""Seconds between two reports that the same endpoint refuses."""

_SILENT = frozenset(
    getattr(errno, name)
    for name in ("ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH", "EHOSTDOWN", "ENETDOWN")
    if hasattr(errno, name)
)


class Place:
    """One endpoint, kept while it is in the snapshot or has connections."""

    __slots__ = (
        "address", "again_at", "aside_until", "carrier", "delay", "draining", "endpoint", "gone", "invalid",
        "lost", "open", "probing", "reported_at",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.draining = endpoint.draining
        """Takes no new connections; also true of one that is gone."""
        self.gone = False
        """In the snapshot no more; kept for the connections it still has."""
        self.open = 0
        """Connections to it, those being dialled among them."""
        self.aside_until = 0.0
        self.again_at = 0.0
        """When clients may try it although it is lost, if nothing else is left."""
        self.delay = 0.0
        self.reported_at = float("-inf")
        self.lost = endpoint.doubt is not None
        """It did not answer at all, or nobody knows yet: no client gets it before a probe got through."""
        self.probing = False
        self.carrier = endpoint.carrier
        self.invalid: OSError | None = None
        self.address = dial.Address(0, (), may_meet_itself=False)
        if self.carrier:
            return
        try:
            self.address = dial.address(endpoint.host, endpoint.port)
        except OSError as error:
            self.invalid = OSError(error.errno, f"`{endpoint.host}` is not a numeric address")


class Places:
    """All of a forward's places."""

    __slots__ = ("_all", "_aside", "_awaited", "_carriers", "_plain", "_taking", "_turn")

    def __init__(self, carriers: Container[str] = ()) -> None:
        """`carriers`: the names of those that are there, as they are at each time."""
        self._carriers = carriers
        self._plain = True
        """All places are of one rank, dialled and not lost: nothing but a refusal keeps one from being
        chosen."""
        self._all: dict[tuple[str, str, int], Place] = {}
        self._taking: list[Place] = []
        """Those that take new connections."""
        self._aside = 0.0
        """No place is set aside after this time."""
        self._awaited: set[str] = set()
        """Ids of draining endpoints, of which it is said when they have none left."""
        self._turn = 0

    def replace(self, endpoints: Sequence[Endpoint]) -> list[str]:
        """Take a snapshot; return the ids of draining endpoints without a connection."""
        before, self._all, self._taking = self._all, {}, []
        for endpoint in endpoints:
            key = (endpoint.id, endpoint.host, endpoint.port)
            place = self._all.get(key) or before.pop(key, None) or Place(endpoint)
            place.endpoint, place.draining, place.gone = endpoint, endpoint.draining, False
            self._all[key] = place
        for key, place in before.items():
            if place.open:
                place.draining = place.gone = True
                self._all[key] = place
        self._taking = [place for place in self._all.values() if not place.draining]
        self._look_at_them()
        self._awaited = {endpoint.id for endpoint in endpoints if endpoint.draining}
        return [name for name in sorted(self._awaited) if self._drained(name)]

    def choose(self, now: float, tried: Container[Place]) -> Place | None:
        """Return the place for the next connection, None when none takes it now."""
        candidates = self._taking
        if not self._plain or tried or now < self._aside:
            candidates = self._candidates(now, tried)
        index = balance.choose(candidates, self._turn)
        if index < 0:
            return None
        self._turn = index + 1
        return candidates[index]

    def set_aside(self, tried: Container[Place]) -> Place | None:
        """Return the one that comes back first of those that are set aside; for what costs nothing to try."""
        aside = [place for place in self._taking if place not in tried and not place.carrier]
        return min(aside, key=lambda place: place.aside_until, default=None)

    def available(self, now: float) -> bool:
        """Whether a place takes connections now."""
        return any(self._takes(place, now) for place in self._taking)

    def taking(self, now: float) -> tuple[str, ...]:
        """Return the ids of the endpoints of which one takes the next connection."""
        return tuple(sorted({place.endpoint.id for place in self._candidates(now, ())}))

    def _takes(self, place: Place, now: float) -> bool:
        if place.lost or place.aside_until > now:
            return False
        return not place.carrier or place.carrier in self._carriers

    def _candidates(self, now: float, tried: Container[Place]) -> list[Place]:
        """Return those that take a connection now: of all that can, the ones of the lowest rank."""
        able = [place for place in self._taking if self._takes(place, now) and place not in tried]
        if self._plain:
            return able
        if any(place.endpoint.doubt is not None for place in able) and self._is_lost_in_part():
            able = [place for place in able if place.endpoint.doubt is None]
        lowest = min((place.endpoint.rank for place in able), default=0)
        return [place for place in able if place.endpoint.rank == lowest]

    def _is_lost_in_part(self) -> bool:
        """Tell whether one endpoint has lost its carrier, and another one has not.

        What is behind a place with `doubt` may be the lost one, and a connect would succeed all the same.
        """
        there = {place.carrier in self._carriers for place in self._taking if place.carrier}
        return len(there) > 1

    def release(self, place: Place) -> bool:
        """Count one connection to `place` less; True when its endpoint is thereby drained."""
        place.open -= 1
        if place.open or not place.draining:
            return False
        endpoint = place.endpoint
        if place.gone:
            del self._all[(endpoint.id, endpoint.host, endpoint.port)]
        return endpoint.id in self._awaited and self._drained(endpoint.id)

    def refused(self, place: Place, now: float, code: int | None = None) -> bool:
        """Set `place` aside for a moment after the error `code`; True when this is to be reported."""
        doubted = place.endpoint.doubt is not None
        silent = place.endpoint.patience is not None and code in _SILENT
        lost = doubted or silent
        if place.lost != lost or place.aside_until <= now:  # not each of those that dialled at once
            first, most = DOUBTED_ASIDE if doubted else LONG_ASIDE if silent else ASIDE
            place.delay = min(max(place.delay * 2, first), most)
            place.aside_until = now + place.delay
            place.again_at = now + LAST_RESORT
            self._aside = max(self._aside, place.aside_until)
        if place.lost != lost:
            place.lost = lost
            self._look_at_them()
        if now - place.reported_at < REPORT_EVERY:
            return False
        place.reported_at = now
        return True

    def retry_at(self, now: float) -> float | None:
        """Return when the first place that is set aside comes back; None when none will."""
        back = min((p.aside_until for p in self._taking if p.aside_until > now and not p.lost), default=None)
        if back is None:
            back = min((p.again_at for p in self._taking if p.lost and p.again_at > now), default=None)
        return back

    def last_resort(self, now: float) -> bool:
        """Let clients try lost places when nothing else takes them, or soon will; tell whether one may.

        Of several it is those that answered last: a node that was cut off has failed more often in a row.
        Those with `doubt` are probed then, and not tried.
        """
        if any(self._takes(p, now) or (p.aside_until > now and not p.lost) for p in self._taking):
            return False
        for place in self._taking:
            if place.endpoint.doubt is not None and place.lost and place.again_at <= now:
                place.aside_until, place.again_at = now, now + LAST_RESORT
        lost = [place for place in self._taking if place.lost and place.endpoint.doubt is None]
        least = min((place.delay for place in lost), default=0.0)
        due = [place for place in lost if place.delay == least and place.again_at <= now]
        for place in due:
            place.lost = False
            place.aside_until = now
        if due:
            self._look_at_them()
        return bool(due)

    def due_for_a_probe(self, now: float) -> tuple[list[Place], float | None]:
        """Return the lost places to be probed now, and when the next one is due."""
        lost = [place for place in self._taking if place.lost and not place.probing]
        due = [place for place in lost if place.aside_until <= now]
        return due, min((place.aside_until for place in lost if place.aside_until > now), default=None)

    def rouse(self, now: float) -> None:
        """Let the time be over for which places were set aside; lost ones still wait for a probe."""
        for place in self._taking:
            place.aside_until = min(place.aside_until, now)
            place.delay = 0.0

    def found(self, place: Place) -> None:
        """Take that a probe got through to `place`."""
        place.lost = False
        place.delay = place.aside_until = 0.0
        self._look_at_them()

    def _look_at_them(self) -> None:
        taking = self._taking
        self._plain = not any(place.carrier or place.lost for place in taking) and (
            len({place.endpoint.rank for place in taking}) < 2
        )

    def counts(self) -> tuple[tuple[str, int], ...]:
        """Return the open connections by endpoint id."""
        sums: dict[str, int] = {}
        for place in self._all.values():
            sums[place.endpoint.id] = sums.get(place.endpoint.id, 0) + place.open
        return tuple(sums.items())

    def _drained(self, name: str) -> bool:
        """Whether no draining place of this endpoint has a connection left; none ever gets one again."""
        return not any(p.open for p in self._all.values() if p.endpoint.id == name and p.draining)
