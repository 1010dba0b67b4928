"""When a bulk direction, or a tunnel, is served less often, in larger portions.

A stream at full speed offers its next 128 KiB by the time that the last ones are moved, and each portion
costs the same calls and the same work of Python, whatever its size. So the loop rests for a moment before it
goes on, while nobody but such streams has anything to say: as network cards do that gather packets before
they interrupt. Where that would make a stream slower (its sender waits for an answer to each part, or has no
room for more), it is not done: `Flow` measures both ways. It is pure.
"""

from __future__ import annotations

from collections.abc import Iterable

LONGEST = 0.001
"""Seconds of the rest when several streams share it: each is to have a portion of its own."""

WINDOW = 0.05
"""Seconds over which a rate is measured, at least."""

LOSS = 0.7
"""The share of its rate that a stream must keep. Less than that is no loss: so much do rates vary by
themselves where programs share two processors. One that waits for answers would fall to a half."""

AGAIN = 16
"""Windows after which it is tried again when it did not keep that."""


class Flow:
    """One direction: how fast it is, and whether it is served with rests."""

    __slots__ = ("_bytes", "_fast", "_rate", "_since", "_windows", "resting")

    def __init__(self, now: float, fast: float) -> None:
        """`now`, here and below: monotonic seconds. `fast`: bytes a second from which on rests are tried."""
        self._fast = fast
        self.resting = False
        """Whether the loop may rest before it goes on with this one."""
        self._bytes = 0
        self._since = now
        self._rate = 0.0
        """Bytes a second in the last window without rests."""
        self._windows = 0
        """Those to go until rests are tried again."""

    def moved(self, size: int, now: float) -> None:
        """Take that so many bytes were moved; decide once in a `WINDOW`."""
        self._bytes += size
        seconds = now - self._since
        if seconds < WINDOW:
            return
        rate = self._bytes / seconds
        self._bytes = 0
        self._since = now
        if self.resting:
            if rate < self._rate * LOSS:
                self.resting = False
                self._windows = AGAIN
            return
        self._rate = rate
        if self._windows:
            self._windows -= 1
        else:
            self.resting = rate >= self._fast


def together(rests: Iterable[float]) -> float:
    """Return for how many seconds streams may be left alone of which each may be for so many."""
    return min(sum(rests), LONGEST)
