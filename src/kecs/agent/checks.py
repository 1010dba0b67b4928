"""What `forward.start` refuses, and in which words. No I/O: the endpoints of now are an argument."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from kecs.agent.choice import Candidate, has_tags, is_alive, newest_first
from kecs.agent.port_checks import check_protocol, find_port
from kecs.client.endpoints import EndpointTask, Target
from kecs.errors import ExitCode, KecsError
from kecs.forward import spec as specs
from kecs.forward.spec import ForwardSpec, Protocol


@dataclass(frozen=True, slots=True)
class Wish:
    """A spec whose target was found: everything but the name and the local port is decided."""

    spec: ForwardSpec
    region: str
    cluster: str
    service: str | None
    task_id: str | None
    target_port: int
    target_port_name: str | None
    protocol: Protocol

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for forwards that lead to the same port of the same target."""
        tags = frozenset(self.spec.target.tags.items())
        where = (self.region, self.cluster, self.service, self.task_id, tags)
        return (*where, self.target_port, self.protocol)


def check_spec(spec: ForwardSpec) -> None:
    """Refuse what is wrong whatever exists: syntax, addresses, and what is not built yet."""
    try:
        specs.check(spec)
    except specs.TargetSyntaxError as error:
        raise KecsError(str(error), "see `kecs port-forward start --help`", ExitCode.USAGE) from error
    for address in spec.address:
        if not _is_ip(address):
            raise KecsError(
                f"`{address}` is no IP address",
                "give one of this machine, such as `127.0.0.1`",
                ExitCode.USAGE,
            )
    if not 0 <= spec.hold_seconds <= 3600 or not 0 <= spec.hold_connections <= 65536:
        raise KecsError(
            "a forward holds connections for 0 to 3600 seconds, and 0 to 65536 of them",
            "leave the limits out to have 30 s and 1024",
            ExitCode.USAGE,
        )
    if not specs.SHORTEST_IDLE <= spec.idle_seconds <= specs.LONGEST_IDLE:
        raise KecsError(
            "a UDP client that is silent is forgotten after "
            f"{specs.SHORTEST_IDLE} to {specs.LONGEST_IDLE} seconds",
            "leave `--idle` away to have 60 s",
            ExitCode.USAGE,
        )
    if spec.protocol is not None:
        check_protocol(spec, spec.protocol)


def check_file_spec(spec: ForwardSpec) -> None:
    """Refuse what is wrong in a forward of a file, whoever read the file."""
    if spec.name is None or spec.target_port is None:
        lacking = "name" if spec.name is None else "targetPort"
        raise KecsError(
            f"the forward `{spec.name or spec.target}` has no `{lacking}`",
            "each forward of a file has both",
            ExitCode.USAGE,
        )
    check_spec(spec)


def with_whole_task_id(spec: ForwardSpec, targets: Sequence[Target], default_region: str) -> ForwardSpec:
    """Return `spec` with the whole id of the one task that it means, where that exists."""
    wanted, region = spec.target.task, spec.target.region or default_region
    if not wanted:
        return spec
    found = {
        task.task_id
        for target in targets
        if (target.region, target.cluster) == (region, spec.target.cluster)
        for task in target.tasks
        if task.task_id.startswith(wanted)
    }
    if len(found) != 1:
        return spec
    target = msgspec.structs.replace(spec.target, task=found.pop())
    return msgspec.structs.replace(spec, target=target)


def check_strict(spec: ForwardSpec, targets: Sequence[Target], default_region: str) -> None:
    """Refuse more than one task with the tags where only one is allowed, and list them."""
    if not spec.strict or not spec.target.tags:
        return
    alive = [
        one for one in _tagged(spec, targets, spec.target.region or default_region) if is_alive(one.task)
    ]
    if len(alive) > 1:
        raise KecsError(
            f"{len(alive)} tasks have the tags {specs.tags_text(spec.target.tags)}, and one is allowed: "
            f"{_with_ages(alive)}",
            "give more tags, stop the others, or leave `strict` out: the newest is chosen then",
            ExitCode.CONFLICT,
        )


