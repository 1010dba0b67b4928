"""Between the control plane and the forwards: it follows the endpoints and answers for them.

Each line becomes a `Snapshot` for every forward that it changes, then a `Barrier`; when the relay loop is
past that, the control plane hears `seen`, and `drained` for each task that is out of every forward
(docs/design/contracts.md, 2). Without a control plane the forwards go on with what they know.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Protocol

from kecs.agent.drains import Drains, Holder
from kecs.agent.picture import Changes, Picture
from kecs.agent.resolution import Resolution
from kecs.agent.runner import Runner, Sends
from kecs.agent.state import Entry
from kecs.client import watch
from kecs.client.admin_types import PeerStatus
from kecs.client.endpoints import EndpointsLine
from kecs.errors import KecsError
from kecs.forward.backoff import Backoff
from kecs.net.messages import Barrier, Drained, Endpoint, Seen
from kecs.paths import InstancePaths

RECONNECT = Backoff(first=0.05, cap=2.0)
"""Between two tries to connect, beside what the supervisor waits: a restart takes a second."""

_log = logging.getLogger(__name__)


class Supervises(Protocol):
    """What is needed of `kecs.client.supervise.Supervisor`."""

    @property
    def state(self) -> PeerStatus:
        """How the control plane stands."""

    async def lost(self) -> bool:
        """Bring the control plane back where that is wanted, with its own delays."""


class Leads(Protocol):
    """What leads to endpoints without being a forward of its own."""

    @property
    def id(self) -> str:
        """Its id in the relay loop."""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """What the relay loop may hold connections to for it."""


class Follows(Protocol):
    """Who else is told of changes (`kecs.agent.names.NamesPort`)."""

    @property
    def named(self) -> Mapping[str, Leads]:
        """What it has led to endpoints, by id."""

    def follow(self, changes: Changes | None) -> None:
        """Take that the picture has changed; None: anything in it may have."""


class Judges(Protocol):
    """Who takes tasks out that the control plane calls ready (`kecs.agent.prober.Prober`)."""

    def filter(self, entry: Entry, resolution: Resolution) -> Resolution:
        """Return what of a forward's resolution is used."""

    def forget(self, forward: str) -> None:
        """Take that the forward is no more."""


