"""Which draining tasks are out of every forward: the account behind `POST /_kecs/drained`. No I/O.

A task is out when every forward that had it said `Drained`, and not before the relay loop uses the
snapshots in which it is draining (docs/design/contracts.md, 2).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

Holder = tuple[str, str]
"""A forward's id, and the id of one endpoint of the task in it."""


@dataclass(slots=True)
class _Drain:
    barrier: int
    """The barrier behind the snapshots that say so."""
    holders: set[Holder] = field(default_factory=set)
    """Who may still have a connection to it."""
    told: bool = False


class Drains:
    """The account of all draining tasks."""

    def __init__(self) -> None:
        self._drains: dict[str, _Drain] = {}
        self._passed = 0

    def update(self, draining: Iterable[str], holders: dict[str, set[Holder]], barrier: int) -> None:
        """Take the set of all tasks that drain now. `holders`: for the new ones, who has them."""
        tasks = set(draining)
        for task in set(self._drains) - tasks:
            del self._drains[task]
        for task in tasks - set(self._drains):
            self._drains[task] = _Drain(barrier, set(holders.get(task, ())))

    def is_known(self, task: str) -> bool:
        """Tell whether the account has the task already."""
        return task in self._drains

    def drained(self, forward: str, endpoint: str, task: str) -> None:
        """Take a forward's word that it has no connection to this endpoint of the task."""
        if drain := self._drains.get(task):
            drain.holders.discard((forward, endpoint))

    def left(self, forward: str) -> None:
        """Forget a forward: it has no connections any more."""
        for drain in self._drains.values():
            drain.holders = {holder for holder in drain.holders if holder[0] != forward}

    def passed(self, barrier: int) -> None:
        """Take the relay loop's word that it is past `barrier`."""
        self._passed = max(self._passed, barrier)

    def tell_again(self) -> None:
        """Begin with another listener, who heard nothing yet."""
        for drain in self._drains.values():
            drain.told = False

    def take_due(self) -> list[str]:
        """Return the tasks that are out and were not told yet; they count as told."""
        due = [
            task
            for task, drain in self._drains.items()
            if not drain.told and not drain.holders and drain.barrier <= self._passed
        ]
        for task in due:
            self._drains[task].told = True
        return due
