"""Who wants to know what happens to one forward: `forward.watch` of it, and waits for its next change.

Used by `kecs.agent.runner` only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kecs.client.rpc_types import ConnectionEvent

Tell = Callable[[ConnectionEvent], None]


class Audience:
    """The watchers and waiters of one forward."""

    def __init__(self, on_first_or_last: Callable[[bool], None]) -> None:
        """`on_first_or_last` hears True when the first watcher comes, and False when the last one leaves."""
        self._on_first_or_last = on_first_or_last
        self._watchers: list[Tell] = []
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def is_watching(self) -> bool:
        """Whether there is a watcher."""
        return bool(self._watchers)

    def watch(self, tell: Tell) -> Callable[[], None]:
        """Call `tell` with each event until the returned function is called."""
        self._watchers.append(tell)
        if len(self._watchers) == 1:
            self._on_first_or_last(True)

        def leave() -> None:
            if tell in self._watchers:
                self._watchers.remove(tell)
                if not self._watchers:
                    self._on_first_or_last(False)

        return leave

    def tell(self, event: ConnectionEvent) -> None:
        """Tell the watchers."""
        for tell in self._watchers[:]:
            tell(event)

    async def change(self) -> None:
        """Wait for the next change."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)

    def changed(self) -> None:
        """Let those who wait go on."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
