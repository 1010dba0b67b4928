"""What it takes to make the forwards of a file be what the file says.

The agent calls it for `forward.apply` and `forward.down`: specs and the forwards that exist in, a plan out.
Only forwards of that file are in the plan; those made by hand and those of other files can only be in its
way, and then nothing is done at all (docs/design/contracts.md, section 6). Nothing is bound or written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from kecs.forward import addresses
from kecs.forward.changes import Change, changes
from kecs.forward.spec import HOLD_CONNECTIONS, HOLD_SECONDS, IDLE_SECONDS, AutoSpec, ForwardSpec, Protocol

Sign = Literal["+", "~", "=", "-"]


@dataclass(frozen=True, slots=True)
class Existing:
    """A forward that exists, as far as a plan looks at it."""

    id: str
    spec: ForwardSpec
    """With its name, its local port and its region."""
    owner: str | None = None
    """Real path of the file that defines it; None: by hand."""
    auto: bool = False
    """`auto: true` of the file made it."""
    ended: str | None = None
    """Why it ended."""

    @property
    def name(self) -> str:
        """Its name."""
        assert self.spec.name is not None
        return self.spec.name


@dataclass(frozen=True, slots=True)
class Step:
    """What is done with one forward: `+` started, `~` changed, `=` kept, `-` stopped."""

    sign: Sign
    name: str
    spec: ForwardSpec
    """What it shall be, its local port as it is when the file leaves it open; for a `-`, what it was."""
    existing: Existing | None = None
    """None for a `+`."""
    changes: tuple[Change, ...] = ()
    auto: bool = False
    """Whether it is one of `auto: true` afterwards."""

    @property
    def rebinds(self) -> bool:
        """Tell whether its listener must be opened, or opened anew."""
        if self.sign == "+" or (self.existing is not None and self.existing.ended is not None):
            return self.sign in ("+", "~")
        return any(change.key in ("localPort", "address", "protocol") for change in self.changes)


@dataclass(frozen=True, slots=True)
class Conflict:
    """What is in the way of a plan, and what a person can do about it."""

    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order of the file, then those of `auto`, then what is stopped.

    Close what is stopped or rebound before anything is bound: two forwards may exchange their ports. With
    `conflicts` nothing may be done.
    """

    steps: tuple[Step, ...] = ()
    conflicts: tuple[Conflict, ...] = ()

    @property
    def settled(self) -> bool:
        """Tell whether there is nothing to do."""
        return not self.conflicts and all(step.sign == "=" for step in self.steps)


def plan(
    owner: str,
    wanted: Sequence[ForwardSpec],
    existing: Iterable[Existing],
    *,
    region: str,
    auto: AutoSpec | None = None,
) -> Plan:
    """Compare what `owner` wants with what exists; `region` is meant where a spec names none.

    `wanted` all have names. With nothing wanted, everything of `owner` is stopped.
    """
    others = [one for one in existing if one.owner != owner]
    ours = {one.name: one for one in existing if one.owner == owner}
    steps = [_step(spec, ours.get(spec.name or ""), region) for spec in wanted]
    named = {spec.name for spec in wanted}
    for one in ours.values():
        if one.name in named:
            continue
        if one.auto and auto is not None and _is_of(one, auto, region):
            steps.append(_keep_auto(one, auto))
    kept = {step.name for step in steps}
    stopped = [Step("-", one.name, one.spec, one) for one in ours.values() if one.name not in kept]
    return Plan((*steps, *stopped), tuple(_conflicts(steps, others)))


def _step(spec: ForwardSpec, one: Existing | None, region: str) -> Step:
    name = spec.name
    assert name is not None, "a forward of a file has a name"
    target = msgspec.structs.replace(spec.target, region=spec.target.region or region)
    spec = msgspec.structs.replace(spec, target=target)
    if one is None:
        return Step("+", name, spec)
    if spec.local_port is None:
        spec = msgspec.structs.replace(spec, local_port=one.spec.local_port)
    task, known = spec.target.task, one.spec.target.task
    if task is not None and known is not None and known.startswith(task):
        spec = msgspec.structs.replace(spec, target=msgspec.structs.replace(target, task=known))
    found = changes(one.spec, spec)
    if one.ended is not None:
        found.append(Change("ended", one.ended, "started anew"))
    if one.auto:
        found.append(Change("auto", "true", "false"))
    return Step("~" if found else "=", name, spec, one, tuple(found))