def check_route(spec: ForwardSpec, runtime: str) -> None:
    """Refuse a tunnel where there is no Kubernetes through which it could go."""
    if spec.route == "tunnel" and runtime == "local":
        raise KecsError(
            "there are no tunnels on the runtime `local`: its tasks listen on this machine",
            "leave `--route` away",
            ExitCode.USAGE,
        )


def find(spec: ForwardSpec, targets: Sequence[Target], default_region: str) -> Wish:
    """Find what `spec` asks for among `targets`, or refuse it in words that help."""
    region = spec.target.region or default_region
    if spec.target.type == "service":
        target = _find_service(spec, targets, region)
        task: EndpointTask | None = None
        # Those of the current revision: tasks of an older one leave.
        possible = target.ports or [port for one in target.tasks for port in one.ports]
    else:
        look = _find_tagged if spec.target.tags else _find_task
        target, task = look(spec, targets, region)
        possible = task.ports or target.ports
    _check_public(target, task)
    number, name, protocol = find_port(spec, possible)
    check_protocol(spec, protocol)
    return Wish(
        spec=spec,
        region=region,
        cluster=target.cluster,
        service=target.service if task is None else None,
        task_id=task.task_id if task is not None and not spec.target.tags else None,
        target_port=number,
        target_port_name=name,
        protocol=protocol,
    )


def _find_service(spec: ForwardSpec, targets: Sequence[Target], region: str) -> Target:
    cluster, name = spec.target.cluster, spec.target.service
    found = [one for one in targets if (one.cluster, one.service) == (cluster, name) and name is not None]
    for target in found:
        if target.region == region:
            return target
    if found:
        raise _elsewhere(f"service `{spec.target}`", {target.region for target in found}, region)
    services = sorted(
        {one.service for one in targets if (one.region, one.cluster) == (region, cluster) and one.service}
    )
    if services:
        raise KecsError(
            f"there is no service `{name}` in the cluster `{cluster}`",
            f"services there: {_listed(services)}",
            ExitCode.NOT_FOUND,
        )
    raise _nothing_in(cluster, targets, region, "service")


def _find_task(spec: ForwardSpec, targets: Sequence[Target], region: str) -> tuple[Target, EndpointTask]:
    cluster, wanted = spec.target.cluster, spec.target.task or ""
    found = [
        (target, task)
        for target in targets
        if target.cluster == cluster
        for task in target.tasks
        if task.task_id.startswith(wanted)
    ]
    here = [(target, task) for target, task in found if target.region == region]
    here = [(target, task) for target, task in here if task.last_status != "STOPPED"] or here
    if len(here) > 1:
        raise KecsError(
            f"`{wanted}` begins the ids of {len(here)} tasks: {_listed(task.task_id for _, task in here)}",
            "give more of its digits",
            ExitCode.USAGE,
        )
    if here:
        _, task = here[0]
        if task.last_status == "STOPPED":
            why = f" ({task.stopped_reason})" if task.stopped_reason else ""
            raise KecsError(
                f"task `{task.task_id}` is STOPPED{why}",
                "start another, or forward a service: it outlives its tasks",
            )
        return here[0]
    if found:
        raise _elsewhere(f"task `{wanted}`", {target.region for target, _ in found}, region)
    alive = sorted(
        task.task_id
        for target in targets
        if (target.region, target.cluster) == (region, cluster)
        for task in target.tasks
        if task.last_status != "STOPPED"
    )
    if alive:
        raise KecsError(
            f"there is no task `{wanted}` in the cluster `{cluster}`",
            f"tasks there: {_listed(alive)}",
            ExitCode.NOT_FOUND,
        )
    raise _nothing_in(cluster, targets, region, "task")


def _tagged(spec: ForwardSpec, targets: Sequence[Target], region: str) -> list[Candidate]:
    return [
        Candidate(target, task)
        for target in targets
        if (target.region, target.cluster) == (region, spec.target.cluster)
        for task in target.tasks
        if has_tags(task, spec.target.tags)
    ]


