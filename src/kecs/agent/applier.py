"""Files of forwards: making what exists be what a file says, and the forwards of `auto: true`.

`kecs.forward.apply` decides what is to be done, `kecs.agent.book` knows how; in here a plan becomes one
change of `config.yaml`, and then of what listens. A forward that is changed keeps its listener unless its
port or address is another one. What a file names need not exist: its forward waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from kecs import aio
from kecs.agent import autos, checks, ports
from kecs.agent.book import Book, Place, Want
from kecs.agent.picture import Changes
from kecs.agent.relay import Relay
from kecs.agent.runner import Runner
from kecs.agent.state import AutoEntry, Entry
from kecs.agent.waiting import wait_for_active
from kecs.client import rpc_types as rpc
from kecs.client.endpoints import EndpointsLine, Target
from kecs.client.instance import Instance
from kecs.errors import ExitCode, KecsError
from kecs.forward.apply import Existing, Step, plan
from kecs.forward.spec import ForwardSpec
from kecs.net import listener

_log = logging.getLogger(__name__)


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
    """The methods about files; a follower of the endpoints for `auto: true`."""

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
        self._making: asyncio.Task[None] | None = None

    # Methods of the RPC

    async def apply(self, request: rpc.ApplyRequest) -> rpc.ApplyReply:
        """Make the forwards of a file be what it says, all or none of it; touch no others."""
        for spec in request.forwards:
            checks.check_file_spec(spec)
            checks.check_route(spec, self._instance.runtime)
        line = await self._ask()
        async with self._one_at_a_time:
            steps = self._plan(request, line.targets)
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
            existing = [one for one in self._existing() if one.owner == request.owner]
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

    def _existing(self) -> list[Existing]:
        return [
            Existing(entry.id, entry.spec, entry.owner, entry.auto, entry.ended)
            for entry in self._book.entries()
        ]

    def _plan(self, request: rpc.ApplyRequest, targets: Sequence[Target]) -> list[Step]:
        """Return the steps; raise when something is in the way."""
        region = self._instance.region
        wanted = [checks.with_whole_task_id(spec, targets, region) for spec in request.forwards]
        existing = self._existing()
        yielding = [one for one in existing if _yields(one, wanted, request.owner, region)]
        planned = plan(
            request.owner,
            wanted,
            [one for one in existing if one not in yielding],
            region=region,
            auto=request.auto,
        )
        if planned.conflicts:
            first, *more = planned.conflicts
            also = "".join(f"; {one.message}" for one in more)
            raise KecsError(f"{first.message}{also}", first.hint, ExitCode.CONFLICT)
        for step in planned.steps:
            if step.sign in ("+", "~"):
                checks.check_strict(step.spec, targets, region)
        steps = [step for step in planned.steps if step.sign != "-"]
        ending = [step for step in planned.steps if step.sign == "-"]
        ending += [Step("-", one.name, one.spec, one) for one in yielding]
        if request.auto is not None:
            steps += self._new_autos(
                AutoEntry(owner=request.owner, spec=request.auto), steps, ending, targets
            )
        return [*steps, *ending]

    def _new_autos(
        self, auto: AutoEntry, steps: Sequence[Step], ending: Sequence[Step], targets: Sequence[Target]
    ) -> list[Step]:
        """Return a step for each forward that `auto` is for and that does not exist."""
        gone = {step.name for step in ending}
        taken = {entry.name for entry in self._book.entries()} - gone | {step.name for step in steps}
        there = [_entry(step, auto.owner, step.spec.local_port or 1, "pf-00000000") for step in steps]
        specs = autos.missing(auto, self._instance.region, targets, there, taken)
        return [Step("+", spec.name or "", spec, auto=True) for spec in specs]

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
            entries[step.name] = _entry(step, owner, port, self._book.new_id(), old)
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
        if any(sockets is None for _, sockets in later):
            await self._relay.stats()  # ports that were given up are free then
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
                    target=f"{step.spec.target}:{step.spec.target_port}",
                    changes=[str(change) for change in step.changes],
                    forward=row,
                )
            )
        port = self.names.port if self.names is not None else None
        return rpc.ApplyReply(steps=answered, names_port=port, warnings=[*self._book.warnings, *warnings])

    # `auto: true` while services come and go

    @property
    def named(self) -> Mapping[str, Runner]:
        """What leads to endpoints beside the book's forwards: nothing (`kecs.agent.resolver.Follows`)."""
        return {}

    def follow(self, changes: Changes | None) -> None:
        """Take that the endpoints have changed: services may have appeared."""
        if not self._book.config.autos or (self._making is not None and not self._making.done()):
            return
        clusters = {cluster for auto in self._book.config.autos for cluster in auto.spec.clusters}
        if changes is None or any(key[2] is not None and key[1] in clusters for key in changes.targets):
            self._making = aio.create_task(self._make_autos(), name="make the forwards of `auto: true`")

    async def _make_autos(self) -> None:
        async with self._one_at_a_time:
            for auto in list(self._book.config.autos):
                entries = self._book.entries()
                ours = [entry for entry in entries if entry.owner == auto.owner]
                specs = autos.missing(
                    auto,
                    self._instance.region,
                    self._book.resolver.picture.services(),
                    ours,
                    {entry.name for entry in entries},
                )
                if not specs:
                    continue
                steps = [Step("+", spec.name or "", spec, auto=True) for spec in specs]
                try:
                    await self._perform(self._write(steps, auto.owner, self._book.config.autos))
                except KecsError as error:  # tried again when the endpoints change
                    _log.warning(
                        "no forward for %s: %s", ", ".join(step.name for step in steps), error.message
                    )

    async def close(self) -> None:
        """Make no more."""
        if self._making is not None:
            await aio.cancel(self._making)


