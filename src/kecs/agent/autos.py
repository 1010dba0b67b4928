"""Which forwards `auto: true` of a file is for: one for each port of each public service. No I/O.

`kecs.agent.applier` makes them as services appear. A forward that was made is kept, with its port, when its
service goes; it serves again when one of that name comes back. What the file names itself needs none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import msgspec

from kecs.agent.state import AutoEntry, Entry
from kecs.client.endpoints import Target as EndpointTarget
from kecs.forward.apply import auto_options
from kecs.forward.ports import port_text
from kecs.forward.spec import ForwardSpec, Protocol, Target, default_name

Key = tuple[str, str, str, int | str, Protocol]
"""Region, cluster, service, container port and its protocol."""


def missing(
    auto: AutoEntry,
    region: str,
    targets: Iterable[EndpointTarget],
    entries: Iterable[Entry],
    taken: Collection[str],
) -> list[ForwardSpec]:
    """Return the forwards that are still to be made, named, in the order of their names.

    `region` is meant where the file names none; `entries` are those of the file as they will be; `taken` are
    the names of all forwards.
    """
    entries = list(entries)
    there = {key_of(entry) for entry in entries if entry.auto}
    named = {key_of(entry)[:3] for entry in entries if not entry.auto}
    names = set(taken)
    specs = []
    for target, number, protocol, is_first in _ports(auto, region, targets):
        key: Key = (target.region or "", target.cluster, target.service or "", number, protocol)
        if key in there or key[:3] in named or text_of(key) in auto.stopped:
            continue
        suffix = f"-{number}" + ("-udp" if protocol == "udp" else "")
        whole = target if is_first else msgspec.structs.replace(target, service=f"{target.service}{suffix}")
        name = default_name(whole, names)
        names.add(name)
        spec = ForwardSpec(target=target, name=name, target_port=number, protocol=protocol)
        specs.append(auto_options(spec, auto.spec))
    return specs


def key_of(entry: Entry) -> Key:
    """Return what a forward leads to; the service is empty for a task."""
    return (entry.region, entry.cluster, entry.service or "", entry.port, entry.protocol)


def text_of(key: Key) -> str:
    """`us-east-1/prod/web:80` or `us-east-1/prod/dns:53/udp`, as `AutoEntry.stopped` keeps it."""
    return f"{key[0]}/{key[1]}/{key[2]}:{port_text(key[3], key[4])}"


def _ports(
    auto: AutoEntry, region: str, targets: Iterable[EndpointTarget]
) -> Iterator[tuple[Target, int, Protocol, bool]]:
    """Yield each port of each service that is meant, TCP first, and whether it is the service's first."""
    where = auto.spec.region or region
    meant = [
        (one.cluster, one.service, one)
        for one in targets
        if one.region == where
        and one.cluster in auto.spec.clusters
        and one.public
        and one.service is not None
    ]
    for cluster, service, one in sorted(meant, key=lambda member: member[:2]):
        possible = one.ports or [port for task in one.tasks for port in task.ports]
        found = dict.fromkeys((port.container_port, port.protocol) for port in possible)
        target = Target(type="service", cluster=cluster, service=service, region=where)
        for place, (number, protocol) in enumerate(sorted(found, key=lambda each: each[1])):
            yield target, number, protocol, place == 0
