"""Bringing the other daemon back: the agent does it for the control plane, and the other way round.

A daemon that sees its connection to the other end awaits `Supervisor.lost()`; what that may start is
decided by `instance.yaml`, read anew each time (docs/design/contracts.md, 5).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable

from kecs.client import instance as instances
from kecs.client import launch as launching
from kecs.client.admin_types import PeerStatus
from kecs.client.agent import is_up
from kecs.errors import KecsError
from kecs.paths import InstancePaths

EARLY = 10.0
"""A daemon that ends within this many seconds of being ready did not come to live."""
FREE_DEATHS = 3
"""So many early deaths are answered at once; after the third, the delay begins at 1 s and doubles."""
LONGEST_DELAY = 30.0
GLANCE = 0.5
"""While it delays, it looks this often whether somebody else brought the daemon back."""
UNWANTED_PAUSE = 1.0
"""A caller that asks in a loop while the daemon is not wanted turns this slowly, and does no harm."""

_log = logging.getLogger(__name__)


class Supervisor:
    """Launches `daemon` when it was lost and is wanted. For one event loop; `lost` may be awaited by several.

    `launch`, `up`, `clock` and `sleep` are what it does to the world; tests give their own.
    """

    def __init__(
        self,
        paths: InstancePaths,
        daemon: launching.Daemon,
        *,
        launch: Callable[[launching.Daemon, InstancePaths], None] = launching.launch,
        up: Callable[[str], bool] = is_up,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.paths = paths
        self.daemon = daemon
        self._launch, self._up, self._clock, self._sleep = launch, up, clock, sleep
        self._one_at_a_time = asyncio.Lock()
        self._ready_at: float | None = None
        self._deaths = 0
        self._state = PeerStatus(state="absent")

    @property
    def state(self) -> PeerStatus:
        """How it stands: `connected` (as far as known here), `absent` (not wanted), `starting`, `BACKOFF`."""
        return self._state

    async def lost(self) -> bool:
        """Bring the daemon back after its connection ended, with a delay when it keeps dying.

        True: it is ready, connect again. False: it is not wanted, or this try failed (logged and kept in
        `state`); when it still cannot be reached, call again, the delays are counted here.
        """
        asked_at = self._clock()
        async with self._one_at_a_time:
            if self._ready_at is not None and self._ready_at >= asked_at:
                return True  # another caller saw the same loss and was faster
            return await self._bring_back()

    async def _bring_back(self) -> bool:
        now = self._clock()
        if self._ready_at is not None:
            self._deaths = self._deaths + 1 if now - self._ready_at < EARLY else 0
            self._ready_at = None
        if not self._wanted():
            self._state = PeerStatus(state="absent")
            await self._sleep(UNWANTED_PAUSE)
            return False
        if delay := delay_after(self._deaths):
            detail = self._state.detail if self._state.state == "BACKOFF" else None
            why = detail or f"ended {self._deaths} times within {EARLY:g} s of being ready"
            _log.warning("the %s keeps ending, next start in %g s", self.daemon, delay)
            self._state = PeerStatus(state="BACKOFF", detail=why)
            if await self._came_back_by_itself(delay):
                return self._ready()
            if not self._wanted():
                self._state = PeerStatus(state="absent")
                return False
        self._state = PeerStatus(state="starting")
        try:
            await _on_a_thread(lambda: self._launch(self.daemon, self.paths), f"launch of {self.daemon}")
        except KecsError as error:
            _log.error("the %s cannot be started: %s", self.daemon, error.message)
            self._deaths = max(self._deaths + 1, FREE_DEATHS)
            self._state = PeerStatus(state="BACKOFF", detail=error.message)
            return False
        _log.info("started the %s", self.daemon)
        return self._ready()

    def _ready(self) -> bool:
        self._ready_at = self._clock()
        self._state = PeerStatus(state="connected")
        return True

    async def _came_back_by_itself(self, delay: float) -> bool:
        end = self._clock() + delay
        while (left := end - self._clock()) > 0:
            await self._sleep(min(GLANCE, left))
            if self._up(str(launching.socket_of(self.daemon, self.paths))):
                return True
        return False

    def _wanted(self) -> bool:
        try:
            instance = instances.read(self.paths)
        except KecsError as error:
            _log.error("cannot tell whether the %s is wanted: %s", self.daemon, error.message)
            return False
        if instance is None or instance.desired != "running":
            return False
        return self.daemon == "controlplane" or instance.agent == "running"


async def _on_a_thread(work: Callable[[], None], name: str) -> None:
    """Run `work` on a thread that does not keep the process from ending, as one of asyncio's pool would."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        failure: BaseException | None = None
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the top of a thread: it arrives where it is awaited
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    await done


def delay_after(deaths: int) -> float:
    """Return the delay before the next start after so many early deaths in a row: 0, 0, 0, 1, 2, 4 … 30."""
    if deaths < FREE_DEATHS:
        return 0.0
    return float(min(LONGEST_DELAY, 2.0 ** min(deaths - FREE_DEATHS, 10)))
