"""Alarms on the event loop's own heap of timers, one for each key; epoch seconds go in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
GRACE = 0.002
"""An alarm rings so much later than asked, in seconds: rounding must not make it ring before its time."""


class Timers(Generic[K]):
    """Calls `ring(key)` when the time of `key` has come; a later `set` for a key replaces the earlier one."""

    def __init__(self, ring: Callable[[K], None], clock: Callable[[], float] = time.time) -> None:
        self._ring = ring
        self._clock = clock
        self._handles: dict[K, asyncio.TimerHandle] = {}

    def set(self, key: K, when: float | None) -> None:
        """Let `key` ring at `when`; None: never."""
        if (old := self._handles.pop(key, None)) is not None:
            old.cancel()
        if when is not None:
            delay = max(0.0, when - self._clock()) + GRACE
            self._handles[key] = asyncio.get_running_loop().call_later(delay, self._now, key)

    def clear(self) -> None:
        """Let nothing ring any more."""
        for handle in self._handles.values():
            handle.cancel()
        self._handles.clear()

    def _now(self, key: K) -> None:
        self._handles.pop(key, None)
        self._ring(key)