def _find_tagged(spec: ForwardSpec, targets: Sequence[Target], region: str) -> tuple[Target, EndpointTask]:
    """Return the newest task with the tags, a public one where there is any."""
    check_strict(spec, targets, region)
    alive = newest_first([one for one in _tagged(spec, targets, region) if is_alive(one.task)])
    if alive:
        found = next((one for one in alive if one.target.public), alive[0])
        return found.target, found.task
    cluster, asked = spec.target.cluster, specs.tags_text(spec.target.tags)
    regions = {target.region for target in targets} - {region}
    elsewhere = [
        other for other in regions if any(is_alive(one.task) for one in _tagged(spec, targets, other))
    ]
    if elsewhere:
        raise _elsewhere(f"a task of the cluster `{cluster}` with the tags {asked}", elsewhere, region)
    here = [one for one in targets if (one.region, one.cluster) == (region, cluster)]
    there = [task for target in here for task in target.tasks if is_alive(task)]
    if not there:
        raise _nothing_in(cluster, targets, region, "task")
    known = sorted({f"{key}={value}" for task in there for key, value in task.tags.items()})
    raise KecsError(
        f"no task in the cluster `{cluster}` has the tags {asked}",
        f"tags of its tasks: {_listed(known, 20)}" if known else f"none of its {len(there)} tasks has a tag",
        ExitCode.NOT_FOUND,
    )


def _with_ages(candidates: Iterable[Candidate]) -> str:
    """`aaaaaaaa (12 s old), bbbbbbbb (3 min old)`, the newest first."""
    now = time.time()
    return ", ".join(
        f"{one.task.task_id[:8]} ({_age(now - one.task.created_at)} old)"
        for one in newest_first(list(candidates))
    )


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _nothing_in(cluster: str, targets: Sequence[Target], region: str, kind: str) -> KecsError:
    """Return the error for a cluster that does not exist, or is empty: the endpoints do not tell which."""
    clusters = sorted({target.cluster for target in targets if target.region == region})
    elsewhere = sorted({target.region for target in targets if target.cluster == cluster} - {region})
    if elsewhere:
        return _elsewhere(f"the cluster `{cluster}`", elsewhere, region)
    hint = (
        f"clusters with services or tasks: {_listed(clusters)}" if clusters else "`kecs ps` lists what exists"
    )
    return KecsError(f"there is no {kind} in a cluster `{cluster}`", hint, ExitCode.NOT_FOUND)


def _elsewhere(what: str, regions: Iterable[str], region: str) -> KecsError:
    there = sorted(regions)
    return KecsError(
        f"{what} is not in {region}; it is in {_listed(there)}",
        f"add `--region {there[0]}`",
        ExitCode.NOT_FOUND,
    )


def _check_public(target: Target, task: EndpointTask | None) -> None:
    if target.public:
        return
    members = [f"subnets=[{','.join(target.subnets) or 'subnet-1'}]"]
    if target.security_groups:
        members.append(f"securityGroups=[{','.join(target.security_groups)}]")
    network = f"'awsvpcConfiguration={{{','.join([*members, 'assignPublicIp=ENABLED'])}}}'"
    if target.service is not None:
        what = f"service `{target.cluster}/{target.service}`"
        command = f"aws ecs update-service --cluster {target.cluster} --service {target.service}"
    else:
        what = f"task `{task.task_id if task else target.task_id}`"
        command = f"aws ecs run-task --cluster {target.cluster} --task-definition FAMILY"
    again = "" if target.service is not None else "a task's network cannot be changed, run another: "
    raise KecsError(
        f"{what} is not public: its network configuration does not set `assignPublicIp` to ENABLED",
        f"{again}`{command} --network-configuration {network}`",
    )


def _listed(words: Iterable[str], most: int = 10) -> str:
    given = list(words)
    shown = ", ".join(f"`{word}`" for word in given[:most])
    return shown + (f" and {len(given) - most} more" if len(given) > most else "")


def _is_ip(address: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, address)
        except OSError:
            continue
        return True
    return False
