"""The endpoints of one forward as the relay loop sees them: open connections, refusals, drains.

Used by `kecs.net.served` on the loop's thread only. It decides who takes a connection
(`kecs.forward.balance`) and says when a draining endpoint has none left; it opens nothing.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from kecs.forward import balance
from kecs.net import dial
from kecs.net.messages import Endpoint

ASIDE = (0.05, 0.2)
"""Seconds that an endpoint which refused is not tried: first, and at most (doubling between). Short,
since a task may be about to listen; long enough that a task which was killed a moment ago and still
stands in the snapshot is not asked for every connection."""

REPORT_EVERY = 1.0
"""Seconds between two reports that the same endpoint refuses."""


class Place:
    """One endpoint, kept while it is in the snapshot or has connections."""

    __slots__ = (
        "address", "aside_until", "delay", "draining", "endpoint", "gone", "invalid", "open", "reported_at",
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
        self.delay = 0.0
        self.reported_at = float("-inf")
        self.invalid: OSError | None = None
        self.address = dial.Address(0, (), may_meet_itself=False)
        try:
            self.address = dial.address(endpoint.host, endpoint.port)
        except OSError as error:
            self.invalid = OSError(error.errno, f"`{endpoint.host}` is not a numeric address")


class Places:
    """All of a forward's places."""

    __slots__ = ("_all", "_aside", "_awaited", "_taking", "_turn")

    def __init__(self) -> None:
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
        self._awaited = {endpoint.id for endpoint in endpoints if endpoint.draining}
        return [name for name in sorted(self._awaited) if self._drained(name)]

    def choose(self, now: float, tried: Container[Place]) -> Place | None:
        """Return the place for the next connection, None when none takes it now."""
        candidates = self._taking
        if tried or now < self._aside:
            candidates = [p for p in candidates if p.aside_until <= now and p not in tried]
        index = balance.choose(candidates, self._turn)
        if index < 0:
            return None
        self._turn = index + 1
        return candidates[index]

    def available(self, now: float) -> bool:
        """Whether a place takes connections now."""
        return any(place.aside_until <= now for place in self._taking)

    def release(self, place: Place) -> bool:
        """Count one connection to `place` less; True when its endpoint is thereby drained."""
        place.open -= 1
        if place.open or not place.draining:
            return False
        endpoint = place.endpoint
        if place.gone:
            del self._all[(endpoint.id, endpoint.host, endpoint.port)]
        return endpoint.id in self._awaited and self._drained(endpoint.id)

    def refused(self, place: Place, now: float) -> bool:
        """Set `place` aside for a moment; True when this is to be reported."""
        first, most = ASIDE
        place.delay = min(place.delay * 2, most) if place.delay else first
        place.aside_until = now + place.delay
        self._aside = max(self._aside, place.aside_until)
        if now - place.reported_at < REPORT_EVERY:
            return False
        place.reported_at = now
        return True

    def retry_at(self, now: float) -> float | None:
        """Return when the first place that is set aside comes back; None when none will."""
        return min((place.aside_until for place in self._taking if place.aside_until > now), default=None)

    def counts(self) -> tuple[tuple[str, int], ...]:
        """Return the open connections by endpoint id."""
        sums: dict[str, int] = {}
        for place in self._all.values():
            sums[place.endpoint.id] = sums.get(place.endpoint.id, 0) + place.open
        return tuple(sums.items())

    def _drained(self, name: str) -> bool:
        """Whether no draining place of this endpoint has a connection left; none ever gets one again."""
        return not any(p.open for p in self._all.values() if p.endpoint.id == name and p.draining)
