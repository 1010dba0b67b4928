"""A port-forward file: its text into forwards, or into everything that is wrong with it, line by line.

Used by the command line for `port-forward run --config`, which sends what is found to the agent. The keys are
in `kecs.forward.document`; what one key alone cannot say (that a task has no service, that two forwards want
one port) is checked here. No file is opened in here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from msgspec import UnsetType

from kecs.forward import addresses
from kecs.forward.document import Document, Forward, Hold, Options
from kecs.forward.nodes import Malformed, Path, Place, Problem, Reader, compose
from kecs.forward.spec import (
    DEFAULT_CLUSTER,
    IDLE_SECONDS,
    AutoSpec,
    ForwardSpec,
    Notify,
    Probe,
    Protocol,
    Retry,
    Target,
)

T = TypeVar("T")
_TOGETHER = ("hold", "retry", "probe", "notify")
"""Put together key by key from the defaults and a forward."""


@dataclass(frozen=True, slots=True)
class FileSpec:
    """What a file asks for."""

    forwards: tuple[ForwardSpec, ...] = ()
    """Each with its name, in the order of the file."""
    auto: AutoSpec | None = None
    names: bool = False


@dataclass(frozen=True, slots=True)
class FileError:
    """One thing that is wrong with a file."""

    path: str
    line: int
    column: int
    key: str
    """`forwards[0].localPort`; empty when no key is to blame."""
    message: str

    def __str__(self) -> str:
        """`port-forward.yaml:7:5: forwards[0].localPort: …`, which editors and terminals make a link of."""
        key = f"{self.key}: " if self.key else ""
        return f"{self.path}:{self.line}:{self.column}: {key}{self.message}"


class WrongFile(ValueError):  # noqa: N818 - it names the file's state
    """A file that cannot be used: all that is wrong with it, in the order of its lines."""

    def __init__(self, errors: Sequence[FileError]) -> None:
        super().__init__("\n".join(str(error) for error in errors))
        self.errors = tuple(errors)


def parse(source: str | bytes, path: str) -> FileSpec:
    """Return what the file says; `path` is for its errors. Raises `WrongFile`."""
    try:
        text = source if isinstance(source, str) else _decoded(source)
        node = compose(text.removeprefix("\ufeff"))
    except Malformed as error:
        raise _wrong(path, [error.problem]) from error
    if node is None:
        raise _wrong(path, [Problem(Place(1, 1), "", 'the file is empty: it begins with `version: "1"`')])
    reader = Reader()
    document = reader.read(node, Document)
    if isinstance(document, dict):
        _check(reader, document)
    if reader.problems:
        raise _wrong(path, reader.problems)
    return _spec(document)


def _decoded(source: bytes) -> str:
    try:
        return source.decode()
    except UnicodeDecodeError as error:
        before = source[: error.start]
        line_start = before.rfind(b"\n") + 1
        place = Place(before.count(b"\n") + 1, len(before[line_start:].decode()) + 1)
        problem = Problem(place, "", f"the byte 0x{source[error.start]:02x} is not UTF-8")
        raise Malformed(problem) from error


def _wrong(path: str, problems: Sequence[Problem]) -> WrongFile:
    return WrongFile(
        [
            FileError(path, one.place.line, one.place.column, _printable(one.key), _printable(one.message))
            for one in sorted(problems)
        ]
    )


def _printable(text: str) -> str:
    """Return `text` on one line, without what would move a terminal's cursor: it quotes a foreign file."""
    return "".join(char if char.isprintable() else "\ufffd" for char in " ".join(text.split()))


# What no single key can say


def _check(reader: Reader, document: Mapping[str, Any]) -> None:
    """Note what does not fit together. What is wrong in itself is left out of `document` already."""
    _check_addresses(reader, ("defaults",), document.get("defaults", {}))
    for path, forward in _forwards(document):
        _check_addresses(reader, path, forward)
        _check_target(reader, path, forward)
        _check_protocol(reader, path, forward, document)
    _check_names(reader, document)
    _check_ports(reader, document)
    _check_published(reader, document)
    if "clusters" in document and not document.get("auto"):
        reader.complain(("clusters",), "`clusters` says nothing without `auto: true`", at_key=True)


