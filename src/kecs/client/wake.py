"""Noticing that the machine has slept: a clock that runs in sleep beside one that does not.

Each daemon has one for the whole process. All its timers stand still while a laptop sleeps, and what they
watch does not: so everything is checked at once on wake.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable

LOOK = 2.0
"""Seconds (awake) between two looks."""
NAP = 1.0
"""Seconds of sleep that nobody needs to hear of."""
_PROMPT = 0.05
"""Seconds within which two clocks are read together."""

_log = logging.getLogger(__name__)


def asleep_so_far() -> float | None:
    """Return for how many seconds the machine has slept, counted from any one moment; None: unknown here.

    Linux: CLOCK_BOOTTIME is CLOCK_MONOTONIC that includes sleep (clock_gettime(2)). macOS: there
    CLOCK_MONOTONIC runs in sleep (clock_gettime(3)), and Python's `monotonic`, mach_absolute_time, does not.
    """
    if sys.platform == "darwin":
        return _between(lambda: time.clock_gettime(time.CLOCK_MONOTONIC), time.monotonic)
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    if boottime is None:
        return None
    return _between(lambda: time.clock_gettime(boottime), time.monotonic)


def _between(always: Callable[[], float], awake: Callable[[], float]) -> float:
    """Return by how much `always` is ahead; read anew when this process was held up in between."""
    while True:
        before = awake()
        total = always()
        if awake() - before < _PROMPT:
            return total - before


class Wake:
    """Watches for it."""

    def __init__(
        self,
        awoke: Callable[[float], Awaitable[None]],
        *,
        asleep: Callable[[], float | None] = asleep_so_far,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Call `awoke` with the seconds that the machine has slept; the next look is after its end."""
        self._awoke = awoke
        self._asleep = asleep
        self._pause = pause

    async def watch(self) -> None:
        """Watch for ever."""
        before = self._asleep()
        while True:
            await self._pause(LOOK)
            now = self._asleep()
            if now is None or before is None:
                continue
            slept, before = now - before, now
            if slept >= NAP:
                _log.info("the machine slept for %.0f s: everything is checked", slept)
                await self._awoke(slept)
