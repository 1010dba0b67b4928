"""Who waits for an answer goes before who waits for the end of a body: when tunnels give way. Pure.

A body by a tunnel costs this thread some 3 microseconds a KiB and the far end, which on a laptop has the same
processors, several times that. At full speed it leaves connections that are dialled a quarter of the requests
a second that they have alone. So while those are busy a tunnel reads a portion, and then nothing for a
moment: TCP tells the far end to wait. While they are not, or have bodies themselves, nobody gives way.
Figures are in docs/design/data-path.md.
"""

from __future__ import annotations

BUSY = 2000.0
"""Times a second that others have something to say from which on they are busy: some 1,000 requests."""

WINDOW = 0.02
"""Seconds over which that is counted, at least: one request, or a burst of them, is no load."""

EVERY = 0.002
"""Seconds between two portions. Each wakes the API server, so a few large ones cost less than many."""

PORTION = 64 * 1024
"""Bytes of one: about 0.2 ms of this thread, and 30 MB/s."""


class Precedence:
    """Whether the others are busy."""

    __slots__ = ("_heard", "_since", "given")

    def __init__(self, now: float) -> None:
        """`now`, here and below: monotonic seconds."""
        self.given = False
        """Whether tunnels give way."""
        self._heard = 0
        self._since = now

    def look(self, heard: int, now: float) -> bool:
        """Take how many times the others have had something to say so far; return `given`."""
        seconds = now - self._since
        if seconds >= WINDOW:
            self.given = heard - self._heard >= BUSY * seconds
            self._heard = heard
            self._since = now
        return self.given