def _forwards(document: Mapping[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for number, forward in enumerate(document.get("forwards", [])):
        if isinstance(forward, dict):
            yield ("forwards", number), forward


def _check_addresses(reader: Reader, path: Path, options: Mapping[str, Any]) -> None:
    given = options.get("address", [])
    for number, address in enumerate([given] if isinstance(given, str) else given):
        if isinstance(address, str) and not _is_ip(address):
            at: Path = (*path, "address") if isinstance(given, str) else (*path, "address", number)
            reader.complain(
                at, f"`{address}` is no IP address: give one of this machine, such as `127.0.0.1`"
            )


def _check_target(reader: Reader, path: Path, forward: Mapping[str, Any]) -> None:
    """See that a service is a service, and a task is found in one way."""
    if "type" not in forward:
        return
    there = {key for key in ("service", "task", "tags", "strict", "publish") if (*path, key) in reader.keys}
    wanted, others = ({"service"}, {"task", "tags", "strict"})
    if forward["type"] == "task":
        wanted, others = ({"task", "tags"}, {"service", "publish"})
    for key in sorted(there & others):
        other = "task" if forward["type"] == "service" else "service"
        reader.complain((*path, key), f"`{key}` is for a forward of `type: {other}`", at_key=True)
    if not there & wanted:
        text = " or its ".join(f"`{key}`" for key in sorted(wanted, reverse=True))
        reader.complain(path, f"a forward of `type: {forward['type']}` needs its {text}")
    if {"task", "tags"} <= there and forward["type"] == "task":
        reader.complain((*path, "tags"), "`task` names the task already: leave `tags` out", at_key=True)
    elif "strict" in there and "tags" not in there and forward["type"] == "task":
        reader.complain((*path, "strict"), "`strict` is for a forward with `tags`", at_key=True)


def _check_protocol(
    reader: Reader, path: Path, forward: Mapping[str, Any], document: Mapping[str, Any]
) -> None:
    """See that a forward says nothing that its protocol has not; of the defaults it takes what it can."""
    if _protocol(forward) == "tcp":
        if "idle" in forward:
            message = "`idle` is for a forward of `protocol: udp`: a connection ends by itself"
            reader.complain((*path, "idle"), message, at_key=True)
        return
    for key, why in (("probe", "a probe connects by TCP"), ("hold", "UDP has no connections to hold")):
        if forward.get(key) is not None:
            reader.complain((*path, key), f"a forward of `protocol: udp` has no `{key}`: {why}", at_key=True)
    if _merged(document.get("defaults", {}), forward).get("route") == "tunnel":
        reader.complain((*path, "route"), "a tunnel carries TCP only: a forward of UDP is `direct`")


def _protocol(forward: Mapping[str, Any]) -> Protocol:
    return "udp" if forward.get("protocol") == "udp" else "tcp"


def _check_names(reader: Reader, document: Mapping[str, Any]) -> None:
    first: dict[str, Path] = {}
    for path, forward in _forwards(document):
        if (name := forward.get("name")) is None:
            continue
        if name in first:
            line = reader.places[(*first[name], "name")].line
            reader.complain((*path, "name"), f"the name `{name}` is taken by the forward in line {line}")
        first.setdefault(name, path)


def _check_ports(reader: Reader, document: Mapping[str, Any]) -> None:
    """See that no two forwards of one protocol want one port on one address."""
    first: dict[tuple[int, Protocol], list[tuple[Path, list[str]]]] = {}
    for path, forward in _forwards(document):
        if (port := forward.get("localPort")) is None:
            continue
        given = _merged(document.get("defaults", {}), forward).get("address", [])
        listens_on = [given] if isinstance(given, str) else given
        key = (port, _protocol(forward))
        for other, taken in first.get(key, []):
            if addresses.collide(listens_on, taken):
                line = reader.places[(*other, "localPort")].line
                message = f"the port {port} is taken by the forward in line {line}"
                reader.complain((*path, "localPort"), message)
                break
        first.setdefault(key, []).append((path, listens_on))


def _check_published(reader: Reader, document: Mapping[str, Any]) -> None:
    """See that no two forwards publish one port, and that none listens where Docker shall."""
    first: dict[int, Path] = {}
    for path, forward in _forwards(document):
        if (port := forward.get("publish")) is None:
            continue
        if port in first:
            line = reader.places[(*first[port], "publish")].line
            reader.complain((*path, "publish"), f"the port {port} is published by the forward in line {line}")
        first.setdefault(port, path)
    for path, forward in _forwards(document):
        port = forward.get("localPort")
        given = _merged(document.get("defaults", {}), forward).get("address", [])
        listens_on = [given] if isinstance(given, str) else given
        if port in first and addresses.collide(listens_on, addresses.PUBLISHED):
            line = reader.places[(*first[port], "publish")].line
            reader.complain(
                (*path, "localPort"), f"the port {port} is published in line {line}: Docker listens on it"
            )


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


# What is asked for


def _spec(document: Mapping[str, Any]) -> FileSpec:
    """Return what a document asks for in which nothing is wrong."""
    defaults = document.get("defaults", {})
    if "region" in document:
        defaults = {"region": document["region"], **defaults}
    forwards = [
        _forward(msgspec.convert(_merged(defaults, forward), Forward)) for _, forward in _forwards(document)
    ]
    auto = None
    if document.get("auto"):
        clusters = document.get("clusters") or [one.target.cluster for one in forwards] or [DEFAULT_CLUSTER]
        auto = _auto(msgspec.convert(defaults, Options), list(dict.fromkeys(clusters)))
    return FileSpec(tuple(forwards), auto, document.get("names", False))


def _merged(defaults: Mapping[str, Any], forward: Mapping[str, Any]) -> dict[str, Any]:
    """Return what holds for a forward: its own word, else that of the defaults."""
    merged = {**defaults, **forward}
    for key in _TOGETHER:
        one, other = defaults.get(key), forward.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            merged[key] = {**one, **other}
    return merged


def _forward(line: Forward) -> ForwardSpec:
    protocol: Protocol = "udp" if line.protocol == "udp" else "tcp"
    hold = _given(line.hold, Hold()) if protocol == "tcp" else Hold()
    return ForwardSpec(
        target=Target(
            type=line.type,
            cluster=line.cluster,
            service=_given(line.service, None),
            task=_given(line.task, None),
            tags=_given(line.tags, {}),
            region=_given(line.region, None),
        ),
        name=line.name,
        local_port=_given(line.local_port, None),
        target_port=line.target_port,
        protocol=protocol,
        address=_address_list(line),
        auto_reconnect=_given(line.auto_reconnect, True),
        route=_given(line.route, "auto"),
        hold_seconds=hold.seconds,
        hold_connections=hold.connections,
        idle_seconds=_given(line.idle, IDLE_SECONDS) if protocol == "udp" else IDLE_SECONDS,
        retry=_given(line.retry, Retry()),
        probe=_probe(line) if protocol == "tcp" else None,
        notify=_notify(line),
        strict=_given(line.strict, False),
        publish=_given(line.publish, None),
    )


def _auto(defaults: Options, clusters: list[str]) -> AutoSpec:
    hold = _given(defaults.hold, Hold())
    return AutoSpec(
        clusters=clusters,
        region=_given(defaults.region, None),
        address=_address_list(defaults),
        route=_given(defaults.route, "auto"),
        hold_seconds=hold.seconds,
        hold_connections=hold.connections,
        idle_seconds=_given(defaults.idle, IDLE_SECONDS),
        retry=_given(defaults.retry, Retry()),
        probe=_probe(defaults),
        notify=_notify(defaults),
    )


def _address_list(options: Options) -> list[str]:
    if isinstance(options.address, UnsetType):
        return []
    return [options.address] if isinstance(options.address, str) else options.address


def _probe(options: Options) -> Probe | None:
    return _given(options.probe, None)


def _notify(options: Options) -> Notify | None:
    return _given(options.notify, None) or None


def _given(value: T | UnsetType, otherwise: T) -> T:
    """Return what the file says, else `otherwise`."""
    return otherwise if isinstance(value, UnsetType) else value
