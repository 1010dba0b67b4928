"""The forwards of `auto: true` while services come and go: made as soon as one appears.

It hears of changes from `kecs.agent.resolver`, decides by `kecs.agent.autos`; `kecs.agent.applier` does it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from kecs import aio
from kecs.agent.book import Book
from kecs.agent.file_plan import auto_steps
from kecs.agent.picture import Changes
from kecs.agent.runner import Runner
from kecs.errors import KecsError
from kecs.forward.apply import Step

_log = logging.getLogger(__name__)

Perform = Callable[[Sequence[Step], str], Awaitable[None]]
"""Do these steps for the file."""


class AutoMaker:
    """One for all files with `auto: true`."""

    def __init__(self, book: Book, region: str, perform: Perform, one_at_a_time: asyncio.Lock) -> None:
        """`region` is the instance's; `one_at_a_time` is held while forwards come."""
        self._book = book
        self._region = region
        self._perform = perform
        self._one_at_a_time = one_at_a_time
        self._due = False
        self._making: asyncio.Task[None] | None = None

    @property
    def named(self) -> Mapping[str, Runner]:
        """What leads to endpoints beside the book's forwards: nothing (`kecs.agent.resolver.Follows`)."""
        return {}

    def follow(self, changes: Changes | None) -> None:
        """Take that the endpoints have changed: services may have appeared."""
        clusters = {cluster for auto in self._book.config.autos for cluster in auto.spec.clusters}
        if changes is None or any(key[2] is not None and key[1] in clusters for key in changes.targets):
            self._due = bool(clusters)
        if self._due and (self._making is None or self._making.done()):
            self._making = aio.create_task(self._make(), name="make the forwards of `auto: true`")

    async def settle(self) -> None:
        """Return when what is known to be missing was made, or could not be."""
        if self._making is not None:
            await asyncio.wait([self._making])

    async def close(self) -> None:
        """Make no more."""
        if self._making is not None:
            await aio.cancel(self._making)

    async def _make(self) -> None:
        while self._due:
            async with self._one_at_a_time:
                self._due = False
                for auto in list(self._book.config.autos):
                    entries = self._book.entries()
                    steps = auto_steps(
                        auto,
                        self._region,
                        self._book.resolver.picture.services(),
                        [entry for entry in entries if entry.owner == auto.owner],
                        {entry.name for entry in entries},
                    )
                    if steps:
                        await self._try(steps, auto.owner)

    async def _try(self, steps: Sequence[Step], owner: str) -> None:
        try:
            await self._perform(steps, owner)
        except KecsError as error:  # tried again when the endpoints change
            names = ", ".join(step.name for step in steps)
            _log.warning("no forward for %s: %s", names, error.message)
