"""The probes of all forwards that have one: who is asked, when, and what becomes of the answers.

`kecs.agent.resolver` passes what a forward leads to through `filter` before the relay loop hears of it; a
task that turns out to fail, or serves again, makes `changed` have that done anew. The agent otherwise
watches and does not poll: without `probe` nothing in here runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from kecs import aio
from kecs.agent import health, probing
from kecs.agent.detour import Detour, KeepsTunnels, Sends
from kecs.agent.health import Health, Way
from kecs.agent.resolution import Resolution
from kecs.agent.state import Entry
from kecs.errors import KecsError
from kecs.forward.backoff import Backoff
from kecs.forward.spec import Probe
from kecs.net.messages import Endpoint

AT_ONCE = 64
"""Probes under way at the same time, of all forwards."""
SPREAD = 0.1
"""Part of itself by which an interval is shortened at random, at most: 200 forwards do not ask together."""
NO_WAY = 0.05
"""Seconds until it is asked again when no tunnel was open; twice as long each time, up to the interval."""

_log = logging.getLogger(__name__)


class CannotAskError(Exception):
    """There is no way to the task now, which says nothing of the task."""


class _Asked:
    """One way to a task, and the asyncio task that asks there."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.health = Health()
        self.at_once = asyncio.Event()
        """Ask now, and do not wait for the interval's end."""
        self.task: asyncio.Task[None] | None = None


@dataclass
class _Kept:
    """One forward with a probe."""

    name: str
    probe: Probe
    asked: dict[Way, _Asked] = field(default_factory=dict)

    @property
    def failing(self) -> dict[Way, str]:
        return {way: one.health.error or "" for way, one in self.asked.items() if one.health.failing}


class Prober:
    """All probes, by forward id."""

    def __init__(
        self,
        relay: Sends,
        tunnels: KeepsTunnels,
        changed: Callable[[str], None],
    ) -> None:
        """Call `changed` with the id of a forward that is to be resolved anew."""
        self._relay = relay
        self._tunnels = tunnels
        self._changed = changed
        self._kept: dict[str, _Kept] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        """All that have not ended yet, those that were cancelled among them."""
        self._closed = False

    def filter(self, entry: Entry, resolution: Resolution) -> Resolution:
        """Return the resolution without those that fail; from now on, exactly its tasks are asked."""
        kept = self._kept.get(entry.id)
        if kept is not None and kept.probe != entry.probe:
            self.forget(entry.id)
            kept = None
        if entry.probe is None or self._closed:
            return resolution
        if kept is None:
            kept = self._kept[entry.id] = _Kept(entry.name, entry.probe)
        wanted = health.to_ask(resolution)
        for way in [way for way in kept.asked if way not in wanted]:
            _end(kept.asked.pop(way))
        for way, endpoint in wanted.items():
            if way not in kept.asked:
                self._begin(entry.id, kept, way, endpoint)
        return health.without(resolution, kept.failing)

    def forget(self, forward: str) -> None:
        """Ask for this forward no more."""
        kept = self._kept.pop(forward, None)
        for asked in kept.asked.values() if kept else ():
            _end(asked)

    def ask_now(self) -> None:
        """Ask everyone at once: the machine has slept."""
        for kept in self._kept.values():
            for asked in kept.asked.values():
                asked.at_once.set()

    async def close(self) -> None:
        """End all."""
        self._closed = True
        self._kept.clear()
        await aio.cancel(*self._tasks)

    def _begin(self, forward: str, kept: _Kept, way: Way, endpoint: Endpoint) -> None:
        asked = kept.asked[way] = _Asked(endpoint)
        asked.task = aio.create_task(
            self._keep_asking(forward, kept, asked), name=f"probe {endpoint.id} for {kept.name}"
        )
        self._tasks.add(asked.task)
        asked.task.add_done_callback(self._tasks.discard)

    async def _keep_asking(self, forward: str, kept: _Kept, asked: _Asked) -> None:
        """Ask for ever."""
        with contextlib.ExitStack() as at_the_end:
            ask = self._way_to(forward, asked.endpoint, at_the_end)
            missed = 0
            while True:
                asked.at_once.clear()
                try:
                    async with self._room:
                        error, missed = await ask(kept.probe), 0
                except CannotAskError:
                    error, missed = None, missed + 1
                self._heard(forward, kept, asked, error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_pause(kept.probe, missed)):
                        await asked.at_once.wait()

    def _way_to(
        self, forward: str, endpoint: Endpoint, at_the_end: contextlib.ExitStack
    ) -> Callable[[Probe], Awaitable[str | None]]:
        if not endpoint.carrier:
            return lambda probe: probing.ask(probe, endpoint.host, endpoint.port)
        detour: Detour | None = None

        async def ask(probe: Probe) -> str | None:
            nonlocal detour
            if detour is None:
                try:
                    detour = Detour(forward, endpoint, self._relay, self._tunnels)
                except KecsError as failure:  # no descriptor
                    _log.warning("cannot probe %s: %s", endpoint.carrier, failure.message)
                    raise CannotAskError from failure
                at_the_end.callback(detour.close)
            error = await probing.ask(probe, "127.0.0.1", detour.port, carried=True) if detour.open else None
            if not detour.open:
                raise CannotAskError
            return error

        return ask

    def _heard(self, forward: str, kept: _Kept, asked: _Asked, error: str | None) -> None:
        if not asked.health.took(error, kept.probe.failures):
            return
        verdict = f"fails its probe: {error}" if asked.health.failing else "is back in the balance"
        _log.info("%s: %s %s", kept.name, _short(asked.endpoint.id), verdict)
        self._changed(forward)


def _pause(probe: Probe, missed: int) -> float:
    """Return the seconds until the next probe, after so many in a row that could not be made."""
    if missed:
        return Backoff(NO_WAY, cap=probe.interval).delay(missed - 1, random.random)
    return Backoff(probe.interval, cap=probe.interval, jitter=SPREAD).delay(0, random.random)


def _end(asked: _Asked) -> None:
    if asked.task is not None:
        asked.task.cancel()


def _short(endpoint: str) -> str:
    return endpoint if "/" in endpoint else f"task {endpoint[:8]}"
