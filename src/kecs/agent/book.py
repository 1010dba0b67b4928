"""The forwards that exist, by id, and `config.yaml`, which promises them: how members come and go.

`kecs.agent.manager` and `kecs.agent.applier` decide what shall exist; in here it is bound, written and begun.
Whatever fails before the file is written leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec

from kecs.agent import ports, state
from kecs.agent.relay import Relay
from kecs.agent.resolver import Resolver
from kecs.agent.runner import OnState, Runner
from kecs.agent.state import AutoEntry, Config, Entry, NamesEntry
from kecs.agent.tunnels import Tunnels
from kecs.client import metrics_address
from kecs.client import rpc_types as rpc
from kecs.client.instance import Instance
from kecs.client.ports import named_ports
from kecs.errors import ExitCode, KecsError
from kecs.forward import machine as m
from kecs.forward.addresses import collide
from kecs.forward.spec import Protocol
from kecs.net import listener
from kecs.paths import InstancePaths

_log = logging.getLogger(__name__)


class Want(NamedTuple):
    """Where a forward shall listen."""

    address: Sequence[str]
    """Empty: loopback."""
    local_port: int | None
    """None: one is chosen, the target port where that is possible."""
    target_port: int
    protocol: Protocol = "tcp"
    publish: int | None = None
    """Where Docker is to listen for it: not where one is chosen."""


class Place(NamedTuple):
    """Where it will listen."""

    port: int
    sockets: ports.Sockets | None
    """None: another forward has the port and gives it up; it is to be bound after that."""


class Book:
    """All forwards of the instance."""

    def __init__(
        self,
        paths: InstancePaths,
        instance: Instance,
        relay: Relay,
        tunnels: Tunnels | None,
        observers: Sequence[OnState],
    ) -> None:
        self.runners: dict[str, Runner] = {}
        """Shared with the resolver."""
        self.config = Config(forwards=[])
        """As it is on the disk."""
        self.warnings: list[str] = []
        self.on_change: list[Callable[[], None]] = []
        """Called after each change of what `list` shows."""
        self._paths = paths
        self._instance = instance
        self._relay = relay
        self._tunnels = tunnels
        self._observers = observers
        self._resolver: Resolver | None = None
        self._written: dict[str, Entry] = {}
        self._save_is_due = False
        self._state_file = state.StateFile(paths.forwards_state, self._shown)

    def attach(self, resolver: Resolver) -> None:
        """Name the resolver that tells forwards what they lead to; it is made later."""
        self._resolver = resolver

    @property
    def resolver(self) -> Resolver:
        """What tells forwards where they lead to."""
        assert self._resolver is not None
        return self._resolver

    def restore(self) -> None:
        """Bring back the forwards of `config.yaml`, on the same ports; those of taken ports are FAILED.

        Raises `KecsError` when the file is of a newer version.
        """
        config, warnings = state.load(self._paths)
        self._take(config)
        self.warnings += warnings
        for warning in warnings:
            _log.warning("%s", warning)
        for entry in config.forwards:
            self.prepare(entry).restore()

    def close(self) -> None:
        """Write what is still to be written; the forwards stay in their file."""
        self._save_what_changed()
        self._state_file.close()
        for runner in self.runners.values():
            runner.close()

    # Who is there

    def find(self, forward: str) -> Runner:
        """Return one by id or name, or raise."""
        by_name = (one for one in self.runners.values() if one.entry.name == forward)
        runner = self.runners.get(forward) or next(by_name, None)
        if runner is None:
            names = ", ".join(f"`{one.entry.name}`" for one in self.sorted()[:10])
            raise KecsError(
                f"there is no forward `{forward}`",
                f"there are {names}" if names else "there is none; `kecs port-forward start` makes one",
                ExitCode.NOT_FOUND,
            )
        return runner

    def sorted(self) -> list[Runner]:
        """Return all, oldest first."""
        return sorted(self.runners.values(), key=lambda runner: runner.entry.created_at)

    def entries(self) -> list[Entry]:
        """Return the entries of all, oldest first."""
        return [runner.entry for runner in self.sorted()]

    def new_id(self) -> str:
        """Return an id that no forward has."""
        while (identity := f"pf-{secrets.token_hex(4)}") in self.runners:
            pass
        return identity

    # How they come and go

    def bind(
        self, wants: Sequence[Want], undo: contextlib.ExitStack, giving_up: Collection[str] = ()
    ) -> list[Place]:
        """Bind a port for each; `undo` closes them all.

        `giving_up` are the ids of forwards that will leave their ports. Raises `KecsError`, which names the
        holder of a port that is taken.
        """
        ours: dict[tuple[int, Protocol], list[Runner]] = {}
        for runner in self.runners.values():
            ours.setdefault((runner.entry.local_port, runner.entry.protocol), []).append(runner)
        given = {port for want in wants for port in (want.local_port, want.publish) if port is not None}
        avoid = given | (self.avoided_ports() if wants else set())
        places = []
        for want in wants:
            addresses = want.address or listener.default_addresses()
            if want.local_port is not None and _must_wait(want, addresses, ours, giving_up):
                places.append(Place(want.local_port, None))
                continue
            both = any(number == want.target_port for number, _ in ours) and (
                (want.target_port, want.protocol) not in ours
            )  # ours, but of the other protocol: a service's port in both may have one number here too
            port, sockets = ports.bind(
                addresses,
                want.local_port,
                want.target_port,
                avoid - {want.target_port} if both else avoid,
                udp=want.protocol == "udp",
            )
            for one in sockets:
                undo.callback(one.close)
            avoid.add(port)
            ours.setdefault((port, want.protocol), [])
            places.append(Place(port, sockets))
        return places

    def avoided_ports(self) -> set[int]:
        """Return the ports that must not be chosen: those of ours, and those that other instances name."""
        ours = {runner.entry.local_port for runner in self.runners.values()}
        ours |= {one.entry.publish for one in self.runners.values() if one.entry.publish is not None}
        if self.config.names is not None:
            ours.add(self.config.names.port)
        ours |= {one.kept_port for one in self.resolver.picture.services() if one.kept_port is not None}
        ours.add(self._instance.api_port)
        if self._instance.metrics_address is not None:
            ours.add(metrics_address.parse(self._instance.metrics_address).port)
        return ours | named_ports(self._paths.home, self._paths.name)

    def save_names(self, names: NamesEntry) -> None:
        """Write `config.yaml` with the port of the names."""
        config = msgspec.structs.replace(self.config, names=names)
        state.save(self._paths, config)
        self._take(config)

    def save(self, entries: Iterable[Entry], autos: list[AutoEntry] | None = None) -> None:
        """Write `config.yaml` with these forwards; `autos` None leaves them as they are."""
        config = msgspec.structs.replace(
            self.config, forwards=list(entries), autos=self.config.autos if autos is None else autos
        )
        state.save(self._paths, config)
        self._take(config)

    def begin(self, entry: Entry, sockets: ports.Sockets) -> Runner:
        """Have a forward that is written listen."""
        runner = self.prepare(entry)
        runner.adopt(sockets)
        self.resolver.add(runner)
        return runner

    def prepare(self, entry: Entry) -> Runner:
        """Make a forward that is written, and whose port is not free yet: `renew` makes it listen."""
        runner = self._make(entry)
        self.runners[entry.id] = runner
        return runner

    def drop(self, runners: Iterable[Runner]) -> None:
        """End forwards that are no longer written; ports are free after the relay loop's next answer."""
        for runner in runners:
            del self.runners[runner.id]
            runner.stop()
            self.resolver.forget(runner.id)
        self._told()

    def _make(self, entry: Entry) -> Runner:
        return Runner(
            entry,
            self._relay,
            addresses=entry.address or listener.default_addresses(),
            log_file=self._paths.forward_logs / f"{entry.name}.log",
            on_change=self._changed,
            on_state=self._state_changed,
            tunnels=self._tunnels,
        )

    # What changes by itself

    def _state_changed(self, runner: Runner, before: m.State, after: m.State, reason: str | None) -> None:
        for observer in self._observers:
            observer(runner, before, after, reason)

    def _changed(self, runner: Runner) -> None:
        """Note a change of a runner; one that ended, or chose its task, is not another after a restart."""
        self._told()
        if runner.id not in self.runners:
            return
        if runner.state is m.State.ENDED and runner.entry.ended is None:
            runner.entry = msgspec.structs.replace(runner.entry, ended=runner.reason)
        if self._written.get(runner.id) is not runner.entry and not self._save_is_due:
            self._save_is_due = True  # many may end at once
            asyncio.get_running_loop().call_soon(self._save_what_changed)

    def _save_what_changed(self) -> None:
        if not self._save_is_due:
            return
        self._save_is_due = False
        try:
            self.save(runner.entry for runner in self.runners.values())
        except KecsError as error:  # then it happens once more after a restart
            _log.warning("%s", error.message)

    def _take(self, config: Config) -> None:
        self.config = config
        self._written = {entry.id: entry for entry in config.forwards}

    def _told(self) -> None:
        self._state_file.touch()
        for tell in self.on_change:
            tell()

    def _shown(self) -> Sequence[rpc.ForwardRow]:
        return [runner.row() for runner in self.sorted()]


def _must_wait(
    want: Want,
    addresses: Sequence[str],
    ours: dict[tuple[int, Protocol], list[Runner]],
    giving_up: Collection[str],
) -> bool:
    """Tell whether the port is that of a forward which gives it up; raise when one of ours keeps it."""
    wait = False
    for runner in ours.get((want.local_port or 0, want.protocol), ()):
        if not collide(runner.addresses, addresses):
            continue
        if runner.id in giving_up:
            wait = True
        else:
            raise KecsError(
                f"port {want.local_port} belongs to the forward `{runner.entry.name}` "
                f"({runner.entry.target})",
                f"choose another, or `kecs port-forward stop {runner.entry.name}`",
                ExitCode.CONFLICT,
            )
    return wait
