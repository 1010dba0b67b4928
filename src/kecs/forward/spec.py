"""What a forward is asked to be: its target, its ports, its promises; and how people write these.

The command line parses what was typed before any daemon exists; the agent checks again what it is sent
(`check`). Every wrong syntax is a `TargetSyntaxError` that says what is wrong and what a right one
looks like.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from kecs.forward import addresses

DEFAULT_CLUSTER = "default"
HOLD_SECONDS = 30.0
HOLD_CONNECTIONS = 1024
IDLE_SECONDS = 60.0
"""Longer than any answer takes, shorter than Linux remembers a stream (nf_conntrack_udp_timeout_stream)."""
SHORTEST_IDLE, LONGEST_IDLE = 1, 86400
"""Seconds that may be asked for instead."""
MAX_PORT = 65535
LONGEST_NAME = 63

TargetType = Literal["service", "task"]
Protocol = Literal["tcp", "udp"]
RouteChoice = Literal["auto", "direct", "tunnel"]
"""How a forward reaches its tasks: `direct` dials an address, `tunnel` goes through the API server of
Kubernetes, `auto` is `direct` where that works and a tunnel elsewhere."""


class Target(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What a forward leads to: a service, one task by id, or tasks found by tags."""

    type: Literal["service", "task"]
    cluster: str = DEFAULT_CLUSTER
    service: str | None = None
    task: str | None = None
    """Task id, whole or a unique prefix of 8 or more hexadecimal digits."""
    tags: dict[str, str] = {}
    region: str | None = None

    def __str__(self) -> str:
        """`prod/web`, `prod/0123abcd…` for a task, `prod/Env=dev,Part=worker` by tags."""
        return f"{self.cluster}/{self.service or self.task or tags_text(self.tags) or '*'}"


