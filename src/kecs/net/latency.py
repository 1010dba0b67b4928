"""How long connections took, as histograms with fixed bounds.

The relay loop observes twice for each connection: when a dial is done, and at the target's first byte. That
is a look-up by halves each, under its thread only; what is taken out is a value and may go anywhere.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

BOUNDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
"""Upper bounds in seconds, each included: from a dial over loopback (some 0.05 ms) to the longest that a
connection is held unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Durations:
    """What a histogram has counted: `counts[i]` took at most `BOUNDS[i]`, the last one more than all."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    seconds: float = 0.0
    """All of them together."""


NONE = Durations()
"""Nothing yet."""


class Histogram:
    """Counts by bound, and the sum."""

    __slots__ = ("_counts", "_seconds")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count one more."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._seconds += seconds

    def taken(self) -> Durations:
        """Return what was counted so far."""
        return Durations(tuple(self._counts), self._seconds)
