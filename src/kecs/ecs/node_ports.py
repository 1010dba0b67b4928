"""Node ports: which ones public services and standalone tasks have (docs/design/contracts.md, 5).

`kecs.ecs.services` and `kecs.ecs.tasks` call `settle_*` in the transaction of a request, the control plane
in that of a plan and of a task's end: the rows then are exactly those that are wanted. The control plane
makes the cluster follow them (`kecs.controlplane.exposures`); a number that the cluster refuses is replaced
by `move`. Nothing here knows what a cluster has. On `local` there are no node ports, and nothing happens.

Where some are published on this machine, TCP ports get one of those while there is one. UDP ports do not,
since only TCP is published: they take one of those last of all.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Collection, Iterable, Iterator

import msgspec

from kecs.ecs import arn, container_definitions
from kecs.ecs.context import Context
from kecs.ecs.errors import LimitExceededException
from kecs.ecs.model import NodePort, Service, Task, TaskDefinition
from kecs.ecs.state import Reader, Tx

DEFAULT_RANGE = "30000-32767"
"""What a kube-apiserver without `--service-node-port-range` hands out."""
_RANGE = re.compile(r"(\d{1,5})-(\d{1,5})")
Port = tuple[int, str]
"""(container port, protocol): all containers of a Pod share one network."""


def parse(text: str) -> range:
    """Read `FIRST-LAST`. Raises `ValueError` when that is no range of ports."""
    found = _RANGE.fullmatch(text)
    first, last = map(int, found.groups()) if found else (0, 0)
    if not 0 < first <= last < 2**16:
        raise ValueError(f"`{text}` is no range of ports")
    return range(first, last + 1)


def ports_of_service(tx: Reader, service: Service) -> list[Port]:
    """Return the ports of every revision that a living deployment of the service has, each once."""
    revisions = dict.fromkeys(deployment.task_definition for deployment in service.deployments)
    found: dict[Port, None] = {}
    for revision in revisions:
        found |= dict.fromkeys(_ports_of_definition(tx, service.region, revision))
    return list(found)


def ports_of_task(task: Task) -> list[Port]:
    """Return the ports of a task, each once."""
    return list(dict.fromkeys((port.container_port, port.protocol) for port in task.ports))


def rows_of_service(tx: Reader, service: Service) -> list[NodePort]:
    """Return the node ports of a service."""
    return tx.scan(NodePort, service.region, service.cluster, service.name, "")


def rows_of_task(tx: Reader, task: Task) -> list[NodePort]:
    """Return the node ports of a standalone task; those of a service's task are the service's."""
    return [] if task.service is not None else tx.scan(NodePort, task.region, task.cluster, "", task.id)


def settle_service(tx: Tx, service: Service, ctx: Context) -> None:
    """Give a public service a node port for each of its ports, and take from it what it needs no more.

    Raises LimitExceededException when no number is left; what is given up was then given up.
    """
    wanted = ports_of_service(tx, service) if service.public and service.status != "INACTIVE" else []
    _settle(tx, rows_of_service(tx, service), wanted, ctx, service.cluster, service=service.name)


def settle_task(tx: Tx, task: Task, ctx: Context) -> None:
    """Give a public standalone task a node port for each of its ports. Raises as `settle_service` does."""
    if task.service is None:
        wanted = ports_of_task(task) if task.public and task.last_status != "STOPPED" else []
        _settle(tx, rows_of_task(tx, task), wanted, ctx, task.cluster, task_id=task.id)


def free_task(tx: Tx, task: Task) -> None:
    """Take the node ports of a standalone task that has stopped."""
    for row in rows_of_task(tx, task):
        tx.delete(row)


def move(tx: Tx, row: NodePort, avoid: Collection[int], ctx: Context) -> NodePort:
    """Give a row the next number that no row has and `avoid` does not name; it is put.

    Raises LimitExceededException when none is left.
    """
    taken = {other.port for other in tx.scan(NodePort)} | set(avoid)
    chosen = _free(_candidates(row.port + 1, row.protocol, ctx), taken, ctx)
    moved = msgspec.structs.replace(row, port=chosen, applied=False)
    tx.put(moved)
    return moved


def _settle(
    tx: Tx,
    rows: Iterable[NodePort],
    wanted: list[Port],
    ctx: Context,
    cluster: str,
    *,
    service: str = "",
    task_id: str = "",
) -> None:
    if ctx.runtime.node_ports is None:
        return
    missing = dict.fromkeys(wanted)
    for row in rows:
        if (row.container_port, row.protocol) not in missing:
            tx.delete(row)
        # One outside the range that is in use stays: it works, and forwards go to it. The other was chosen
        # from an earlier range, and the cluster did not take it.
        elif row.applied or row.port in ctx.runtime.node_ports:
            del missing[row.container_port, row.protocol]
    if not missing:
        return
    taken = {row.port for row in tx.scan(NodePort)}
    for container_port, protocol in missing:
        row = NodePort(
            region=ctx.region,
            cluster=cluster,
            service=service,
            task_id=task_id,
            container_port=container_port,
            protocol="udp" if protocol == "udp" else "tcp",
            port=0,
        )
        chosen = _free(_candidates(_hash(row, ctx), row.protocol, ctx), taken, ctx)
        taken.add(chosen)
        tx.put(msgspec.structs.replace(row, port=chosen))


def _ports_of_definition(tx: Reader, region: str, text: str) -> Iterator[Port]:
    family, revision = arn.parse_task_definition(text)
    row = tx.get(TaskDefinition, region, family, revision) if revision is not None else None
    for container in row.definition["containerDefinitions"] if row is not None else ():
        for port, _, protocol, _ in container_definitions.ports_of(container):
            yield (port, "udp" if protocol == "udp" else "tcp")


def _hash(row: NodePort, ctx: Context) -> int:
    """Return where to begin: the same for the same port of the same instance, far apart for others."""
    words = "/".join(map(str, (ctx.runtime.instance_id, *row.key)))
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big")


def _candidates(number: int, protocol: str, ctx: Context) -> Iterator[int]:
    """Yield the whole range once, what suits `protocol` best first."""
    assert ctx.runtime.node_ports is not None
    every, published = ctx.runtime.node_ports, _published(ctx)
    others = (each for each in _from(number, every) if each not in published)
    if protocol == "udp":
        return itertools.chain(others, published)
    return itertools.chain(_from(number, published), others)


def _published(ctx: Context) -> range:
    """Return what is published of the range, which the cluster may not hand out whole."""
    every, published = ctx.runtime.node_ports, ctx.runtime.published
    if every is None or published is None:
        return range(0)
    return range(max(every.start, published.start), min(every.stop, published.stop))


def _from(number: int, numbers: range) -> Iterator[int]:
    """Yield all of `numbers` once, beginning at `number` (or where it falls within them)."""
    if not numbers:
        return
    begin = number - numbers.start if number in numbers else number % len(numbers)
    for step in range(len(numbers)):
        yield numbers[(begin + step) % len(numbers)]


def _free(candidates: Iterator[int], taken: Collection[int], ctx: Context) -> int:
    for number in candidates:
        if number not in taken:
            return number
    assert ctx.runtime.node_ports is not None
    first, last = ctx.runtime.node_ports[0], ctx.runtime.node_ports[-1]
    raise LimitExceededException(f"No node port is left: all from {first} to {last} are in use.")
