"""Kept ports: on each the agent listens for one service, so that tasks of this machine find it there.

The control plane chose them and tells of them with the endpoints (`kecs.ecs.kept_ports`); they are no
forwards of anybody, and go with their service. The daemon makes this, the resolver tells it of changes.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator, Mapping
from typing import Protocol

from kecs.agent.named import Named, entry_for, first_port
from kecs.agent.picture import Changes, Picture
from kecs.agent.relay import listen
from kecs.agent.state import Entry
from kecs.errors import KecsError
from kecs.forward.backoff import Backoff
from kecs.net import listener
from kecs.net.messages import Close, Snapshot, ToLoop

ADDRESS = "127.0.0.1"
"""The one that tasks are told (`kecs.ecs.urls`)."""
AGAIN = Backoff(first=0.5, cap=15.0)
"""Between two tries to have a port that a stranger has taken."""

_log = logging.getLogger(__name__)


class Sends(Protocol):
    """What is needed of `kecs.agent.relay.Relay`."""

    def send(self, message: ToLoop) -> None:
        """Hand a message to the relay loop."""


class KeptPorts:
    """All of them."""

    def __init__(self, relay: Sends, picture: Picture) -> None:
        self._relay = relay
        self._picture = picture
        self._named: dict[str, Named] = {}
        self._failures: dict[str, int] = {}
        """Of those whose port is taken: how often that was found."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def named(self) -> Mapping[str, Named]:
        """The services that are listened for, by their ids in the relay loop."""
        return self._named

    def follow(self, changes: Changes | None = None) -> None:
        """Take that the picture has changed; without `changes`, that anything may be other than before."""
        if self._picture.version is None:
            return
        wanted = {entry.id: entry for entry in self._wanted()}
        for identity in [one for one in self._named if one not in wanted]:
            self._forget(identity)
        for identity, entry in wanted.items():
            named = self._named.get(identity)
            if named is not None and named.entry.local_port != entry.local_port:  # another of its name
                self._forget(identity)
                named = None
            if named is None:
                self._begin(entry)
            elif entry != named.entry or changes is None or changes.concern(entry):
                named.entry = entry
                self._lead(named)
        self._try_again_later()

    def leave(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wanted(self) -> Iterator[Entry]:
        for target in self._picture.services():
            port = first_port(target)
            if target.kept_port is not None and port is not None:
                identity = f"kept/{target.region}/{target.cluster}/{target.service}"
                yield entry_for(target, identity, "kept", port, target.kept_port)

    def _begin(self, entry: Entry) -> None:
        try:
            sockets = listener.bind([ADDRESS], entry.local_port)
        except KecsError as error:
            if entry.id not in self._failures:
                _log.warning("tasks do not find %s: %s", entry.target, error.message)
            self._failures[entry.id] = self._failures.get(entry.id, 0) + 1
            return
        self._failures.pop(entry.id, None)
        self._named[entry.id] = named = Named(entry)
        self._relay.send(listen(entry, sockets))
        self._lead(named)

    def _lead(self, named: Named) -> None:
        endpoints = self._picture.resolve(named.entry, within=True).endpoints
        if endpoints != named.endpoints:
            named.endpoints = endpoints
            self._relay.send(Snapshot(named.id, self._picture.version or 0, endpoints))

    def _forget(self, identity: str) -> None:
        del self._named[identity]
        self._relay.send(Close(identity, connections=False))

    def _try_again_later(self) -> None:
        there = {entry.id for entry in self._wanted()}
        self._failures = {one: count for one, count in self._failures.items() if one in there}
        if self._failures and self._timer is None:
            delay = AGAIN.delay(min(self._failures.values()) - 1, random.random)
            self._timer = asyncio.get_running_loop().call_later(delay, self._try_again)

    def _try_again(self) -> None:
        self._timer = None
        self.follow()
