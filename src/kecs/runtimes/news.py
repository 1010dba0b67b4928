"""What runtimes have to tell of their tasks: of each only the newest, the longest untold first.

Every runtime has one behind `Runtime.observations`. An observation is a whole state
(`kecs.runtimes.base.TaskObserved`), so one that nobody fetched in time is worth nothing beside a newer one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from kecs.runtimes.base import TaskObserved


class News:
    """Observations that wait to be fetched."""

    def __init__(self) -> None:
        self._untold: dict[str, TaskObserved] = {}
        self._there_are = asyncio.Event()
        self._closed = False

    def tell(self, seen: TaskObserved) -> None:
        """Put an observation behind all others, in the place of an older one of the same task."""
        self._untold.pop(seen.task_id, None)
        self._untold[seen.task_id] = seen
        self._there_are.set()

    def drop(self, task_id: str) -> None:
        """Forget what was to be told of a task."""
        self._untold.pop(task_id, None)

    def close(self) -> None:
        """Let `observations` end."""
        self._closed = True
        self._there_are.set()

    async def observations(self) -> AsyncIterator[TaskObserved]:
        """Yield them as they come, until `close`; for one caller."""
        while not self._closed:
            while self._untold:
                yield self._untold.pop(next(iter(self._untold)))
            self._there_are.clear()
            if not self._closed:
                await self._there_are.wait()
