"""Whether the far end of a tunnel lives: when it was heard, when it is asked, when it is given up. Pure.

`kecs.kube.tunnel` keeps one and says what happens; times are monotonic seconds. A node that is cut off ends
no connection, and the API server says nothing of it for minutes: only an answer that does not come shows it.
"""

from __future__ import annotations

import math

PING_EVERY = 2.0
"""Seconds without a word from the far end after which it is asked for one."""
QUIET = 0.25
"""The same when a connection is about to be opened."""
ANSWER = 2.5
"""Seconds for its answer, once the API server has the question. So silence is noticed within 4.5 s."""
SUSPECT = 1.0
"""Seconds without an answer after which new connections are better off elsewhere, or wait: what was said in
here may be lost, and is never said twice."""
LOOK = 0.5
"""Seconds between two looks for an answer."""


class Pulse:
    """The signs of life of one tunnel."""

    __slots__ = ("_asked_at", "_behind", "_heard_at", "_judged_at", "_reached")

    def __init__(self, now: float) -> None:
        self._heard_at = now
        self._asked_at = math.inf
        self._judged_at = math.inf
        self._behind = 0
        """How many bytes have to reach the API server before the question has."""
        self._reached = 0
        """Bytes that had reached the API server when it was looked last."""

    def heard(self, now: float) -> bool:
        """Take that something came, which answers any question; tell whether it was silent before."""
        silent = now - self._asked_at >= SUSPECT
        self._heard_at = now
        self._asked_at = math.inf
        return silent

    def silent(self, now: float) -> bool:
        """Tell whether an answer is due that should have come."""
        return now - self._asked_at >= SUSPECT

    def silence(self, now: float) -> float:
        """Return for how long nothing was heard."""
        return now - self._heard_at

    def due(self, now: float, quiet: float = PING_EVERY) -> bool:
        """Tell whether to ask: nothing was asked, and nothing heard for `quiet` seconds."""
        return self._asked_at == math.inf and now - self._heard_at >= quiet

    def asked(self, now: float, *, reached: int, behind: int) -> None:
        """Take that it is asked, at the end of `behind` bytes, of which the API server has `reached`."""
        self._asked_at = self._judged_at = now
        self._reached, self._behind = reached, behind

    def lost(self, now: float, *, reached: int, paused: bool) -> bool:
        """Tell whether to give it up.

        The question may still stand behind an upload on a slow line: then that has to get on, at least.
        Nothing is heard either while nothing is read (`paused`).
        """
        if self._asked_at == math.inf or now - self._judged_at < ANSWER:
            return False
        if not paused and not self._reached < reached < self._behind:
            return True
        self._judged_at, self._reached = now, reached
        return False

    def next_look(self, now: float) -> float:
        """Return when `due` or `lost` may be other than now."""
        if self._asked_at == math.inf:
            return self._heard_at + PING_EVERY
        return min(now + LOOK, max(now, self._judged_at + ANSWER))
