"""What `kecs explain forward` says, from what is known of the forward and of where it leads. Pure.

`kecs.client.explain` gathers; in here the sentences are made. The first fact is why it serves or does not,
the advice is what to do about it.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kecs.client.admin_types import Explain, ExplainEvent
from kecs.errors import ExitCode, KecsError
from kecs.forward.machine import GIVEN_UP
from kecs.forward.ports import port_text

_HERE = frozenset({"127.0.0.1", "::1"})
_STOPPED = re.compile(r"(task [0-9a-f]{8}) is STOPPED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A forward as the agent's list or its `config.yaml` tells of it."""

    id: str
    name: str
    type: str
    region: str
    cluster: str
    service: str | None = None
    task_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    address: str = "127.0.0.1"
    local_port: int
    target_port: int | str | None = None
    protocol: str = "tcp"
    auto_reconnect: bool = True
    owner: str | None = None
    state: str | None = None
    """None: the agent does not tell."""
    reason: str | None = None
    matched: int | None = None
    chosen: str | None = None
    """Id of the task that new connections go to, of those that match its tags."""
    endpoints: tuple[str, ...] = ()
    """Ids of the tasks that it leads to now."""
    hosts: tuple[str, ...] = ()
    """To where it goes directly."""
    failing: Mapping[str, str] = field(default_factory=dict)
    """Id of a task that its probe took out of the balance -> what it answered."""
    publish: int | None = None
    """Port of 127.0.0.1 that k3d's load balancer is to lead to it."""
    refused: str | None = None
    """How the last connect failed that did."""
    refused_at: float = 0.0
    received: int = 0
    """Bytes that clients sent, as far as an endpoint took them."""
    sent: int = 0
    """Bytes that they got."""
    dropped: int = 0
    """Datagrams that nobody took."""
    created_at: float = 0.0

    @property
    def target(self) -> str:
        """`prod/web:80`, `prod/0123abcd:80`, or the tags instead."""
        words = ",".join(f"{key}={value}" for key, value in self.tags.items())
        where = self.service or words or (self.task_id or "")[:8]
        return f"{self.cluster}/{where}" + (f":{self.port}" if self.target_port else "")

    @property
    def port(self) -> str:
        """The target port as it is written: `80`, `http`, `53/udp`."""
        return port_text(self.target_port, self.protocol)

    @property
    def is_udp(self) -> bool:
        """Whether it carries datagrams."""
        return self.protocol == "udp"

    @property
    def url(self) -> str:
        """Where a client connects."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{'udp' if self.is_udp else 'http'}://{host}:{self.local_port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What k3d's load balancer does with the published port of a forward."""

    leads_to: int | None = None
    """Node port; None: the load balancer does not have the port."""
    node_port: int | None = None
    """The service's own; None while it has none."""
    trouble: KecsError | None = None
    """Why nobody could be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What stands around a forward."""

    agent: KecsError | None = None
    """Why the agent does not tell; None: it does."""
    target: Explain | None = None
    """What the control plane says of where it leads."""
    missing: KecsError | None = None
    """That it leads to what does not exist."""
    controlplane: KecsError | None = None
    """Why the control plane does not tell."""
    events: tuple[ExplainEvent, ...] = ()
    """Of its log."""
    publication: Publication | None = None
    """None: it publishes nothing."""


def forward(row: Mapping[str, Any]) -> Forward:
    """Read a row of the agent's list, or an entry of `config.yaml` (which has fewer members)."""
    error = row.get("lastError") or {}
    addresses = row.get("address") or ["127.0.0.1"]
    ended = row.get("ended")
    return Forward(
        id=row["id"],
        name=row["name"],
        type=row["type"],
        region=row["region"],
        cluster=row["cluster"],
        service=row.get("service"),
        task_id=row.get("taskId"),
        tags=row.get("tags") or {},
        address="127.0.0.1" if addresses[0] == "0.0.0.0" else addresses[0],  # noqa: S104 - nothing is bound here
        local_port=row["localPort"],
        target_port=row.get("targetPort") or row.get("targetPortName"),
        protocol=row.get("protocol", "tcp"),
        auto_reconnect=row.get("autoReconnect", True),
        owner=row.get("owner"),
        state=row.get("state") or ("ENDED" if ended else None),
        reason=row.get("reason") or ended,
        matched=row.get("matched"),
        chosen=(row.get("chosen") or {}).get("taskId"),
        endpoints=tuple(one["taskId"] for one in row.get("endpoints") or [] if one.get("taskId")),
        hosts=tuple(
            one["route"]["host"] for one in row.get("endpoints") or [] if one.get("route", {}).get("host")
        ),
        failing={
            one["taskId"]: one["failing"]
            for one in row.get("endpoints") or []
            if one.get("taskId") and one.get("failing")
        },
        publish=row.get("publish"),
        refused=error.get("message"),
        refused_at=error.get("time", 0.0),
        received=(row.get("bytes") or {}).get("in", 0),
        sent=(row.get("bytes") or {}).get("out", 0),
        dropped=(row.get("connections") or {}).get("dropped", 0),
        created_at=row.get("createdAt", 0.0),
    )