class Resolver:
    """The agent's only view of ECS."""

    def __init__(
        self,
        paths: InstancePaths,
        relay: Sends,
        runners: Mapping[str, Runner],
        supervisor: Supervises,
        follow: Callable[[InstancePaths], AsyncGenerator[EndpointsLine, None]] = watch.follow_endpoints,
        prober: Judges | None = None,
    ) -> None:
        """`runners` is the manager's dictionary, by id, as it is at each time."""
        self._paths = paths
        self._relay = relay
        self._runners = runners
        self._supervisor = supervisor
        self._follow = follow
        self._prober = prober
        self.picture = Picture()
        """Of now; only read by others."""
        self._others: list[Follows] = []
        self._drains = Drains()
        self._barrier = 0
        self._barriers: dict[int, tuple[int, int]] = {}
        """Barrier -> (stream, version) that it stands behind."""
        self._stream = 0
        self._connected = False
        self._lost_since: float | None = None
        self._lost_why: str | None = None
        self._seen: int | None = None
        self._to_tell = asyncio.Event()

    @property
    def status(self) -> str:
        """`connected`, or why not."""
        if self._connected:
            return "connected"
        if self._lost_since is None:
            return "connecting"
        peer = self._supervisor.state
        more = f"; {peer.state}" if peer.state in ("starting", "BACKOFF") else ""
        return f"{self._lost_reason()} ({self._lost_why}{more})"

    # Endpoints in

    def also(self, other: Follows) -> None:
        """Tell `other` of changes too, as part of what is behind the same barrier."""
        self._others.append(other)

    def learn(self, line: EndpointsLine) -> None:
        """Take a snapshot that was asked for, unless the stream has told as much already."""
        version = self.picture.version
        if not self._connected or version is None or line.version > version:
            self._apply(line)

    def add(self, runner: Runner) -> None:
        """Tell a new forward what it leads to."""
        if self.picture.version is not None:
            runner.resolved(self._resolve(runner.entry), self.picture.version)
        if not self._connected and self._lost_since is not None:
            runner.lost(self._lost_reason())

    def forget(self, forward: str) -> None:
        """Forget a forward that has no connections any more."""
        self._drains.left(forward)
        self._to_tell.set()
        if self._prober is not None:
            self._prober.forget(forward)

    def again(self, forward: str) -> None:
        """Tell a forward anew what it leads to: a task of it fails its probe, or is back."""
        runner = self._runners.get(forward)
        if runner is not None and self.picture.version is not None:
            runner.resolved(self._resolve(runner.entry), self.picture.version)

    def _resolve(self, entry: Entry) -> Resolution:
        resolution = self.picture.resolve(entry)
        return resolution if self._prober is None else self._prober.filter(entry, resolution)

    async def follow(self) -> None:
        """Follow the endpoints for ever."""
        failures = 0
        while True:
            heard = await self._follow_once()
            failures = 0 if heard else failures + 1
            await self._supervisor.lost()
            if failures:
                await asyncio.sleep(RECONNECT.delay(failures - 1, random.random))

    async def _follow_once(self) -> bool:
        """Follow one stream to its end; tell whether it said anything."""
        heard = False
        try:
            async with aclosing(self._follow(self._paths)) as lines:
                async for line in lines:
                    if line.type == "ping":
                        continue
                    self._heard(line, first=not heard)
                    heard = True
        except KecsError as error:
            self._lose(error)
        return heard

    def _heard(self, line: EndpointsLine, *, first: bool) -> None:
        if first:
            _log.info("following the endpoints of the control plane")
            self._stream += 1
            self._connected, self._lost_since, self._lost_why = True, None, None
            self._seen = None
            self._drains.tell_again()
            self._apply(line, everyone=True)
        elif line.type == "snapshot" or line.version > (self.picture.version or 0):
            self._apply(line)

    def _apply(self, line: EndpointsLine, *, everyone: bool = False) -> None:
        changes = self.picture.apply(line)
        for runner in list(self._runners.values()):
            if everyone or changes.concern(runner.entry):
                runner.resolved(self._resolve(runner.entry), line.version)
        for other in self._others:
            other.follow(None if everyone else changes)
        self._barrier += 1
        draining = self.picture.draining
        new = {task for task in draining if not self._drains.is_known(task)}
        self._drains.update(draining, self._holders(new), self._barrier)
        self._barriers[self._barrier] = (self._stream, line.version)
        self._relay.send(Barrier(self._barrier))

    def _holders(self, tasks: set[str]) -> dict[str, set[Holder]]:
        holders: dict[str, set[Holder]] = {}
        if tasks:
            everything: Iterable[Leads] = itertools.chain(
                self._runners.values(), *(other.named.values() for other in self._others)
            )
            for one in everything:
                for endpoint in one.endpoints:
                    if endpoint.id in tasks:  # not one of a node's address: it belongs to no task
                        holders.setdefault(endpoint.id, set()).add((one.id, endpoint.id))
        return holders

    def _lose(self, error: KecsError) -> None:
        self._connected = False
        self._lost_why = error.why if isinstance(error, watch.ControlPlaneLost) else error.message
        if self._lost_since is not None:
            return
        _log.warning("lost the control plane: %s", error.message)
        self._lost_since = time.time()
        for runner in list(self._runners.values()):
            runner.lost(self._lost_reason())

    def _lost_reason(self) -> str:
        since = time.strftime("%H:%M:%S", time.localtime(self._lost_since))
        return f"control plane not reachable since {since}"

    # Answers out

    def on_seen(self, message: Seen) -> None:
        """Take that the relay loop is past a barrier."""
        stream, version = self._barriers.pop(message.version, (None, 0))
        self._drains.passed(message.version)
        if stream == self._stream:
            self._seen = max(self._seen or 0, version)
        self._to_tell.set()

    def on_drained(self, message: Drained) -> None:
        """Take that a forward has no connection to a draining endpoint any more."""
        self._drains.drained(message.forward, message.endpoint, message.endpoint)
        self._to_tell.set()

    async def tell(self) -> None:
        """Post `seen` and `drained` as they become true, in that order, for ever."""
        while True:
            await self._to_tell.wait()
            self._to_tell.clear()
            if not self._connected:
                continue  # the next stream begins with all of it again
            try:
                while (version := self._seen) is not None:  # another may come while one is posted
                    self._seen = None
                    await watch.post_seen(self._paths, version)
                for task in self._drains.take_due():
                    await watch.post_drained(self._paths, task)
            except KecsError as error:
                # Its wait has a limit; nothing is lost but that time.
                _log.warning("cannot answer the control plane: %s", error.message)