def _yields(one: Existing, wanted: Sequence[ForwardSpec], owner: str, region: str) -> bool:
    """Tell whether a forward of `auto` makes way for one that the file itself names now.

    It leads to the same service, or has the port that the file asks for; in the latter case another is made.
    """
    if not one.auto or one.owner != owner or any(spec.name == one.name for spec in wanted):
        return False
    target = one.spec.target
    return any(
        spec.local_port == one.spec.local_port
        or (spec.target.cluster, spec.target.service, spec.target.region or region)
        == (target.cluster, target.service, target.region)
        for spec in wanted
    )


def _want(step: Step) -> Want:
    wanted = step.spec.target_port
    return Want(step.spec.address, step.spec.local_port, wanted if isinstance(wanted, int) else 0)


def _entry(step: Step, owner: str, port: int, identity: str, old: Entry | None = None) -> Entry:
    """Return what `config.yaml` shall say of a forward that is new or changed."""
    spec, target = step.spec, step.spec.target
    number = spec.target_port if isinstance(spec.target_port, int) else None
    entry = Entry(
        id=old.id if old else identity,
        name=step.name,
        type=target.type,
        region=target.region or "",
        cluster=target.cluster,
        service=target.service,
        task_id=target.task,
        tags=target.tags,
        local_port=port,
        target_port=number,
        target_port_name=spec.target_port if isinstance(spec.target_port, str) else None,
        address=spec.address,
        route=spec.route,
        hold_seconds=spec.hold_seconds,
        hold_connections=spec.hold_connections,
        auto_reconnect=spec.auto_reconnect,
        retry=spec.retry,
        probe=spec.probe,
        notify=spec.notify,
        strict=spec.strict,
        owner=owner,
        auto=step.auto,
        created_at=old.created_at if old else time.time(),
    )
    if old is None or not old.is_pinned or old.ended is not None:
        return entry
    same = old.spec.target == target and not old.auto_reconnect and not entry.auto_reconnect
    return msgspec.structs.replace(entry, task_id=old.task_id) if same else entry
