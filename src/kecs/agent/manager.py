"""What is asked of the agent about forwards: start and stop, list, watch. The RPC's methods.

Starting and stopping go one at a time and in this order: decide, bind, write `config.yaml`, and only then
tell anybody. Whatever fails before the file is written leaves everything as it was. Files are
`kecs.agent.applier`'s work; both keep their forwards in `kecs.agent.book`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from kecs.agent import checks
from kecs.agent.applier import Applier, Asks
from kecs.agent.book import Book, Want
from kecs.agent.checks import Wish
from kecs.agent.feed import Feed, Tell
from kecs.agent.plan import New, plan
from kecs.agent.relay import Relay
from kecs.agent.resolver import Resolver
from kecs.agent.runner import OnState, Runner
from kecs.agent.state import Entry, NamesEntry
from kecs.agent.tunnels import Tunnels
from kecs.agent.waiting import wait_for_active
from kecs.client import published
from kecs.client import rpc_types as rpc
from kecs.client.endpoints import EndpointsLine
from kecs.client.instance import Instance
from kecs.errors import ExitCode, KecsError
from kecs.forward import machine as m
from kecs.paths import InstancePaths


class Manager:
    """The methods, over the book of forwards."""

    def __init__(
        self,
        paths: InstancePaths,
        instance: Instance,
        relay: Relay,
        ask: Asks,
        tunnels: Tunnels | None = None,
        observers: Sequence[OnState] = (),
    ) -> None:
        """`observers` are called at each change of a forward's state or its reason."""
        self.book = Book(paths, instance, relay, tunnels, observers)
        self._instance = instance
        self._relay = relay
        self._ask = ask
        self._one_at_a_time = asyncio.Lock()
        self.applier = Applier(self.book, instance, relay, ask, self._one_at_a_time)
        self._feed = Feed(self._all_rows)
        self.book.on_change.append(self._feed.touch)

    @property
    def runners(self) -> dict[str, Runner]:
        """The forwards by id; shared with the resolver."""
        return self.book.runners

    @property
    def warnings(self) -> list[str]:
        """What the person should know."""
        return self.book.warnings

    def attach(self, resolver: Resolver) -> None:
        """Name the resolver that tells forwards what they lead to; it is made after the manager."""
        self.book.attach(resolver)
        resolver.also(self.applier.auto_maker)

    def restore(self) -> None:
        """Bring back the forwards of `config.yaml`. Raises `KecsError` when it is of a newer version."""
        self.book.restore()

    async def end_tasks(self) -> None:
        """End what goes on by itself."""
        await self.applier.auto_maker.close()
        await self._feed.close()

    def close(self) -> None:
        """Write what is still to be written; the forwards stay in their file."""
        self.book.close()

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

    # What the port of all names needs (`kecs.agent.names`)

    @property
    def names_entry(self) -> NamesEntry | None:
        """What `config.yaml` keeps of it."""
        return self.book.config.names

    def keep_names(self, entry: NamesEntry) -> None:
        """Write it. Raises `KecsError` when that fails; nothing is changed then."""
        self.book.save_names(entry)

    def avoided_ports(self) -> set[int]:
        """Return the ports that must not be chosen."""
        return self.book.avoided_ports()

    # Methods of the RPC

    async def start(self, request: rpc.StartRequest) -> rpc.StartReply:
        """Start all forwards of the request, or none."""
        if not request.forwards:
            raise KecsError("no forward was asked for", "name a target", ExitCode.USAGE)
        for spec in request.forwards:
            checks.check_spec(spec)
            checks.check_route(spec, self._instance.runtime)
            published.check(spec.publish, self._instance)
        line = await self._ask()
        async with self._one_at_a_time:
            wishes = [checks.find(spec, line.targets, self._instance.region) for spec in request.forwards]
            if request.dry_run:
                plan(wishes, self.book.entries())
                return rpc.StartReply(forwards=[])
            started = self._start_all(wishes, line, request.owner)
        if request.wait is not None:
            await wait_for_active([runner for runner, _ in started], request.wait)
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
            book = self.book
            found = book.sorted() if request.all else [book.find(name) for name in request.forwards]
            runners = list(dict.fromkeys(found))
            rows = [runner.row(counters.get(runner.id)) for runner in runners]
            gone = {runner.id for runner in runners}
            autos = [] if request.all else self.applier.autos_without(runners)
            if gone or autos != book.config.autos:
                book.save((entry for entry in book.entries() if entry.id not in gone), autos)
            book.drop(runners)
            await self._relay.stats()  # the ports are free when the person hears of it
        return rpc.ForwardRows(forwards=rows, warnings=self.warnings)

    async def rows(self) -> rpc.ForwardRows:
        """List all forwards, oldest first."""
        return rpc.ForwardRows(forwards=await self._all_rows(), warnings=self.warnings)

    async def subscribe(self, tell: Tell) -> tuple[rpc.ForwardRows, Callable[[], None]]:
        """Begin to tell of all changes; return the rows of now, and how to leave."""
        rows, leave = await self._feed.subscribe(tell)
        return rpc.ForwardRows(forwards=rows, warnings=self.warnings), leave

    async def history(self, forward: str) -> rpc.HistoryReply:
        """Tell what happened to one forward, by id or name."""
        return rpc.HistoryReply(events=self.book.find(forward).events)

    async def export(self) -> rpc.ExportReply:
        """Return what the forwards were asked to be, oldest first, without those that have ended."""
        entries = [one.entry for one in self.book.sorted() if one.entry.ended is None]
        names = self.book.config.names
        return rpc.ExportReply(
            forwards=[entry.spec for entry in entries],
            names=names is not None and bool(names.owners),
        )

    async def get(self, forward: str) -> rpc.ForwardRow:
        """Show one forward by id or name."""
        counters = await self._relay.stats()
        runner = self.book.find(forward)
        return runner.row(counters.get(runner.id))

    def watch(
        self, forward: str, tell: Callable[[rpc.ConnectionEvent], None]
    ) -> tuple[rpc.ForwardRow, Callable[[], None]]:
        """Begin to tell of connections and states; return the row of now, and how to leave."""
        runner = self.book.find(forward)
        return runner.row(), runner.watch(tell)

    async def _all_rows(self) -> list[rpc.ForwardRow]:
        counters = await self._relay.stats()
        return [runner.row(counters.get(runner.id)) for runner in self.book.sorted()]

    # Starting

    def _start_all(
        self, wishes: Sequence[Wish], line: EndpointsLine, owner: str | None
    ) -> list[tuple[Runner, bool]]:
        """Decide, bind, write, tell. No await in here: nothing can come between, or cut it in two."""
        book = self.book
        planned = plan(wishes, book.entries())
        self._revive(self.runners[member.id] for member in planned if isinstance(member, Entry))
        new = list(dict.fromkeys(member for member in planned if isinstance(member, New)))
        with contextlib.ExitStack() as undo:
            places = book.bind([_want(member.wish) for member in new], undo)
            entries = {
                member: self._entry(member, place.port, owner)
                for member, place in zip(new, places, strict=True)
            }
            if new:
                book.save([*book.entries(), *entries.values()])
            undo.pop_all()
        book.resolver.learn(line)
        for member, place in zip(new, places, strict=True):
            assert place.sockets is not None, "nobody gives a port up"
            book.begin(entries[member], place.sockets)
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

    def _entry(self, member: New, port: int, owner: str | None) -> Entry:
        wish = member.wish
        return Entry.of(
            wish.spec,
            id=self.book.new_id(),
            name=member.name,
            region=wish.region,
            cluster=wish.cluster,
            service=wish.service,
            task_id=wish.task_id,
            local_port=port,
            target_port=wish.target_port,
            target_port_name=wish.target_port_name,
            protocol=wish.protocol,
            owner=owner,
            created_at=time.time(),
        )


def _want(wish: Wish) -> Want:
    return Want(wish.spec.address, wish.spec.local_port, wish.target_port, wish.protocol, wish.spec.publish)
