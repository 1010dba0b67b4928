"""A way for a probe through a tunnel: a forward of its own that leads to one task, and nowhere else.

A tunnel's bytes move in the relay loop (docs/design/contracts.md, 1), so a probe is one more client there. It
connects to a loopback port that nobody is told of; where the task refuses, or no tunnel is open, it is
reset and not held. `kecs.agent.prober` has one for each task that it asks through a tunnel.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from kecs.net import listener
from kecs.net.messages import Close, Endpoint, HoldLimits, Listen, Snapshot, ToLoop

_AT_ONCE = HoldLimits(seconds=0.0, connections=0)


class Sends(Protocol):
    """What is needed of `kecs.agent.relay.Relay`."""

    def send(self, message: ToLoop) -> None:
        """Hand a message to the relay loop."""


class KeepsTunnels(Protocol):
    """What is needed of `kecs.agent.tunnels.Tunnels`."""

    def want(self, forward: str, names: Collection[str]) -> None:
        """Keep tunnels to these Pods open for the forward."""

    def is_open(self, name: str) -> bool:
        """Tell whether there is a tunnel to this Pod."""


class Detour:
    """One such way."""

    def __init__(self, forward: str, endpoint: Endpoint, relay: Sends, tunnels: KeepsTunnels) -> None:
        """Listen. `forward` is the id of the forward whose task is asked. Raises `KecsError`."""
        self._name = f"probe/{forward}/{endpoint.carrier}:{endpoint.port}"
        self._carrier = endpoint.carrier
        self._relay = relay
        self._tunnels = tunnels
        sockets = listener.bind(["127.0.0.1"], 0)
        self.port = int(sockets[0].getsockname()[1])
        """On 127.0.0.1. The kernel's choice: nobody has to find it again after a restart."""
        tunnels.want(self._name, {self._carrier})  # the forward itself gives it up when the task fails
        relay.send(Listen(self._name, sockets, _AT_ONCE))
        relay.send(Snapshot(self._name, 1, (endpoint,)))

    @property
    def open(self) -> bool:
        """Whether there is a tunnel: without one nothing can be said of the task."""
        return self._tunnels.is_open(self._carrier)

    def close(self) -> None:
        """Let it go."""
        self._relay.send(Close(self._name))
        self._tunnels.want(self._name, ())
