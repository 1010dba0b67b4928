"""Files of forwards: making what exists be what a file says, and the forwards of `auto: true`.

`kecs.forward.apply` decides what is to be done, `kecs.agent.book` knows how; in here a plan becomes one
change of `config.yaml`, and then of what listens. A forward that is changed keeps its listener unless its
port or address is another one. What a file names need not exist: its forward waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from kecs.agent import autos, checks, ports
from kecs.agent.automaker import AutoMaker
from kecs.agent.book import Book, Place, Want
from kecs.agent.file_plan import entry_of, existing_of, file_plan
from kecs.agent.relay import Relay
from kecs.agent.runner import Runner
from kecs.agent.state import AutoEntry, Entry
from kecs.agent.waiting import wait_for_active
from kecs.client import published
from kecs.client import rpc_types as rpc
from kecs.client.endpoints import EndpointsLine
from kecs.client.instance import Instance
from kecs.errors import KecsError
from kecs.forward.apply import Step, plan
from kecs.forward.ports import port_text
from kecs.net import listener


class Asks(Protocol):
    """How to ask for the endpoints of now; raises `KecsError` when nobody answers."""

    async def __call__(self) -> EndpointsLine:
        """Ask."""


class OpensNames(Protocol):
    """What is needed of `kecs.agent.names.NamesPort`."""

    @property
    def port(self) -> int | None:
        """The port; None when it is closed."""

    def open(self, owner: str) -> int | None:
        """Have it open for this file."""

    def close(self, owner: str) -> int | None:
        """Have it open for this file no more."""


@dataclass(frozen=True, slots=True)
class _Work:
    """A plan whose ports are bound and which is written."""

    steps: Sequence[Step]
    entries: dict[str, Entry]
    """What each name will be."""
    places: dict[str, Place]
    """Where those will listen that begin, or begin anew."""


class Applier:
    """The methods about files."""

    def __init__(
        self, book: Book, instance: Instance, relay: Relay, ask: Asks, one_at_a_time: asyncio.Lock
    ) -> None:
        """`one_at_a_time` is held while forwards come and go."""
        self.names: OpensNames | None = None
        """Set by the daemon."""
        self._book = book
        self._instance = instance
        self._relay = relay
        self._ask = ask
        self._one_at_a_time = one_at_a_time
        self.auto_maker = AutoMaker(book, instance.region, self._perform_for, one_at_a_time)

    # Methods of the RPC

    async def apply(self, request: rpc.ApplyRequest) -> rpc.ApplyReply:
        """Make the forwards of a file be what it says, all or none of it; touch no others."""
        for spec in request.forwards:
            checks.check_file_spec(spec)
            checks.check_route(spec, self._instance.runtime)
            published.check(spec.publish, self._instance)
        line = await self._ask()
        async with self._one_at_a_time:
            steps = file_plan(request, self._book.entries(), line.targets, self._instance.region)
            gone = {step.existing.id for step in steps if step.sign == "-" and step.existing}
            before = await self._rows(gone) if gone or request.dry_run else {}
            warnings: list[str] = []
            if not request.dry_run:
                await self._carry_out(steps, request.owner, self._autos(request), line)
                warnings += self._open_names(request)
        return await self._reply(steps, request, before, warnings)

    async def down(self, request: rpc.DownRequest) -> rpc.ForwardRows:
        """Stop all forwards of a file, its `auto` and its names. Returns the forwards as they were."""
        async with self._one_at_a_time:
            existing = [existing_of(one) for one in self._book.entries() if one.owner == request.owner]
            rows = await self._rows({one.id for one in existing})
            steps = plan(request.owner, [], existing, region=self._instance.region).steps
            others = [auto for auto in self._book.config.autos if auto.owner != request.owner]
            await self._carry_out(steps, request.owner, others, None)
            warnings = self._close_names(request.owner)
            await self._relay.stats()  # the ports are free when the person hears of it
        return rpc.ForwardRows(
            forwards=[rows[one.id] for one in existing], warnings=[*self._book.warnings, *warnings]
        )

    def autos_without(self, runners: Iterable[Runner]) -> list[AutoEntry]:
        """Return the `auto` of all files, when a person stops these forwards: they are not made again."""
        stopped: dict[str | None, list[str]] = {}
        for runner in runners:
            if runner.entry.auto:
                stopped.setdefault(runner.entry.owner, []).append(autos.text_of(autos.key_of(runner.entry)))
        return [
            msgspec.structs.replace(auto, stopped=[*auto.stopped, *stopped.get(auto.owner, [])])
            for auto in self._book.config.autos
        ]

    # What is to be done

    def _autos(self, request: rpc.ApplyRequest) -> list[AutoEntry]:
        others = [auto for auto in self._book.config.autos if auto.owner != request.owner]
        if request.auto is None:
            return others
        return [*others, AutoEntry(owner=request.owner, spec=request.auto)]

    # How it is done

    async def _carry_out(
        self, steps: Sequence[Step], owner: str, new_autos: list[AutoEntry], line: EndpointsLine | None
    ) -> None:
        work = self._write(steps, owner, new_autos)
        if line is not None:
            self._book.resolver.learn(line)
        await self._perform(work)

    async def _perform_for(self, steps: Sequence[Step], owner: str) -> None:
        await self._carry_out(steps, owner, self._book.config.autos, None)

    def _write(self, steps: Sequence[Step], owner: str, new_autos: list[AutoEntry]) -> _Work:
        """Bind what can be bound, write all; nobody notices anything before that."""
        book = self._book
        leaving = {step.existing.id for step in steps if step.existing and (step.sign == "-" or step.rebinds)}
        binding = [step for step in steps if step.rebinds]
        with contextlib.ExitStack() as undo:
            bound = book.bind([_want(step) for step in binding], undo, leaving)
            places = {step.name: place for step, place in zip(binding, bound, strict=True)}
            entries = self._entries(steps, owner, places)
            if any(step.sign != "=" for step in steps) or new_autos != book.config.autos:
                changed = {entry.id for entry in entries.values()} | {
                    step.existing.id for step in steps if step.existing
                }
                others = [entry for entry in book.entries() if entry.id not in changed]
                book.save([*others, *entries.values()], new_autos)
            undo.pop_all()
        return _Work(steps, entries, places)

    def _entries(self, steps: Sequence[Step], owner: str, places: dict[str, Place]) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for step in steps:
            if step.sign == "-":
                continue
            old = self._book.runners[step.existing.id].entry if step.existing else None
            if step.sign == "=" and old is not None:
                entries[step.name] = old
                continue
            port = places[step.name].port if step.name in places else step.spec.local_port
            assert port is not None, "one that exists has a port"
            entries[step.name] = entry_of(step, owner, port, self._book.new_id(), old)
        return entries

    async def _perform(self, work: _Work) -> None:
        """Make what listens be what is written; every runner is as written before anything is awaited."""
        book = self._book
        book.drop(book.runners[step.existing.id] for step in work.steps if step.sign == "-" and step.existing)
        later: list[tuple[Runner, ports.Sockets | None]] = []
        for step in work.steps:
            if step.sign == "-":
                continue
            entry = work.entries[step.name]
            place = work.places.get(step.name)
            if step.existing is None:
                later.append((book.prepare(entry), place.sockets if place else None))
                continue
            runner = book.runners[step.existing.id]
            if place is not None:
                runner.leave_port(entry, entry.address or listener.default_addresses())
                later.append((runner, place.sockets))
            elif step.sign == "~":
                runner.become(entry, [str(change) for change in step.changes])
                book.resolver.add(runner)
            else:
                runner.retry()
        try:
            if any(sockets is None for _, sockets in later):
                await self._relay.stats()  # ports that were given up are free then
        finally:  # they are written: without an answer, one whose port is not free yet tries again by itself
            for runner, sockets in later:
                runner.renew(sockets)
                book.resolver.add(runner)

    # Names

    def _open_names(self, request: rpc.ApplyRequest) -> list[str]:
        """Open or close the port of all names for the file; one that cannot be had is a warning."""
        if not request.names:
            return self._close_names(request.owner)
        if self.names is None:
            return []
        try:
            self.names.open(request.owner)
        except KecsError as error:
            return [f"names are not served: {error.message}"]
        return []

    def _close_names(self, owner: str) -> list[str]:
        kept = self._book.config.names
        if self.names is None or kept is None or owner not in kept.owners:
            return []
        try:
            self.names.close(owner)
        except KecsError as error:
            return [f"names go on being served: {error.message}"]
        return []

    # What is answered

    async def _rows(self, forwards: Iterable[str]) -> dict[str, rpc.ForwardRow]:
        counters = await self._relay.stats()
        return {one: self._book.runners[one].row(counters.get(one)) for one in forwards}

    async def _reply(
        self,
        steps: Sequence[Step],
        request: rpc.ApplyRequest,
        before: dict[str, rpc.ForwardRow],
        warnings: list[str],
    ) -> rpc.ApplyReply:
        counters = await self._relay.stats()
        by_name = {runner.entry.name: runner for runner in self._book.runners.values()}
        runners = [by_name[step.name] for step in steps if step.sign != "-" and step.name in by_name]
        if request.wait is not None and not request.dry_run:
            await wait_for_active(runners, request.wait)
            counters = await self._relay.stats()
        answered = []
        for step in steps:
            row = before.get(step.existing.id) if step.existing else None
            if step.sign != "-" and (runner := by_name.get(step.name)) is not None:
                row = runner.row(counters.get(runner.id))
            answered.append(
                rpc.Step(
                    sign=step.sign,
                    name=step.name,
                    target=f"{step.spec.target}:{port_text(step.spec.target_port, step.spec.protocol)}",
                    changes=[str(change) for change in step.changes],
                    forward=row,
                )
            )
        port = self.names.port if self.names is not None else None
        return rpc.ApplyReply(steps=answered, names_port=port, warnings=[*self._book.warnings, *warnings])


def _want(step: Step) -> Want:
    wanted = step.spec.target_port
    number = wanted if isinstance(wanted, int) else 0
    return Want(
        step.spec.address, step.spec.local_port, number, step.spec.protocol or "tcp", step.spec.publish
    )
