"""Names instead of ports: one port on which every public service is reached by its own host.

The port is chosen once and kept in `config.yaml`, with those who want it: files (`names: true`) and the
person. While anybody does, each public service is a forward without a port in the relay loop, which leads
there by `Host` or by TLS's server name (`kecs.net.front`), and the resolver tells this of every change. The
daemon makes it; nothing in here decides what a forward is or moves a byte.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

import msgspec

from kecs.agent.named import Named, entry_for, first_port
from kecs.agent.picture import Changes, Picture
from kecs.agent.state import Entry, NamesEntry
from kecs.client.names import hosts_of
from kecs.errors import KecsError
from kecs.forward.backoff import Backoff
from kecs.net import listener
from kecs.net.messages import (
    Close,
    CloseFront,
    HoldLimits,
    Listen,
    Names,
    OpenFront,
    Snapshot,
    ToLoop,
    Waiting,
)

AGAIN = Backoff(first=0.5, cap=15.0)
"""Between two tries to have a port back that was taken at the start."""

_log = logging.getLogger(__name__)


class Keeps(Protocol):
    """What is needed of `kecs.agent.manager.Manager`."""

    @property
    def names_entry(self) -> NamesEntry | None:
        """What `config.yaml` keeps of this."""

    def keep_names(self, entry: NamesEntry) -> None:
        """Write it. Raises `KecsError` when that fails; nothing is changed then."""

    def avoided_ports(self) -> set[int]:
        """Ports that must not be chosen."""


class Sends(Protocol):
    """What is needed of `kecs.agent.relay.Relay`."""

    def send(self, message: ToLoop) -> None:
        """Hand a message to the relay loop."""


class KeepsTunnels(Protocol):
    """What is needed of `kecs.agent.tunnels.Tunnels`."""

    def want(self, forward: str, names: Collection[str]) -> None:
        """Keep tunnels to these Pods open for the forward."""


class NamesPort:
    """The one port, and what it leads to."""

    def __init__(
        self, keeps: Keeps, region: str, relay: Sends, picture: Picture, tunnels: KeepsTunnels | None = None
    ) -> None:
        """`region` is the instance's. Without `tunnels` a name leads nowhere by one."""
        self._keeps = keeps
        self._region = region
        self._relay = relay
        self._picture = picture
        self._tunnels = tunnels
        self._named: dict[str, Named] = {}
        self._hosts: dict[str, str] = {}
        self._sockets: tuple[socket.socket, ...] = ()
        """Bound, and not given to the relay loop before it is known what there is: clients wait meanwhile."""
        self._listening = False
        self._error: str | None = None
        self._failures = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def port(self) -> int | None:
        """The port while names are served on it."""
        entry = self._keeps.names_entry
        return entry.port if entry is not None and self._listening else None

    @property
    def warnings(self) -> list[str]:
        """What the person should know."""
        return [f"names are not served: {self._error}"] if self._error else []

    @property
    def named(self) -> Mapping[str, Named]:
        """The services that have a name now, by their ids in the relay loop."""
        return self._named

    # Who wants it

    def restore(self) -> None:
        """Listen again where anybody wants it; a port that is taken is tried again, and never another."""
        entry = self._keeps.names_entry
        if entry is not None and entry.owners:
            self._try_to_listen()

    def open(self, owner: str) -> int:
        """Serve names for `owner`: the real path of a file, or nothing for a person. Return the port.

        Raises `KecsError` when the port is taken, or cannot be written down.
        """
        entry = self._keeps.names_entry
        sockets: tuple[socket.socket, ...] = ()
        if not self._listening:
            port, sockets = self._bind(entry)
            entry = NamesEntry(port=port, owners=entry.owners if entry else [])
        assert entry is not None
        try:
            if owner not in entry.owners or sockets:
                entry = msgspec.structs.replace(entry, owners=sorted({*entry.owners, owner}))
                if entry != self._keeps.names_entry:
                    self._keeps.keep_names(entry)
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        if sockets:
            self._listen(sockets)
        return entry.port

    def close(self, owner: str) -> int | None:
        """Take that `owner` wants it no more; return the port while others do. Connections go on."""
        entry = self._keeps.names_entry
        if entry is None or owner not in entry.owners:
            return self.port
        entry = msgspec.structs.replace(entry, owners=[one for one in entry.owners if one != owner])
        self._keeps.keep_names(entry)
        if not entry.owners:
            self._stop()
        return self.port

    def leave(self) -> None:
        """Let go of what is this process's own."""
        self._cancel_timer()
        for sock in self._sockets:
            sock.close()
        self._sockets = ()

    # What there is

    def follow(self, changes: Changes | None = None) -> None:
        """Take that the picture has changed; without `changes`, that anything may be other than before."""
        if not self._listening or self._picture.version is None:
            return
        wanted = dict(self._wanted())
        hosts = {host: entry.id for entry, names in wanted.values() for host in names}
        for identity, (entry, _) in wanted.items():
            named = self._named.get(identity)
            if named is None:
                named = self._named[identity] = Named(entry)
                self._relay.send(Listen(identity, (), HoldLimits(entry.hold_seconds, entry.hold_connections)))
                self._lead(named)
            elif entry != named.entry or changes is None or changes.concern(entry):
                named.entry = entry
                self._lead(named)
        if hosts != self._hosts:
            self._hosts = hosts
            self._relay.send(Names(hosts))
        for identity in set(self._named) - set(wanted):
            self._forget(identity)
        if self._sockets:
            sockets, self._sockets = self._sockets, ()
            self._relay.send(OpenFront(sockets))

    def waiting(self, message: Waiting) -> None:
        """Take that clients of a service wait: perhaps for a tunnel, which nobody has opened so far."""
        named = self._named.get(message.forward)
        if named is not None and message.held and not named.awake:
            named.awake = True
            self._want_tunnels(named)

    def _wanted(self) -> Iterator[tuple[str, tuple[Entry, tuple[str, ...]]]]:
        """Yield the id, entry and hosts of each service that can be reached."""
        for target in self._picture.services():
            port = first_port(target)
            if target.public and target.service is not None and port is not None:
                hosts = hosts_of(target.service, target.cluster, target.region, self._region)
                entry = entry_for(target, f"name/{hosts[-1]}", hosts[0], port)
                yield entry.id, (entry, hosts)

    def _lead(self, named: Named) -> None:
        endpoints = self._picture.resolve(named.entry).endpoints
        if endpoints != named.endpoints:
            named.endpoints = endpoints
            self._relay.send(Snapshot(named.id, self._picture.version or 0, endpoints))
            self._want_tunnels(named)

    def _want_tunnels(self, named: Named) -> None:
        if self._tunnels is not None and named.awake:
            self._tunnels.want(named.id, {one.carrier for one in named.endpoints if one.carrier})

    def _forget(self, identity: str) -> None:
        named = self._named.pop(identity)
        self._relay.send(Close(identity, connections=False))
        if self._tunnels is not None and named.awake:
            self._tunnels.want(identity, ())

    # The port

    def _bind(self, entry: NamesEntry | None) -> tuple[int, tuple[socket.socket, ...]]:
        addresses = listener.default_addresses()
        if entry is not None:
            try:
                return entry.port, listener.bind(addresses, entry.port)
            except KecsError as error:
                hint = "stop what holds it: the port of names is kept, and no other is chosen"
                raise KecsError(error.message, hint, error.exit_code) from error
        return listener.bind_chosen(addresses, listener.FORWARD_PORTS, self._keeps.avoided_ports())

    def _try_to_listen(self) -> None:
        self._timer = None
        entry = self._keeps.names_entry
        try:
            port, sockets = self._bind(entry)
        except KecsError as error:
            if error.message != self._error:
                _log.warning("names are not served: %s", error.message)
            self._error = error.message
            self._failures += 1
            delay = AGAIN.delay(self._failures - 1, random.random)
            self._timer = asyncio.get_running_loop().call_later(delay, self._try_to_listen)
        else:
            self._listen(sockets)
            _log.info("serving names on port %d", port)

    def _listen(self, sockets: tuple[socket.socket, ...]) -> None:
        self._cancel_timer()
        self._error, self._failures = None, 0
        self._listening = True
        self._sockets = sockets
        self.follow()

    def _stop(self) -> None:
        self._cancel_timer()
        self._error = None
        if not self._listening:
            return
        self._listening = False
        self.leave()
        self._relay.send(CloseFront())
        self._hosts = {}
        self._relay.send(Names({}))
        for identity in list(self._named):
            self._forget(identity)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
