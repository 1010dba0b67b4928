"""`forward.subscribe`: all forwards at first, and then what is other than before, for as long as it is heard.

Changes are gathered for a moment, so that a file of 200 forwards is a few messages and not 600. While
somebody listens the counters are looked at once a second; without a listener nothing in here runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from kecs import aio
from kecs.client.rpc_types import ForwardRow, ForwardsChanged
from kecs.errors import KecsError

COUNTERS = 1.0
"""Seconds between two looks at counters."""
GATHER = 0.05
"""Seconds for which changes are gathered."""

_log = logging.getLogger(__name__)

Tell = Callable[[ForwardsChanged], None]


class Feed:
    """Who listens, and what they were told."""

    def __init__(self, rows: Callable[[], Awaitable[Sequence[ForwardRow]]]) -> None:
        """`rows` returns all forwards with their counters of now."""
        self._rows = rows
        self._told: dict[Tell, Mapping[str, ForwardRow]] = {}
        self._changed = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    def touch(self) -> None:
        """Note that rows may be other than before."""
        self._changed.set()

    async def subscribe(self, tell: Tell) -> tuple[list[ForwardRow], Callable[[], None]]:
        """Return the rows of now, and how to leave; from then on `tell` hears of changes."""
        rows = list(await self._rows())
        self._told[tell] = {row.id: row for row in rows}
        if self._pump is None or self._pump.done():
            self._pump = aio.create_task(self._keep_telling(), name="tell of changes of forwards")

        def leave() -> None:
            self._told.pop(tell, None)
            if not self._told and self._pump is not None:
                self._pump.cancel()
                self._pump = None

        return rows, leave

    async def close(self) -> None:
        """Tell nobody any more."""
        self._told.clear()
        if self._pump is not None:
            await aio.cancel(self._pump)

    async def _keep_telling(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(COUNTERS):
                    await self._changed.wait()
                await asyncio.sleep(GATHER)
            self._changed.clear()
            try:
                now = {row.id: row for row in await self._rows()}
            except KecsError as error:  # the relay loop does not answer: said elsewhere, tried again
                _log.warning("%s", error.message)
                continue
            for tell, before in list(self._told.items()):
                news = difference(before, now)
                if tell in self._told and (news.forwards or news.removed):
                    self._told[tell] = now
                    tell(news)


def difference(before: Mapping[str, ForwardRow], now: Mapping[str, ForwardRow]) -> ForwardsChanged:
    """Return what is new, other than before, or gone."""
    return ForwardsChanged(
        forwards=[row for one, row in now.items() if before.get(one) != row],
        removed=[one for one in before if one not in now],
    )
