"""Which endpoint takes the next connection: the one with the fewest open, in turn among equals.

Pure; the relay loop calls it for each connection it accepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Candidate(Protocol):
    """What is asked of an endpoint to choose it."""

    @property
    def open(self) -> int:
        """Connections open to it, those still being dialled among them."""
        ...

    @property
    def draining(self) -> bool:
        """Whether it takes no new connections."""
        ...


def choose(candidates: Sequence[Candidate], turn: int) -> int:
    """Return the index of the candidate that takes the next connection, -1 when none does.

    That is the one with the fewest open connections that is not draining. Among equals it is the
    first from index `turn` on, round the end: who passes the last answer + 1 gets round-robin.
    """
    chosen = -1
    fewest = 0
    count = len(candidates)
    for step in range(count):
        index = (turn + step) % count
        candidate = candidates[index]
        if not candidate.draining and (chosen < 0 or candidate.open < fewest):
            chosen = index
            fewest = candidate.open
    return chosen
