"""The agent, as the control plane sees it: connected to the endpoints or not; lost, it is brought back.

Launching, delays and what `instance.yaml` allows are `kecs.client.supervise`'s work
(docs/design/contracts.md, 5). An agent without forwards is not missed, unless tasks
were told of a port on which it listens for a service (`kecs.ecs.kept_ports`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from kecs.client.admin_types import PeerStatus
from kecs.controlplane.hub import Hub

FIRST_CHANCE = 0.7
"""Seconds that an agent which lives has to find us after our start, before another is launched."""
CONNECTS_WITHIN = 3.0
"""Seconds that an agent has to connect after it was launched."""

_log = logging.getLogger(__name__)


class Supervises(Protocol):
    """What is needed of `kecs.client.supervise.Supervisor`."""

    @property
    def state(self) -> PeerStatus:
        """How the agent stands."""

    async def lost(self) -> bool:
        """Bring it back where that is wanted, with delays of its own."""


class AgentWatch:
    """Brings the agent back whenever it is missed. `wanted` tells whether it is, now."""

    def __init__(
        self,
        hub: Hub,
        supervisor: Supervises,
        wanted: Callable[[], bool],
        lives: Callable[[], bool],
        told: Callable[[], bool] = lambda: False,
    ) -> None:
        """`lives` tells whether an agent listens on its socket, whomever it follows.

        `told`: whether tasks were told of ports on which it has to listen, which may begin at any commit.
        """
        self._told = told
        self._was_told = False
        self._hub = hub
        self._supervisor = supervisor
        self._wanted = wanted
        self.lives = lives
        self._changed = asyncio.Event()
        hub.on_agent = self._on_agent

    def status(self) -> PeerStatus:
        """Say how the agent stands."""
        if self._hub.agent_connected:
            return PeerStatus(state="connected")
        if not self._wanted():
            return PeerStatus(state="absent")
        state = self._supervisor.state
        return state if state.state == "BACKOFF" else PeerStatus(state="starting")

    def on_commit(self, _changes: object) -> None:
        """Look anew when tasks begin to need an agent."""
        if self._hub.agent_connected:
            self._was_told = False  # once it has gone, what is told then is news
            return
        before, self._was_told = self._was_told, self._told()
        if self._was_told and not before:
            self._changed.set()

    async def run(self) -> None:
        """Watch, for ever."""
        await self._hub.opened()
        if self.lives():
            await self._connected_within(FIRST_CHANCE)
        while True:
            self._changed.clear()
            if self._hub.agent_connected or not self._wanted():
                await self._changed.wait()
            elif await self._supervisor.lost() and not await self._connected_within(CONNECTS_WITHIN):
                _log.warning("the agent was started and has not connected within %g s", CONNECTS_WITHIN)

    async def _connected_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                while not self._hub.agent_connected:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _on_agent(self, connected: bool) -> None:
        _log.info("the agent %s", "has connected" if connected else "was lost")
        self._changed.set()
