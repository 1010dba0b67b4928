"""Notices on the desktop: those that come together are shown together.

`kecs.agent.notifier` hands it events. When a whole cluster goes away, two hundred forwards have something to
say at once: programs get every event, a person gets one line for all of them.
"""

from __future__ import annotations

import asyncio
import html
import logging
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from kecs import aio
from kecs.agent.channels import Outcome, run
from kecs.agent.notify import Event, Kind

GATHER = 0.5
"""Seconds in which more may come that is shown together with the first."""
FEW = 3
"""Events that are shown one by one."""
NAMED = 5
"""Forwards that are named where there are more."""

_APPLESCRIPT = """on run argv
display notification (item 2 of argv) with title (item 1 of argv)
end run"""

_log = logging.getLogger(__name__)

Shows = Callable[[str, str], Awaitable[Outcome]]


class Desktop:
    """Shows events, one notification after the other."""

    def __init__(self, show: Shows | None = None) -> None:
        self._show = show or show_one
        self._events: list[Event] = []
        self._task: asyncio.Task[None] | None = None

    def take(self, event: Event) -> None:
        """Have this shown."""
        self._events.append(event)
        if self._task is None:
            self._task = aio.create_task(self._show_all(), name="show on the desktop")

    async def close(self) -> None:
        """Show nothing more."""
        if self._task is not None:
            await aio.cancel(self._task)

    async def _show_all(self) -> None:
        try:
            while self._events:
                await asyncio.sleep(GATHER)
                events, self._events = self._events, []
                for title, text in digest(events):
                    outcome = await self._show(title, text)
                    if outcome.error is not None:
                        _log.warning("cannot notify on the desktop: %s", outcome.error)
        finally:
            self._task = None


def digest(events: Sequence[Event]) -> list[tuple[str, str]]:
    """Return titles and texts: one for each event, or of many one for each kind."""
    if len(events) <= FEW:
        return [(f"KECS: {event.forward} {event.event}", event.text) for event in events]
    by_kind: dict[Kind, list[str]] = {}
    for event in events:
        by_kind.setdefault(event.event, []).append(event.forward)
    return [
        (f"KECS: {len(names)} forward{'s' if len(names) > 1 else ''} {kind}", _listed(names))
        for kind, names in by_kind.items()
    ]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


async def show_one(title: str, text: str) -> Outcome:
    """Show a notification to who started the agent."""
    command = command_for(title, text)
    if command is None:
        return Outcome("neither notify-send nor osascript is there")
    return await run(command, b"", Path.home())


def command_for(title: str, text: str) -> list[str] | None:
    """Return what shows a notification here; None when nothing does."""
    if sys.platform == "darwin" and shutil.which("osascript"):
        return ["osascript", "-e", _APPLESCRIPT, title, text]
    if shutil.which("notify-send"):
        # The body may be markup (Desktop Notifications Specification, "Markup"); the title is not.
        return ["notify-send", "--app-name=kecs", "--", title, html.escape(text, quote=False)]
    return None
