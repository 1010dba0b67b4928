"""When clients of one carrier do not read: who holds up whom, and when that has to end.

Used by carriers (`kecs.kube.tunnel`). Pure bookkeeping, it closes nothing. The far end of a carrier cannot be
told to send less on one stream. So what a slow client does not take is kept, and four steps follow:

1. above `HIGH` the carrier is congested: new connections go to another one, which is opened for them;
2. at `CAP` the carrier is not read any more, until the client has taken `EASE` of it,
3. unless another of its streams waits for an answer, which stands behind all that: then up to `MOST` is kept;
4. when even so one has waited for `STARVED`, the client that does not read loses its connection. One that
   reads, however slowly, does not: its carrier is read again and again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol, TypeVar

HIGH = 256 * 1024
"""Bytes kept for a client above which it counts as slow; until they are below `LOW`."""
LOW = 64 * 1024
CAP = 4 * 1024 * 1024
"""Bytes kept for one client at which nothing more is read from its carrier."""
MOST = 32 * 1024 * 1024
"""The same while others wait: more than what is under way between the pod and here."""
EASE = 256 * 1024
"""Bytes below either at which it is read again."""
STARVED = 2.0
"""Seconds that another stream may wait for an answer meanwhile."""


class Reader(Protocol):
    """What is needed of a stream."""

    @property
    def buffered(self) -> int:
        """Bytes that wait for its client."""
        ...

    @property
    def waiting_since(self) -> float:
        """Since when it waits for an answer (monotonic seconds), `inf` when it does not."""
        ...


R = TypeVar("R", bound=Reader)


class Congestion:
    """The slow clients of one carrier."""

    __slots__ = ("_paused_at", "_slow")

    def __init__(self) -> None:
        self._slow: dict[Reader, None] = {}
        self._paused_at = math.inf

    @property
    def congested(self) -> bool:
        """Whether a client is slow."""
        return bool(self._slow)

    @property
    def paused(self) -> bool:
        """Whether the carrier must not be read."""
        return self._paused_at != math.inf

    def note(self, stream: Reader, streams: Iterable[Reader], now: float) -> None:
        """Take that `stream.buffered` has changed; `streams` are all of the carrier."""
        if stream.buffered > HIGH:
            self._slow[stream] = None
        elif stream.buffered <= LOW:
            self._slow.pop(stream, None)
        if self._slow:
            self.look(streams, now)
        else:
            self._paused_at = math.inf

    def over(self, stream: Reader, streams: Iterable[Reader], now: float) -> None:
        """Forget a stream: what it still has for its client holds up nobody. `streams` are the others."""
        if self._slow.pop(stream, self) is None:
            self.look(streams, now)

    def look(self, streams: Iterable[Reader], now: float) -> None:
        """See again whether to read: who waits may have changed."""
        fullest = max((slow.buffered for slow in self._slow), default=0)
        if fullest < CAP - EASE:
            self._paused_at = math.inf
            return
        waits = any(stream.waiting_since != math.inf for stream in streams if stream not in self._slow)
        limit = MOST if waits else CAP
        if fullest >= limit:
            self._paused_at = min(self._paused_at, now)
        elif fullest <= limit - EASE:
            self._paused_at = math.inf

    def culprit(self, streams: Iterable[R], now: float) -> R | None:
        """Return the stream that must end so that others of `streams` can go on, or None."""
        if not self.paused:
            return None
        all_of_them = list(streams)
        fullest = max(all_of_them, key=lambda stream: stream.buffered, default=None)
        for stream in all_of_them:
            if stream is not fullest and max(stream.waiting_since, self._paused_at) + STARVED <= now:
                return fullest
        return None
