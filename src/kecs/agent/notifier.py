"""Notifications: hears each change of a forward's state, and has people told who asked for it (`notify`).

The manager calls `changed`. What is told, and when, is `kecs.agent.notify`'s; how it gets there is
`kecs.agent.channels`'s. Nothing in here is waited for by a forward: notices of one forward follow each
other, a few of all are on their way at the same time, and what does not fit into the queue is dropped, with
a line in the log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from kecs import aio
from kecs.agent import channels
from kecs.agent.channels import Outcome
from kecs.agent.desktop import Desktop
from kecs.agent.notify import Coalescer, Event, Notice, event_of
from kecs.agent.state import Entry
from kecs.forward.machine import State
from kecs.forward.spec import Notify

AT_ONCE = 4
"""Notices that are on their way at the same time."""
QUEUE = 100
"""Notices that wait, of all forwards."""
GOODBYE = 0.5
"""Seconds in which what is on its way may still arrive while the agent leaves."""

_log = logging.getLogger(__name__)

Sends = Callable[[Notify, Event, Path], Awaitable[None]]


class _Told:
    """One forward that somebody wants to hear of."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.coalescer = Coalescer()
        self.timer: asyncio.TimerHandle | None = None
        self.queue: deque[Event] = deque()
        self.task: asyncio.Task[None] | None = None


class Notifier:
    """All notifications, by forward id."""

    def __init__(
        self,
        instance: str,
        *,
        send: Sends | None = None,
        desktop: Desktop | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`clock`: monotonic seconds; None: those of asyncio's loop."""
        self._instance = instance
        self._send = send or deliver
        self._desktop = desktop or Desktop()
        self._loop = asyncio.get_running_loop()
        self._clock = clock or self._loop.time
        self._told: dict[str, _Told] = {}
        self._waiting = 0
        self._room = asyncio.Semaphore(AT_ONCE)
        self._dropped = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def changed(self, entry: Entry, before: State, state: State, reason: str | None) -> None:
        """Take that the forward's state, or the reason for it, is another one now."""
        if self._closed:  # forwards go on while the agent leaves
            return
        if not entry.notify:
            self.forget(entry.id)
            return
        told = self._told.get(entry.id)
        if told is None:  # a new one, or somebody asks only now
            told = self._told[entry.id] = _Told(entry)
            told.coalescer.took(before, None, self._clock())
        told.entry = entry
        self._tell(told, told.coalescer.took(state, reason, self._clock()))
        if state is State.ENDED:  # nothing follows: who stops it changes no state any more
            self.forget(entry.id)

    def forget(self, forward: str) -> None:
        """Tell nothing more of a forward than what is on its way: a person stopped it."""
        told = self._told.pop(forward, None)
        if told is not None and told.timer is not None:
            told.timer.cancel()

    async def close(self) -> None:
        """Tell nothing more; what is on its way has a moment to arrive."""
        self._closed = True
        for forward in list(self._told):
            self.forget(forward)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GOODBYE)
        await self._desktop.close()
        await aio.cancel(*self._tasks)

    def _tell(self, told: _Told, notices: Sequence[Notice]) -> None:
        for notice in notices:
            event = event_of(notice, told.entry, instance=self._instance, time=time.time())
            _log.info("%s: %s", event.forward, event.text, extra={"event": event.event})
            asked = told.entry.notify or Notify()
            if asked.desktop:
                self._desktop.take(event)
            if asked.command or asked.webhook is not None:
                self._enqueue(told, event)
        if told.timer is not None:
            told.timer.cancel()
            told.timer = None
        when = told.coalescer.next()
        if when is not None:
            told.timer = self._loop.call_later(max(0.0, when - self._clock()), self._due, told)

    def _due(self, told: _Told) -> None:
        told.timer = None
        self._tell(told, told.coalescer.due(self._clock()))

    def _enqueue(self, told: _Told, event: Event) -> None:
        if self._waiting >= QUEUE:
            if not self._dropped:
                _log.warning("notifications are dropped: %d wait already", self._waiting)
            self._dropped = True
            return
        self._dropped = False
        self._waiting += 1
        told.queue.append(event)
        if told.task is None:
            told.task = aio.create_task(self._work_off(told), name=f"notify of {told.entry.name}")
            self._tasks.add(told.task)
            told.task.add_done_callback(self._tasks.discard)

    async def _work_off(self, told: _Told) -> None:
        """Send what this forward's queue holds, in order."""
        try:
            while told.queue:
                event = told.queue.popleft()
                async with self._room:
                    self._waiting -= 1
                    await self._send(told.entry.notify or Notify(), event, _folder(told.entry))
        finally:
            told.task = None


async def deliver(notify: Notify, event: Event, folder: Path) -> None:
    """Send one event to the programs that were asked for, at the same time."""
    ways: dict[str, Awaitable[Outcome]] = {}
    if notify.command:
        ways[f"`{notify.command[0]}`"] = channels.command(notify.command, event, folder)
    if notify.webhook is not None:
        ways[f"`{notify.webhook}`"] = channels.webhook(notify.webhook, event)
    outcomes = await asyncio.gather(*ways.values())
    for way, outcome in zip(ways, outcomes, strict=True):
        if outcome.error is not None:
            _log.warning("%s: cannot notify by %s: %s", event.forward, way, outcome.error)
        if outcome.said:
            _log.info("%s: %s says: %s", event.forward, way, outcome.said)


def _folder(entry: Entry) -> Path:
    """Return where its command runs: beside the file that names it, or at home."""
    return Path(entry.owner).parent if entry.owner else Path.home()
