"""All forwards of the instance: a dictionary, and how its members come and go.

Starting and stopping go one at a time and in this order: decide, bind, write `config.yaml`, and only then
tell anybody. Whatever fails before the file is written leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

import msgspec

from kecs.agent import checks, ports, state
from kecs.agent.checks import Wish
from kecs.agent.plan import New, plan
from kecs.agent.relay import Relay
from kecs.agent.resolver import Resolver
from kecs.agent.runner import Runner
from kecs.agent.state import Entry
from kecs.agent.tunnels import Tunnels
from kecs.client import rpc_types as rpc
from kecs.client.endpoints import EndpointsLine
from kecs.client.instance import Instance
from kecs.client.ports import named_ports
from kecs.errors import ExitCode, KecsError
from kecs.forward import machine as m
from kecs.net import listener
from kecs.paths import InstancePaths

_log = logging.getLogger(__name__)


class Asks(Protocol):
    """How the manager asks for the endpoints of now; raises `KecsError` when nobody answers."""

    async def __call__(self) -> EndpointsLine:
        """Ask."""


class Manager:
    """The forwards, by id."""

    def __init__(
        self,
        paths: InstancePaths,
        instance: Instance,
        relay: Relay,
        ask: Asks,
        tunnels: Tunnels | None = None,
    ) -> None:
        self.runners: dict[str, Runner] = {}
        """Shared with the resolver."""
        self.warnings: list[str] = []
        self._paths = paths
        self._instance = instance
        self._relay = relay
        self._ask = ask
        self._tunnels = tunnels
        self._resolver: Resolver | None = None
        self._one_at_a_time = asyncio.Lock()
        self._save_is_due = False
        self._config = state.Config(forwards=[])
        self._state_file = state.StateFile(paths.forwards_state, self._shown)

    def attach(self, resolver: Resolver) -> None:
        """Name the resolver that tells forwards what they lead to; it is made after the manager."""
        self._resolver = resolver

    def restore(self) -> None:
        """Bring back the forwards of `config.yaml`, on the same ports; those of taken ports are FAILED.

        Raises `KecsError` when the file is of a newer version.
        """
        self._config, warnings = state.load(self._paths)
        self.warnings += warnings
        for warning in warnings:
            _log.warning("%s", warning)
        for entry in self._config.forwards:
            runner = self._make(entry)
            self.runners[entry.id] = runner
            runner.restore()

    def close(self) -> None:
        """Write what is still to be written; the forwards stay in their file."""
        if self._save_is_due:
            self._save_ended()
        self._state_file.close()
        for runner in self.runners.values():
            runner.close()

    def handler(self, method: Callable[[Runner, Any], None]) -> Callable[[Any], None]:
        """Return a function that hands a message of the relay loop to the runner that it names."""

        def handle(message: Any) -> None:
            runner = self.runners.get(message.forward)
            if runner is not None:
                method(runner, message)

        return handle

    def tunnels_changed(self, forwards: Collection[str]) -> None:
        """Tell these forwards that a tunnel of theirs works again, or fails for another reason."""
        for forward in list(forwards):
            if runner := self.runners.get(forward):
                runner.tunnels_changed()

    # Methods of the RPC

    async def start(self, request: rpc.StartRequest) -> rpc.StartReply:
        """Start all forwards of the request, or none."""
        if not request.forwards:
            raise KecsError("no forward was asked for", "name a target", ExitCode.USAGE)
        for spec in request.forwards:
            checks.check_spec(spec)
            checks.check_route(spec, self._instance.runtime)
        line = await self._ask()
        async with self._one_at_a_time:
            wishes = [checks.find(spec, line.targets, self._instance.region) for spec in request.forwards]
            started = self._start_all(wishes, line, request.owner)
        if request.wait is not None:
            await _wait_for_active([runner for runner, _ in started], request.wait)
        counters = await self._relay.stats()
        return rpc.StartReply(
            forwards=[
                rpc.Started(forward=runner.row(counters.get(runner.id)), created=created)
                for runner, created in started
            ]
        )

    async def stop(self, request: rpc.StopRequest) -> rpc.ForwardRows:
        """Stop forwards and forget them: all that are named, or none. Returns them as they were."""
        if not request.forwards and not request.all:
            raise KecsError(
                "no forward was named", "name forwards by id or name, or give `--all`", ExitCode.USAGE
            )
        async with self._one_at_a_time:
            counters = await self._relay.stats()
            found = self._sorted() if request.all else [self._find(name) for name in request.forwards]
            runners = list(dict.fromkeys(found))
            rows = [runner.row(counters.get(runner.id)) for runner in runners]
            gone = {runner.id for runner in runners}
            if gone:
                self._save(runner.entry for runner in self.runners.values() if runner.id not in gone)
            for runner in runners:
                del self.runners[runner.id]
                runner.stop()
                self._attached.forget(runner.id)
            await self._relay.stats()  # the ports are free when the person hears of it
        return rpc.ForwardRows(forwards=rows, warnings=self.warnings)

    async def rows(self) -> rpc.ForwardRows:
        """List all forwards, oldest first."""
        counters = await self._relay.stats()
        return rpc.ForwardRows(
            forwards=[runner.row(counters.get(runner.id)) for runner in self._sorted()],
            warnings=self.warnings,
        )

    async def get(self, forward: str) -> rpc.ForwardRow:
        """Show one forward by id or name."""
        counters = await self._relay.stats()
        runner = self._find(forward)
        return runner.row(counters.get(runner.id))

    def watch(
        self, forward: str, tell: Callable[[rpc.ConnectionEvent], None]
    ) -> tuple[rpc.ForwardRow, Callable[[], None]]:
        """Begin to tell of connections and states; return the row of now, and how to leave."""
        runner = self._find(forward)
        return runner.row(), runner.watch(tell)

    # Starting

    def _start_all(
        self, wishes: Sequence[Wish], line: EndpointsLine, owner: str | None
    ) -> list[tuple[Runner, bool]]:
        """Decide, bind, write, tell. No await in here: nothing can come between, or cut it in two."""
        planned = plan(wishes, [runner.entry for runner in self._sorted()])
        self._revive(self.runners[member.id] for member in planned if isinstance(member, Entry))
        new = list(dict.fromkeys(member for member in planned if isinstance(member, New)))
        with contextlib.ExitStack() as undo:
            bound = self._bind_all(new, undo)
            entries = {
                member: self._entry(member, port, owner) for member, (port, _) in zip(new, bound, strict=True)
            }
            if new:
                self._save([*(runner.entry for runner in self.runners.values()), *entries.values()])
            undo.pop_all()
        self._attached.learn(line)
        for member, (_, sockets) in zip(new, bound, strict=True):
            self._begin(entries[member], sockets)
        begun: list[tuple[Runner, bool]] = []
        for each in planned:
            runner = self.runners[entries[each].id if isinstance(each, New) else each.id]
            first = isinstance(each, New) and all(runner is not other for other, _ in begun)
            begun.append((runner, first))
        return begun

    def _revive(self, runners: Iterable[Runner]) -> None:
        """Try again those that are FAILED; raise when their ports are still taken."""
        for runner in runners:
            runner.retry()
            if runner.state is m.State.FAILED:
                raise KecsError(
                    f"the forward `{runner.entry.name}` is FAILED: {runner.reason}",
                    "end what holds the port, or stop the forward and start it on another",
                    ExitCode.CONFLICT,
                )

    def _bind_all(self, new: Sequence[New], undo: contextlib.ExitStack) -> list[tuple[int, ports.Sockets]]:
        """Bind a port for each; `undo` closes them all."""
        given = [member.wish.spec.local_port for member in new]
        avoid = {runner.entry.local_port for runner in self.runners.values()}
        avoid |= {port for port in given if port is not None}
        avoid |= named_ports(self._paths.home, self._paths.name) | {self._instance.api_port}
        bound = []
        for member, port in zip(new, given, strict=True):
            addresses = member.wish.spec.address or listener.default_addresses()
            if port is not None:
                self._check_not_ours(port, addresses)
            taken, sockets = ports.bind(addresses, port, member.wish.target_port, avoid)
            for one in sockets:
                undo.callback(one.close)
            avoid.add(taken)
            bound.append((taken, sockets))
        return bound

    def _check_not_ours(self, port: int, addresses: Sequence[str]) -> None:
        for runner in self.runners.values():
            if runner.entry.local_port == port and set(runner.addresses) & set(addresses):
                raise KecsError(
                    f"port {port} belongs to the forward `{runner.entry.name}` ({runner.entry.target})",
                    f"choose another, or `kecs port-forward stop {runner.entry.name}`",
                    ExitCode.CONFLICT,
                )

    def _entry(self, member: New, port: int, owner: str | None) -> Entry:
        wish, spec = member.wish, member.wish.spec
        return Entry(
            id=self._new_id(),
            name=member.name,
            type=spec.target.type,
            region=wish.region,
            cluster=wish.cluster,
            service=wish.service,
            task_id=wish.task_id,
            local_port=port,
            target_port=wish.target_port,
            target_port_name=wish.target_port_name,
            address=spec.address,
            route=spec.route,
            hold_seconds=spec.hold_seconds,
            hold_connections=spec.hold_connections,
            owner=owner,
            created_at=time.time(),
        )

    def _begin(self, entry: Entry, sockets: ports.Sockets) -> None:
        runner = self._make(entry)
        self.runners[entry.id] = runner
        runner.adopt(sockets)
        self._attached.add(runner)

    def _make(self, entry: Entry) -> Runner:
        return Runner(
            entry,
            self._relay,
            addresses=entry.address or listener.default_addresses(),
            log_file=self._paths.forward_logs / f"{entry.name}.log",
            on_change=self._changed,
            tunnels=self._tunnels,
        )

    # The dictionary

    @property
    def _attached(self) -> Resolver:
        assert self._resolver is not None
        return self._resolver

    def _find(self, forward: str) -> Runner:
        by_name = (one for one in self.runners.values() if one.entry.name == forward)
        runner = self.runners.get(forward) or next(by_name, None)
        if runner is None:
            names = ", ".join(f"`{one.entry.name}`" for one in self._sorted()[:10])
            raise KecsError(
                f"there is no forward `{forward}`",
                f"there are {names}" if names else "there is none; `kecs port-forward start` makes one",
                ExitCode.NOT_FOUND,
            )
        return runner

    def _sorted(self) -> list[Runner]:
        return sorted(self.runners.values(), key=lambda runner: runner.entry.created_at)

    def _shown(self) -> Sequence[rpc.ForwardRow]:
        return [runner.row() for runner in self._sorted()]

    def _new_id(self) -> str:
        while (identity := f"pf-{secrets.token_hex(4)}") in self.runners:
            pass
        return identity

    def _save(self, entries: Iterable[Entry]) -> None:
        config = msgspec.structs.replace(self._config, forwards=list(entries))
        state.save(self._paths, config)
        self._config = config

    def _changed(self, runner: Runner) -> None:
        """Note a change of a runner; one that ended is not to be listened for after a restart."""
        self._state_file.touch()
        if runner.state is m.State.ENDED and runner.entry.ended is None and runner.id in self.runners:
            runner.entry = msgspec.structs.replace(runner.entry, ended=runner.reason)
            if not self._save_is_due:  # many may end at once
                self._save_is_due = True
                asyncio.get_running_loop().call_soon(self._save_ended)

    def _save_ended(self) -> None:
        if not self._save_is_due:
            return
        self._save_is_due = False
        try:
            self._save(runner.entry for runner in self.runners.values())
        except KecsError as error:  # then they end once more after a restart
            _log.warning("%s", error.message)


async def _wait_for_active(runners: Sequence[Runner], seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for runner in runners:
                while runner.state not in (m.State.ACTIVE, m.State.ENDED):
                    await runner.change()
    for runner in runners:
        if runner.state is not m.State.ACTIVE:
            why = f": {runner.reason}" if runner.reason else ""
            when = "" if runner.state is m.State.ENDED else f" after {seconds:g} s"
            name = runner.entry.name
            raise KecsError(
                f"the forward `{name}` is {runner.state.value}{when}{why}",
                f"it stays, on port {runner.entry.local_port}; end it by `kecs port-forward stop {name}`",
            )