def explain(it: Forward, around: Surroundings) -> Explain:
    """Say why a forward serves or does not, what happened, and what to do."""
    target = around.target
    theirs = target.timeline if target is not None else []
    timeline = [*(event for event in around.events if not _is_told(event, theirs)), *theirs]
    return Explain(
        title=f"forward {it.name}: {it.url} -> {it.target} in {it.region}",
        facts=list(dict.fromkeys(_facts(it, around))),
        without_effect=[],
        advice=list(dict.fromkeys(_advice(it, around))),
        timeline=sorted(timeline, key=lambda event: event.time),
        region=it.region,
        cluster=it.cluster,
        service=it.service,
        task_id=it.task_id,
    )


def _is_told(event: ExplainEvent, others: list[ExplainEvent]) -> bool:
    """Tell whether a forward only repeats what ECS says of a task that has stopped."""
    match = _STOPPED.match(event.text)
    return match is not None and any(
        other.source == match[1] and other.text.startswith("has stopped") for other in others
    )


def standing(it: Forward) -> str:
    """Say how a forward is, in one sentence without its name."""
    because = f": {it.reason}" if it.reason else ""
    match it.state:
        case None:
            return "does not listen, since the agent does not run"
        case "WAITING":
            so = "datagrams are dropped" if it.is_udp else "new connections are held"
            return f"is WAITING, so {so}{because}"
        case "FAILED":
            port = f"UDP port {it.local_port}" if it.is_udp else f"port {it.local_port}"
            return f"is FAILED, so nothing listens for it on {port}{because}"
        case "ENDED":
            return f"is ENDED and does not listen any more{because}"
        case state:
            return f"is {state}{because}"


def _facts(it: Forward, around: Surroundings) -> Iterator[str]:
    yield f"it {standing(it)}"
    if around.agent is not None and it.state is None:
        yield around.agent.message
    if it.matched and it.tags:
        which = f"; new connections go to {it.chosen[:8]}" if it.chosen else ""
        some = "one task matches" if it.matched == 1 else f"{it.matched} tasks match"
        yield f"{some} its tags{which}"
    if around.controlplane is not None:
        yield f"the control plane does not tell where it leads: {around.controlplane.message}"
    if around.missing is not None:
        yield around.missing.message
    for task, answered in it.failing.items():
        yield f"task {task[:8]} gets no connections, since it fails its probe: {answered}"
    if it.refused and it.state != "FAILED":
        at = time.strftime("%H:%M:%S", time.localtime(it.refused_at))
        what = "datagrams were lost last" if it.is_udp else "the last connect that failed,"
        yield f"{what} at {at}: {it.refused}"
    if it.dropped:
        yield f"{it.dropped} datagrams were dropped, since nobody took them"
    if _is_never_answered(it):
        yield f"{it.received} bytes went to it, and none came back"
    if around.publication is not None:
        yield _published(it, around.publication)
    if around.target is not None:
        yield from around.target.facts


def _published(it: Forward, found: Publication) -> str:
    if found.trouble is not None:
        return f"whether port {it.publish} is published cannot be told: {found.trouble.message}"
    if found.leads_to is None:
        return f"port {it.publish} is not on k3d's load balancer"
    text = f"port {it.publish} of k3d's load balancer leads to node port {found.leads_to}"
    if found.leads_to == found.node_port:
        return f"{text}, which is its service's"
    return f"{text}, and its service has {found.node_port or 'none'}"


