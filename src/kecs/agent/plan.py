"""What a `forward.start` means beside the forwards that exist: the same one, a new one, or a conflict.

No I/O in here; the manager binds and writes what is planned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from kecs.agent.checks import Wish
from kecs.agent.state import Entry
from kecs.errors import ExitCode, KecsError
from kecs.forward import addresses
from kecs.forward.spec import (
    HOLD_CONNECTIONS,
    HOLD_SECONDS,
    IDLE_SECONDS,
    ForwardSpec,
    Retry,
    Target,
    default_name,
)


@dataclass(frozen=True, slots=True, eq=False)
class New:
    """A forward to be: its wish, and the name that it will have. One that is named twice is one."""

    wish: Wish
    name: str


def plan(wishes: Sequence[Wish], existing: Sequence[Entry]) -> list[Entry | New]:
    """For each wish: the forward that does it already, or a new one. Raises `KecsError` (exit 4)."""
    planned: list[Entry | New] = []
    taken = {entry.name for entry in existing} | {wish.spec.name for wish in wishes if wish.spec.name}
    for wish in wishes:
        member = _same_as(wish, existing) or _planned(wish, planned)
        if member is None:
            target = msgspec.structs.replace(wish.spec.target, task=wish.task_id)  # the whole id
            member = New(wish, wish.spec.name or default_name(target, taken))
            taken.add(member.name)
            _check_ports(member, [*existing, *(one for one in planned if isinstance(one, New))])
        planned.append(member)
    return planned


def _same_as(wish: Wish, existing: Iterable[Entry]) -> Entry | None:
    """Return the forward that `wish` names, or without a name the first one that does what it asks."""
    name = wish.spec.name
    for entry in existing:
        same = entry.ended is None and _does(entry, wish)
        if name is None and same:
            return entry
        if name is not None and entry.name == name:
            if same:
                return entry
            raise _name_taken(entry)
    return None


def _check_ports(member: New, others: Iterable[Entry | New]) -> None:
    """Refuse a port that Docker holds for another forward, or shall hold and another one listens on.

    What two forwards want to listen on is found by binding it.
    """
    mine = member.wish.spec
    for other in others:
        theirs = other.wish.spec if isinstance(other, New) else other.spec
        free = isinstance(other, Entry) and other.ended is not None  # it does not listen
        wanted = mine.publish is not None and (
            mine.publish == theirs.publish or (not free and _listens(theirs, mine.publish))
        )
        if wanted or (theirs.publish is not None and _listens(mine, theirs.publish)):
            port = mine.publish if wanted else theirs.publish
            raise KecsError(
                f"port {port} belongs to the forward `{other.name}`",
                f"choose another, or `kecs port-forward stop {other.name}`",
                ExitCode.CONFLICT,
            )


def _listens(spec: ForwardSpec, port: int) -> bool:
    """Tell whether the forward is to listen where Docker publishes `port`."""
    return spec.local_port == port and addresses.collide(spec.address, addresses.PUBLISHED)


def _planned(wish: Wish, planned: Iterable[Entry | New]) -> New | None:
    """Return what the same request asks for already."""
    for member in planned:
        if not isinstance(member, New):
            continue
        other = member.wish
        same_name = wish.spec.name == other.spec.name
        same_way = _asked(wish) == _asked(other)
        if wish.key == other.key and same_way and same_name:
            return member
        if wish.spec.name is not None and same_name:
            raise KecsError(
                f"two forwards of this request are called `{wish.spec.name}`",
                "give each a name of its own",
                ExitCode.CONFLICT,
            )
    return None


def _asked(wish: Wish) -> ForwardSpec:
    """Return what was asked for beside the name and the target."""
    return msgspec.structs.replace(wish.spec, name=None, target=Target(type="service"), target_port=None)


def _does(entry: Entry, wish: Wish) -> bool:
    """Tell whether the forward does all that the wish says; what it leaves open is no difference."""
    spec = wish.spec
    asked = entry.spec.target.task  # not the task that it chose
    tags = frozenset(entry.tags.items())
    port = entry.target_port
    if port is None and entry.target_port_name == wish.target_port_name:  # of a file: by its name only
        port = wish.target_port
    key = (entry.region, entry.cluster, entry.service, asked, tags, port, entry.protocol)
    return (
        key == wish.key
        and spec.auto_reconnect == entry.auto_reconnect
        and spec.strict == entry.strict
        and spec.retry in (Retry(), entry.retry)
        and spec.probe in (None, entry.probe)
        and spec.notify in (None, entry.notify)
        and spec.publish in (None, entry.publish)
        and spec.local_port in (None, entry.local_port)
        and spec.address in ([], entry.address)
        and spec.route in ("auto", entry.route)
        and spec.hold_seconds in (HOLD_SECONDS, entry.hold_seconds)
        and spec.hold_connections in (HOLD_CONNECTIONS, entry.hold_connections)
        and spec.idle_seconds in (IDLE_SECONDS, entry.idle_seconds)
    )


def _name_taken(entry: Entry) -> KecsError:
    now = f"{entry.target}:{entry.port_text} on port {entry.local_port}"
    ended = ", which ended" if entry.ended else ""
    return KecsError(
        f"the name `{entry.name}` is taken by a forward to {now}{ended}",
        f"choose another `--name`, or `kecs port-forward stop {entry.name}`",
        ExitCode.CONFLICT,
    )
