"""How long to wait before the next try: growing delays with a cap and jitter.

Pure: the random number is an argument. Used by the forward machine (a taken port) and by the agent (a
lost control plane).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_MANY = 64
"""Beyond this attempt the delay is at its cap for every sensible factor; the power stays a small number."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """`first`, `first * factor`, … up to `cap` (seconds), each shortened by up to `jitter` of itself.

    Only shortened, so that `cap` is a promise; and spread, so that many that failed together do not try
    again together ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    """

    first: float
    cap: float
    factor: float = 2.0
    jitter: float = 0.2

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """Return the seconds to wait after failure number `attempt` (from 0); `random` gives [0, 1)."""
        grown: float = self.first * self.factor ** min(attempt, _MANY)
        return min(self.cap, grown) * (1 - self.jitter * random())