class Retry(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How a forward that cannot listen tries again: `initial`, `initial * factor`, … up to `max` seconds."""

    initial: Annotated[float, Meta(ge=0.1, le=3600)] = 0.5
    """Seconds before the first retry. A holder of a port often is a process that restarts: try soon."""
    factor: Annotated[float, Meta(ge=1, le=100)] = 2.0
    """Each delay is so many times the one before it."""
    max: Annotated[float, Meta(ge=0.1, le=3600)] = 15.0
    """Seconds; no delay is longer."""
    jitter: Annotated[float, Meta(ge=0, le=0.9)] = 0.2
    """Each delay is shortened by up to this part of itself, so that many do not try again together."""
    attempts: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """Retries until it gives up; 0: for ever."""


class Probe(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How the agent asks a task whether it can serve; one that fails leaves the balance until it succeeds."""

    type: Literal["tcp", "http"] = "tcp"
    """`tcp` connects, `http` gets a page."""
    path: Annotated[str, Meta(pattern="^/[!-~]*$", extra={"words": "a path such as `/healthz`"})] = "/"
    """What an `http` probe gets; any answer below 400 is a success."""
    interval: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0
    """Seconds between two probes of a task."""
    timeout: Annotated[float, Meta(ge=0.1, le=60)] = 2.0
    """Seconds for one probe."""
    failures: Annotated[int, Meta(ge=1, le=1000)] = 3
    """So many in a row take a task out."""


_Webhook = Annotated[
    str,
    Meta(
        pattern="^https?://[^/ ]+[!-~]*$", extra={"words": "a URL that begins with `http://` or `https://`"}
    ),
]


class Notify(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Who is told that a forward reconnects, is back, or has failed; nobody by default."""

    desktop: bool = False
    """By the desktop's own notifications."""
    command: list[str] = []
    """A program and its arguments; it gets the event as JSON on standard input."""
    webhook: _Webhook | None = None
    """An `http` or `https` URL; the event is posted to it as JSON."""

    def __bool__(self) -> bool:
        """Tell whether anybody is told."""
        return self.desktop or bool(self.command) or self.webhook is not None


class ForwardSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A forward as a person asked for it; None means: choose."""

    target: Target
    name: str | None = None
    local_port: int | None = None
    target_port: int | str | None = None
    """Container port, or the name of a port mapping."""
    protocol: Protocol | None = None
    """Of the target port and so of the local one; None: that of the port, TCP where it has both."""
    address: list[str] = []
    """Addresses to listen on; empty means 127.0.0.1, and ::1 where IPv6 exists."""
    auto_reconnect: bool = True
    route: RouteChoice = "auto"
    hold_seconds: float = HOLD_SECONDS
    hold_connections: int = HOLD_CONNECTIONS
    idle_seconds: float = IDLE_SECONDS
    """UDP only: a client that was silent for so long is forgotten."""
    retry: Retry = Retry()
    probe: Probe | None = None
    notify: Notify | None = None
    strict: bool = False
    """More than one task with the tags is an error instead of the newest one."""
    publish: int | None = None
    """Port of 127.0.0.1 on k3d's load balancer, which leads to the service whether KECS runs or not."""


class AutoSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """`auto: true` of a file: a forward for each public service of these clusters, as it appears."""

    clusters: list[str]
    region: str | None = None
    address: list[str] = []
    route: RouteChoice = "auto"
    hold_seconds: float = HOLD_SECONDS
    hold_connections: int = HOLD_CONNECTIONS
    idle_seconds: float = IDLE_SECONDS
    retry: Retry = Retry()
    probe: Probe | None = None
    notify: Notify | None = None


class Ports(NamedTuple):
    """One pair of ports as kubectl users write it; None means: choose."""

    local: int | None
    target: int | str | None
    protocol: Protocol | None = None


class TargetSyntaxError(ValueError):
    """What was typed does not name a target; the message says what is wrong with it."""


_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
_FORWARD_NAME = re.compile(r"[A-Za-z0-9._-]{1,63}")
_FORWARD_ID = re.compile(r"pf-[0-9a-f]{8}")
_TASK = re.compile(r"[0-9a-f]{8,32}")
_NUMBER = re.compile(r"[+-]?[0-9]+")
_PORT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
"""Name of a port mapping: at most 64 letters, digits, `_` and `-` (ECS API, PortMapping.name)."""
_ARN = re.compile(
    r"arn:(?P<partition>[a-z0-9-]+):(?P<product>[^:]*):(?P<region>[^:]*):(?P<account>[^:]*)"
    r":(?P<kind>[^:/]*)/(?P<path>.*)"
)

_SHAPES: dict[TargetType, str] = {
    "service": "write `cluster/service`, `service` (in the cluster `default`), or the service's ARN",
    "task": "write `cluster/task` or `task`, where `task` is a task's id, the first 8 or more digits of it, "
    "or the task's ARN",
}
_TAG_SHAPE = "with tags, write the cluster alone"
_PORTS_SHAPE = "write `LOCAL:TARGET`, `:TARGET` (the local port is chosen) or `PORT` (the same on both sides)"
_NAME_SHAPE = "use 1 to 63 of the letters a-z and A-Z, digits, `.`, `_` and `-`"


def parse_target(
    text: str,
    type: TargetType = "service",  # noqa: A002 - the word of the command line and of the files
    *,
    region: str | None = None,
    tags: dict[str, str] | None = None,
) -> Target:
    """Parse what follows `start service` or `start task`.

    `prod/web`, `web` (cluster `default`), a task's id or a prefix of at least 8 digits, or an ARN, whose
    region counts when `region` is None. With `tags`, `text` is the cluster alone.
    """
    if tags:
        return Target(type="task", cluster=_checked_cluster(text, text, _TAG_SHAPE), tags=tags, region=region)
    if text.startswith("arn:"):
        return _parse_arn(text, type, region)
    return _target(type, text, text, region)


def parse_local_port(text: str) -> int:
    """Parse a local port, 1 to 65535."""
    if not _NUMBER.fullmatch(text):
        raise TargetSyntaxError(f"`{text}` is no local port: give a number from 1 to {MAX_PORT}")
    return _checked_port(int(text), "local port", text)


def parse_target_port(text: str) -> int | str:
    """Parse a target port: a container port, or the name of a port mapping."""
    if _NUMBER.fullmatch(text):
        return _checked_port(int(text), "target port", text)
    if not _PORT_NAME.fullmatch(text):
        raise TargetSyntaxError(
            f"`{text}` is no target port: give a number from 1 to {MAX_PORT}, or the name of a port mapping"
        )
    return text


def parse_port_and_protocol(text: str) -> tuple[int | str, Protocol | None]:
    """Parse a target port with or without its protocol: `53`, `53/udp`, `dns`, `80/tcp`."""
    port, slash, protocol = text.partition("/")
    if not slash:
        return parse_target_port(text), None
    if protocol == "tcp":
        return parse_target_port(port), "tcp"
    if protocol == "udp":
        return parse_target_port(port), "udp"
    raise TargetSyntaxError(f"`{text}` names no protocol of a port: write `{port}/tcp` or `{port}/udp`")


def parse_ports(text: str) -> Ports:
    """Parse a pair of ports as kubectl users write it: `8080:80`, `:80`, `8080`, `8080:http`, `http`.

    The target port may have its protocol: `5353:53/udp`.
    """
    local, colon, target = text.partition(":")
    if ":" in target:
        raise TargetSyntaxError(f"`{text}` has more than two ports: {_PORTS_SHAPE}")
    if not colon:
        if not text:
            raise TargetSyntaxError(f"the ports are empty: {_PORTS_SHAPE}")
        port, protocol = parse_port_and_protocol(text)
        return Ports(port if isinstance(port, int) else None, port, protocol)
    if not target:
        raise TargetSyntaxError(f"`{text}` names no target port: {_PORTS_SHAPE}")
    return Ports(parse_local_port(local) if local else None, *parse_port_and_protocol(target))


def tags_text(tags: Mapping[str, str]) -> str:
    """`Environment=dev,Component=worker`."""
    return ",".join(f"{key}={value}" for key, value in tags.items())


def check_name(name: str) -> str:
    """Return `name` when a forward can have it: not that of the agent's log, nor one like an id."""
    if not _FORWARD_NAME.fullmatch(name):
        raise TargetSyntaxError(f"`{name}` cannot name a forward: {_NAME_SHAPE}")
    if name == "agent":
        raise TargetSyntaxError("`agent` cannot name a forward, it is the agent's own: choose another name")
    if _FORWARD_ID.fullmatch(name):
        raise TargetSyntaxError(
            f"`{name}` cannot name a forward, it looks like a forward's id: choose another name"
        )
    return name


def check(spec: ForwardSpec) -> None:
    """Check a spec that came over a wire or from a file as if it had been typed."""
    target = spec.target
    shape = _SHAPES[target.type]
    if target.tags and (target.type == "service" or target.service or target.task):
        raise TargetSyntaxError(f"`{target}` has tags too: tags find a task, and are all that names it")
    if spec.strict and not target.tags:
        raise TargetSyntaxError(f"`{target}` has no tags, and `strict` is about these")
    if target.tags:
        _checked_cluster(target.cluster, str(target), _TAG_SHAPE)
    elif target.type == "service":
        _checked_cluster(target.cluster, str(target), shape)
        _checked_service(target.service or "", str(target))
    else:
        _checked_cluster(target.cluster, str(target), shape)
        _checked_task(target.task or "", str(target))
    if spec.name is not None:
        check_name(spec.name)
    if spec.local_port is not None:
        _checked_port(spec.local_port, "local port", str(spec.local_port))
    if spec.target_port is not None:
        parse_target_port(str(spec.target_port))
    if spec.publish is not None:
        _checked_published(spec)


def default_name(target: Target, taken: Container[str]) -> str:
    """Return `<cluster>-<service>`, or `task-<first 8 of its id>`, with `-2`, `-3` … when it is taken."""
    if target.service is not None:
        name = f"{target.cluster}-{target.service}"
    elif target.task is not None:
        name = f"task-{target.task[:8]}"
    else:
        name = f"{target.cluster}-tagged"
    number, candidate = 1, name[:LONGEST_NAME]
    while candidate in taken:
        number += 1
        suffix = f"-{number}"
        candidate = name[: LONGEST_NAME - len(suffix)] + suffix
    return candidate


def _parse_arn(text: str, wanted: TargetType, region: str | None) -> Target:
    arn = _ARN.fullmatch(text)
    shape = f"one looks like `arn:aws:ecs:us-east-1:123456789012:{wanted}/cluster/{wanted}`"
    if arn is None or arn["product"] != "ecs" or not arn["region"]:
        raise TargetSyntaxError(f"`{text}` is no ARN of an ECS {wanted}: {shape}")
    if arn["kind"] != wanted:
        advice = ""
        if arn["kind"] in ("service", "task"):
            advice = f", use `start {arn['kind']}`"
        raise TargetSyntaxError(
            f"`{text}` is the ARN of a {arn['kind'] or 'nothing'}, not of a {wanted}{advice}"
        )
    if region is not None and region != arn["region"]:
        raise TargetSyntaxError(f"`{text}` is in {arn['region']}, but the region {region} was asked for")
    return _target(wanted, arn["path"], text, arn["region"])


def _target(kind: TargetType, path: str, text: str, region: str | None) -> Target:
    """`path` is `[cluster/]name`; `text` is what was typed."""
    if not path:
        raise TargetSyntaxError(f"the {kind} is empty: {_SHAPES[kind]}")
    cluster, slash, name = path.rpartition("/")
    if "/" in cluster:
        raise TargetSyntaxError(f"`{text}` has too many `/`: {_SHAPES[kind]}")
    if slash:
        _checked_cluster(cluster, text, _SHAPES[kind])
    cluster = cluster or DEFAULT_CLUSTER
    if kind == "service":
        return Target(type="service", cluster=cluster, service=_checked_service(name, text), region=region)
    return Target(type="task", cluster=cluster, task=_checked_task(name, text), region=region)


def _checked_cluster(cluster: str, text: str, shape: str) -> str:
    if not cluster:
        raise TargetSyntaxError(f"`{text}` names no cluster: {shape}")
    if not _NAME.fullmatch(cluster):
        raise TargetSyntaxError(
            f"`{cluster}` is no cluster's name (1 to 255 letters, digits, `_` and `-`): {shape}"
        )
    return cluster


def _checked_service(service: str, text: str) -> str:
    shape = _SHAPES["service"]
    if not service:
        raise TargetSyntaxError(f"`{text}` names no service: {shape}")
    if not _NAME.fullmatch(service):
        raise TargetSyntaxError(
            f"`{service}` is no service's name (1 to 255 letters, digits, `_` and `-`): {shape}"
        )
    return service


def _checked_task(task: str, text: str) -> str:
    shape = _SHAPES["task"]
    if not task:
        raise TargetSyntaxError(f"`{text}` names no task: {shape}")
    if not _TASK.fullmatch(task):
        raise TargetSyntaxError(f"`{task}` is no task id (8 to 32 of 0-9 and a-f): {shape}")
    return task


def parse_publish(text: str) -> int:
    """Parse the port of `--publish`, 1 to 65535."""
    if not _NUMBER.fullmatch(text):
        raise TargetSyntaxError(f"`{text}` is no port to publish: give a number from 1 to {MAX_PORT}")
    return _checked_port(int(text), "published port", text)


def _checked_published(spec: ForwardSpec) -> None:
    assert spec.publish is not None
    _checked_port(spec.publish, "published port", str(spec.publish))
    if spec.target.type != "service":
        raise TargetSyntaxError(
            f"`{spec.target}` is a task, and only services are published: a task's node port ends with it"
        )
    if spec.local_port == spec.publish and addresses.collide(spec.address, addresses.PUBLISHED):
        raise TargetSyntaxError(
            f"the port {spec.publish} cannot be the local port and the published one: "
            "the agent listens on the one, Docker on the other"
        )


def _checked_port(port: int, what: str, text: str) -> int:
    if not 1 <= port <= MAX_PORT:
        advice = "; leave it out to have one chosen" if port == 0 and what == "local port" else ""
        raise TargetSyntaxError(f"the {what} `{text}` is not from 1 to {MAX_PORT}{advice}")
    return port