def _advice(it: Forward, around: Surroundings) -> Iterator[str]:
    for task in it.failing:
        yield f"`kecs logs {it.cluster}/{task[:8]}` shows what the task says that fails its probe"
    found = around.publication
    if found is not None and found.node_port is not None and found.leads_to != found.node_port:
        again = f"`kecs port-forward start {_start(it)} --name {it.name}`"
        if it.owner is not None:
            again = f"`kecs port-forward run --config {it.owner}`"
        yield f"{again} publishes it anew, and leaves the forward as it is"
    match it.state:
        case None:
            yield "`kecs port-forward agent restart` starts the agent; its forwards come back on their ports"
        case "FAILED":
            yield from _for_a_taken_port(it)
            return
        case "ENDED":
            yield _again(it)
        case "ACTIVE" if around.controlplane is None:
            if _is_never_answered(it):
                yield from _for_no_answer(it)
            else:
                yield f"it serves: {'send' if it.is_udp else 'connect'} to {it.url}"
            return
    if around.missing is not None and it.service is not None:
        yield (
            f"create it by `aws ecs create-service --cluster {it.cluster} --service-name {it.service} …`, "
            "with assignPublicIp=ENABLED"
        )
    for trouble in (around.controlplane, around.missing):
        if trouble is not None and trouble.hint:
            yield trouble.hint
    if around.target is not None:
        yield from around.target.advice
    if it.state == "WAITING":
        yield (
            "it serves by itself as soon as a task is ready; if it is of no use any more: "
            f"`kecs port-forward stop {it.name}`"
        )


def _is_never_answered(it: Forward) -> bool:
    return it.is_udp and bool(it.received) and not it.sent


def _for_no_answer(it: Forward) -> Iterator[str]:
    name = f"{it.cluster}/{it.service or (it.task_id or it.chosen or '')[:8]}"
    yield f"see that the task listens on UDP port {it.target_port}: `kecs logs {name}`"
    if any(host not in _HERE for host in it.hosts):
        some = ", ".join(sorted(set(it.hosts) - _HERE)[:3])
        yield (
            f"see that this machine reaches the cluster's nodes by UDP ({some}): a UDP port has no tunnel, "
            "and a firewall that drops says nothing"
        )


def _for_a_taken_port(it: Forward) -> Iterator[str]:
    if GIVEN_UP in (it.reason or ""):
        again = _again(it) if it.owner is not None else f"`kecs port-forward start {_start(it)}` tries again"
        yield f"stop what holds port {it.local_port}, then {again}"
    else:
        yield f"stop what holds port {it.local_port}: the forward tries again by itself and takes it"
    if it.owner is not None:
        run = f"`kecs port-forward run --config {it.owner}`"
        yield f"or give it another `localPort` in {it.owner}, then {run}"
    else:
        yield (
            f"or open it on another port: `kecs port-forward stop {it.name}`, then "
            f"`kecs port-forward start {_start(it, 'PORT')}`"
        )


def _again(it: Forward) -> str:
    if it.owner is not None:
        return f"`kecs port-forward run --config {it.owner}` starts it anew"
    if it.task_id is not None and not it.tags:
        return (
            f"a task does not come back: `kecs port-forward stop {it.name}`, then forward another one, or "
            "its service, which outlives its tasks; `kecs ps` shows them"
        )
    anew = f"{_start(it, it.local_port)} --name {it.name}"
    return f"start it anew: `kecs port-forward stop {it.name}`, then `kecs port-forward start {anew}`"


def _start(it: Forward, local_port: int | str = "") -> str:
    """Return what `kecs port-forward start` is to be told for the same target."""
    port = f" --local-port {local_port}" if local_port else ""
    if it.target_port:
        port = f" {local_port}:{it.port}"  # a pair: `--local-port` beside one is refused
    pinned = "" if it.auto_reconnect else " --no-auto-reconnect"
    if it.tags:
        tags = "".join(f" --tag {shlex.quote(f'{key}={value}')}" for key, value in it.tags.items())
        return f"task {it.cluster}{port}{tags}{pinned}"
    name = it.service if it.service is not None else (it.task_id or "")[:8]
    published = f" --publish {it.publish}" if it.publish else ""
    return f"{it.type} {it.cluster}/{name}{port}{pinned}{published}"


def is_missing(error: KecsError) -> bool:
    """Tell whether an answer of the control plane says that there is no such thing."""
    return error.exit_code == ExitCode.NOT_FOUND
