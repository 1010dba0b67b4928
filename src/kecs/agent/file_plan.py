"""From `forward.apply` to the steps that are to be done, and from a step to its entry. No I/O.

`kecs.forward.apply` compares; in here is what it cannot know: which tasks and services there are now, and
that forwards of `auto: true` make way. `kecs.agent.applier` does what comes out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from kecs.agent import autos, checks
from kecs.agent.state import AutoEntry, Entry
from kecs.client import rpc_types as rpc
from kecs.client.endpoints import Target
from kecs.errors import ExitCode, KecsError
from kecs.forward.apply import Existing, Step, plan
from kecs.forward.spec import ForwardSpec


def existing_of(entry: Entry) -> Existing:
    """Return an entry as a plan looks at it."""
    return Existing(entry.id, entry.spec, entry.owner, entry.auto, entry.ended)


def file_plan(
    request: rpc.ApplyRequest, entries: Sequence[Entry], targets: Sequence[Target], region: str
) -> list[Step]:
    """Return the steps; `region` is the instance's. Raises `KecsError` when something is in the way."""
    wanted = [checks.with_whole_task_id(spec, targets, region) for spec in request.forwards]
    existing = [existing_of(entry) for entry in entries]
    yielding = [one for one in existing if _yields(one, wanted, request.owner, region)]
    staying = [one for one in existing if one not in yielding]
    planned = plan(request.owner, wanted, staying, region=region, auto=request.auto)
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
        auto = AutoEntry(owner=request.owner, spec=request.auto)
        there = [entry_of(step, auto.owner, step.spec.local_port or 1, "pf-00000000") for step in steps]
        taken = {entry.name for entry in entries} - {step.name for step in ending}
        taken |= {step.name for step in steps}
        steps += auto_steps(auto, region, targets, there, taken)
    return [*steps, *ending]


def auto_steps(
    auto: AutoEntry,
    region: str,
    targets: Sequence[Target],
    entries: Sequence[Entry],
    taken: set[str],
) -> list[Step]:
    """Return a step for each forward that `auto` is for and that is not among the file's `entries`."""
    specs = autos.missing(auto, region, targets, entries, taken)
    return [Step("+", spec.name or "", spec, auto=True) for spec in specs]


def entry_of(step: Step, owner: str, port: int, identity: str, old: Entry | None = None) -> Entry:
    """Return what `config.yaml` shall say of a forward that is new or changed."""
    spec, target = step.spec, step.spec.target
    number = spec.target_port if isinstance(spec.target_port, int) else None
    entry = Entry.of(
        spec,
        id=old.id if old else identity,
        name=step.name,
        region=target.region or "",
        cluster=target.cluster,
        service=target.service,
        task_id=target.task,
        local_port=port,
        target_port=number,
        target_port_name=spec.target_port if isinstance(spec.target_port, str) else None,
        protocol=spec.protocol or "tcp",
        owner=owner,
        auto=step.auto,
        created_at=old.created_at if old else time.time(),
    )
    if old is None or not old.is_pinned or old.ended is not None:
        return entry
    same = old.spec.target == target and not old.auto_reconnect and not entry.auto_reconnect
    return msgspec.structs.replace(entry, task_id=old.task_id) if same else entry


def _yields(one: Existing, wanted: Sequence[ForwardSpec], owner: str, region: str) -> bool:
    """Tell whether a forward of `auto` makes way for one that the file itself names now.

    It leads to the same service, or has the port that the file asks for; in the latter case another is made.
    """
    if not one.auto or one.owner != owner or any(spec.name == one.name for spec in wanted):
        return False
    target = one.spec.target
    return any(
        (spec.local_port, spec.protocol or "tcp") == (one.spec.local_port, one.spec.protocol)
        or (spec.target.cluster, spec.target.service, spec.target.region or region)
        == (target.cluster, target.service, target.region)
        for spec in wanted
    )