def _is_of(one: Existing, auto: AutoSpec, region: str) -> bool:
    target = one.spec.target
    return target.cluster in auto.clusters and target.region == (auto.region or region)


def _keep_auto(one: Existing, auto: AutoSpec) -> Step:
    """Give a forward of `auto` the options that hold for such ones now."""
    spec = auto_options(one.spec, auto)
    found = changes(one.spec, spec)
    if one.ended is not None:
        found.append(Change("ended", one.ended, "started anew"))
    return Step("~" if found else "=", one.name, spec, one, tuple(found), auto=True)


def auto_options(spec: ForwardSpec, auto: AutoSpec) -> ForwardSpec:
    """Return `spec` with the options of `auto`, as far as its protocol has them."""
    tcp = spec.protocol != "udp"
    return msgspec.structs.replace(
        spec,
        address=auto.address,
        route=auto.route,
        hold_seconds=auto.hold_seconds if tcp else HOLD_SECONDS,
        hold_connections=auto.hold_connections if tcp else HOLD_CONNECTIONS,
        idle_seconds=IDLE_SECONDS if tcp else auto.idle_seconds,
        retry=auto.retry,
        probe=auto.probe if tcp else None,
        notify=auto.notify,
    )


# What is in the way


@dataclass(slots=True)
class _Taken:
    """Names and ports as they would be, each with who has it."""

    names: dict[str, str] = field(default_factory=dict)
    ports: dict[tuple[int, Protocol], list[tuple[Sequence[str], str, str]]] = field(default_factory=dict)
    """Port and protocol -> addresses, forward, who has it; local ones and published ones."""


def _conflicts(steps: Sequence[Step], others: Sequence[Existing]) -> Iterator[Conflict]:
    taken = _Taken()
    for one in others:
        who = _who(one.owner)
        taken.names[one.name] = who
        listens = one.ended is None  # but what it published, the load balancer still has
        _ports_of(taken, one.spec, one.name, who, listens=listens)
    for step in steps:
        yield from _in_the_way(step, taken)
        who = "the same file"
        taken.names.setdefault(step.name, who)
        _ports_of(taken, step.spec, step.name, who)


def _in_the_way(step: Step, taken: _Taken) -> Iterator[Conflict]:
    stop = "`kecs port-forward stop {}`"
    if (who := taken.names.get(step.name)) is not None:
        yield Conflict(
            f"the name `{step.name}` is taken by a forward {_of(who)}",
            f"choose another name in the file, or {stop.format(step.name)}",
        )
    for key, port, where in _ports(step.spec):
        for given, name, who in taken.ports.get(port, []):
            if name != step.name and addresses.collide(given, where):
                yield Conflict(
                    f"port {port[0]} of `{step.name}` belongs to the forward `{name}` {_of(who)}",
                    f"choose another `{key}` in the file, or {stop.format(name)}",
                )
                break
    kept = step.spec.local_port == step.spec.publish is not None
    if kept and addresses.collide(step.spec.address, addresses.PUBLISHED):  # the file says nothing of it
        yield Conflict(
            f"port {step.spec.publish} of `{step.name}` is its local port",
            "choose another `publish` in the file, or name another `localPort`",
        )


def _ports(spec: ForwardSpec) -> Iterator[tuple[str, tuple[int, Protocol], Sequence[str]]]:
    """Yield the ports that are listened on for a forward: by the agent, and by Docker."""
    if spec.local_port is not None:
        yield "localPort", (spec.local_port, spec.protocol or "tcp"), spec.address
    if spec.publish is not None:
        yield "publish", (spec.publish, "tcp"), addresses.PUBLISHED


def _ports_of(taken: _Taken, spec: ForwardSpec, name: str, who: str, *, listens: bool = True) -> None:
    for key, port, where in _ports(spec):
        if listens or key == "publish":
            taken.ports.setdefault(port, []).append((where, name, who))


def _who(owner: str | None) -> str:
    return "by hand" if owner is None else f"`{owner}`"


def _of(who: str) -> str:
    return "that was started by hand" if who == "by hand" else f"of {who}"
