"""Who follows the endpoints, and what the agent said about them.

The hub gives each committed change of the endpoints a version, hands it to every stream, and lets a
planned stop wait until the agent uses that version and has no connection to the task left
(docs/design/contracts.md, section 2). Everything happens on the event loop. Versions begin at 1 with
each process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from kecs.client.endpoints import EndpointsLine, Target
from kecs.controlplane.endpoints import (
    LOCAL,
    Changes,
    TargetKey,
    all_targets,
    nodes_changed,
    target_at,
    touched,
)
from kecs.ecs.context import RuntimeTraits
from kecs.ecs.model import Task
from kecs.ecs.state import Reader

MAX_BEHIND = 256
"""Lines that a slow follower may be behind; beyond it gets a fresh snapshot instead."""
SEEN_WITHIN = 1.0
"""Longest wait, in seconds, for the agent's word that it uses a version."""
PING_EVERY = 5.0
"""Seconds of silence after which a follower gets a ping."""


class Follower:
    """One stream of endpoints; `agent` tells whether the agent is at its other end."""

    def __init__(self, hub: Hub, *, agent: bool) -> None:
        self._hub = hub
        self.agent = agent
        self._lines: list[bytes] = []
        self._behind = True
        self._news = asyncio.Event()
        self._news.set()

    def offer(self, line: bytes) -> None:
        """Keep a line for the stream."""
        if len(self._lines) >= MAX_BEHIND:
            self._lines.clear()
            self._behind = True
        if not self._behind:
            self._lines.append(line)
        self._news.set()

    def end(self) -> None:
        """Let `next` look at once."""
        self._news.set()

    async def next(self) -> bytes:
        """Return the next line or lines, each ended by a newline: first of all a snapshot. b"": the end."""
        if self._hub.is_closed():
            return b""
        try:
            async with asyncio.timeout(PING_EVERY):
                await self._news.wait()
        except TimeoutError:
            return encode(EndpointsLine(type="ping", version=self._hub.version))
        self._news.clear()
        if self._hub.is_closed():
            return b""
        if self._behind:
            self._behind = False
            self._lines.clear()
            return self._hub.snapshot()
        lines, self._lines = self._lines, []
        return b"".join(lines)


class Hub:
    """The endpoints of now, their version, and their followers."""

    def __init__(self, state: Reader, traits: RuntimeTraits = LOCAL) -> None:
        """Begin with the endpoints of `state` on the instance's runtime."""
        self.traits = traits
        self._targets: dict[TargetKey, Target] = all_targets(state, traits)
        self.version = 1
        self._followers: list[Follower] = []
        self._seen = 0
        self._drained: set[str] = set()
        self._opened = asyncio.Event()
        self._closed = False
        self._agent_due = 0.0
        self._waiters: set[asyncio.Future[None]] = set()
        self.on_agent: Callable[[bool], None] = lambda _connected: None
        """Called with True when the agent's stream begins, with False when its last one ends."""

    @property
    def agent_connected(self) -> bool:
        """Tell whether the agent follows the endpoints now."""
        return any(follower.agent for follower in self._followers)

    def apply(self, state: Reader, changes: Changes) -> None:
        """Publish what a commit changed. Called after the commit, never before."""
        self._drained.difference_update(
            row.id for row, _ in changes.values() if isinstance(row, Task) and row.last_status == "STOPPED"
        )
        changed: list[Target] = []
        removed: list[TargetKey] = []
        keys = touched(changes)
        everything: dict[TargetKey, Target] | None = None
        if nodes_changed(changes):
            everything = all_targets(state, self.traits)
            keys |= {key for key, target in everything.items() if target.public}
        for key in sorted(keys, key=str):
            new = everything.get(key) if everything is not None else target_at(state, key, self.traits)
            if new == self._targets.get(key):
                continue
            if new is None:
                del self._targets[key]
                removed.append(key)
            else:
                self._targets[key] = new
                changed.append(new)
        if not changed and not removed:
            return
        self.version += 1
        line = encode(EndpointsLine(type="change", version=self.version, targets=changed, removed=removed))
        for follower in self._followers:
            follower.offer(line)

    def open(self, *, agent_due: float) -> None:
        """Begin to answer: the state is known to be true again.

        `agent_due` (seconds of the loop's clock) is until when an agent that followed the process before
        this one may come back: planned stops wait so long for it.
        """
        self._agent_due = agent_due
        self._opened.set()

    def is_closed(self) -> bool:
        """Tell whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """End all streams: the process is about to leave."""
        self._closed = True
        self._opened.set()
        for follower in self._followers:
            follower.end()

    async def opened(self) -> None:
        """Wait for `open`."""
        await self._opened.wait()

    def snapshot(self) -> bytes:
        """Return all targets as one line."""
        return encode(
            EndpointsLine(type="snapshot", version=self.version, targets=list(self._targets.values()))
        )

    def follow(self, *, agent: bool) -> Follower:
        """Begin a stream; `leave` must follow."""
        follower = Follower(self, agent=agent)
        first = agent and not self.agent_connected
        self._followers.append(follower)
        if agent:
            # What an agent said on an earlier stream is void: it begins again with this snapshot.
            self._seen = 0
            self._drained.clear()
        if first:
            self.on_agent(True)
        self._wake()
        return follower

    def leave(self, follower: Follower) -> None:
        """End a stream."""
        self._followers.remove(follower)
        if follower.agent and not self.agent_connected:
            self.on_agent(False)
        self._wake()

    def seen(self, version: int) -> None:
        """Take the agent's word that its relay loop uses `version`."""
        if self.agent_connected and version <= self.version:
            self._seen = max(self._seen, version)
            self._wake()

    def drained(self, task_id: str) -> None:
        """Take the agent's word that no forward has a connection to this task any more."""
        self._drained.add(task_id)
        self._wake()

    async def out_of_forwards(self, task_id: str, longest: float) -> None:
        """Wait until no forward uses the task, as far as the agent tells within the limits.

        Call it when the task is published as draining. `longest` is the wait for open connections, in
        seconds. Without an agent nothing is waited for.
        """
        version = self.version
        loop = asyncio.get_running_loop()
        await self._until(lambda: self.agent_connected, self._agent_due - loop.time())
        await self._until(lambda: self._seen >= version or not self.agent_connected, SEEN_WITHIN)
        await self._until(lambda: task_id in self._drained or not self.agent_connected, longest)
        self._drained.discard(task_id)

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiters.add(waiter)
                    try:
                        await waiter
                    finally:
                        self._waiters.discard(waiter)
        except TimeoutError:
            pass

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


def encode(line: EndpointsLine) -> bytes:
    """Encode one line of the stream."""
    return msgspec.json.encode(line) + b"\n"
