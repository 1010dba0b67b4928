"""From what a person typed behind `port-forward start` to forwards, without asking any daemon.

Every wrong word is a usage error here, before any daemon exists. The options are in `forward_options`.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, TypeVar

from kecs.cli import targets
from kecs.errors import ExitCode, KecsError

if TYPE_CHECKING:
    from kecs.forward.spec import ForwardSpec, Notify, Probe, Retry, RouteChoice, TargetType

T = TypeVar("T")
RETRY_KEYS = ("initial", "factor", "max", "jitter", "attempts")
HOLD_KEYS = ("seconds", "connections")


def specs(
    kind: TargetType,
    *,
    target: str,
    ports: tuple[str, ...],
    local_port: str | None,
    target_port: str | None,
    name: str | None,
    address: tuple[str, ...],
    region: str | None,
    route: RouteChoice = "auto",
    tags: tuple[str, ...] = (),
    strict: bool = False,
    auto_reconnect: bool = True,
    hold: str | None = None,
    idle: str | None = None,
    retry: str | None = None,
    probe: str | None = None,
    notify: tuple[str, ...] = (),
    publish: str | None = None,
) -> list[ForwardSpec]:
    """Turn what was typed into forwards, without asking any daemon. Raises usage errors."""
    from kecs.cli.start import check_region
    from kecs.forward import spec

    if ports and (local_port is not None or target_port is not None):
        raise KecsError(
            "ports are given twice: as pairs and by `--local-port` or `--target-port`",
            "use one of both ways",
            ExitCode.USAGE,
        )
    if name is not None and len(ports) > 1:
        raise KecsError(
            f"one name, `{name}`, cannot name {len(ports)} forwards",
            "start them one by one, or leave the names to KECS",
            ExitCode.USAGE,
        )
    if publish is not None and len(ports) > 1:
        raise KecsError(
            f"one port, `{publish}`, cannot be published for {len(ports)} forwards",
            "start them one by one, each with its own `--publish`",
            ExitCode.USAGE,
        )
    check_region(region)
    listen = targets.addresses(address)
    try:
        whither = spec.parse_target(target, kind, region=region, tags=read_tags(tags))
        if name is not None:
            spec.check_name(name)
        host_port = None if publish is None else spec.parse_publish(publish)
        pairs = [spec.parse_ports(pair) for pair in ports] or [
            spec.Ports(
                spec.parse_local_port(local_port) if local_port is not None else None,
                *(spec.parse_port_and_protocol(target_port) if target_port is not None else (None, None)),
            )
        ]
    except spec.TargetSyntaxError as error:
        raise targets.syntax_error(error) from error
    # TCP and UDP of one number are two ports; where no protocol was said, both may be meant.
    locals_ = [(pair.local, pair.protocol) for pair in pairs if pair.local is not None]
    if twice := next((port for port in locals_ if locals_.count(port) > 1), None):
        raise KecsError(f"the local port {twice[0]} is given twice", "give each its own", ExitCode.USAGE)
    if strict and not tags:
        raise KecsError(
            "`--strict` is about tags, and there is none",
            "add `--tag KEY=VALUE`, or leave it out",
            ExitCode.USAGE,
        )
    made = [
        spec.ForwardSpec(
            target=whither,
            name=name,
            local_port=pair.local,
            target_port=pair.target,
            protocol=pair.protocol,
            address=listen,
            route=route,
            auto_reconnect=auto_reconnect,
            strict=strict,
            retry=read_retry(retry),
            probe=read_probe(probe),
            notify=read_notify(notify),
            publish=host_port,
            **read_hold(hold),
            **read_idle(idle),
        )
        for pair in pairs
    ]
    try:
        for one in made:
            spec.check(one)
    except spec.TargetSyntaxError as error:
        raise targets.syntax_error(error) from error
    return made


def read_tags(given: tuple[str, ...]) -> dict[str, str]:
    """Parse `--tag KEY=VALUE`, each key once. Raises a usage error."""
    found: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise KecsError(
                f"`{text}` is no tag", "write it as key and value: `--tag Environment=dev`", ExitCode.USAGE
            )
        if key in found:
            raise KecsError(
                f"the tag `{key}` is given twice", "a task has one value for it: give one", ExitCode.USAGE
            )
        found[key] = value
    return found


def read_retry(text: str | None) -> Retry:
    """Parse `--retry`; what it does not name keeps its default. Raises a usage error."""
    from kecs.forward.spec import Retry

    values: dict[str, Any] = dict(_numbers("--retry", text, RETRY_KEYS))
    if "attempts" in values:
        values["attempts"] = _whole("--retry", "attempts", values["attempts"])
    return _checked("--retry", values, Retry)


def read_hold(text: str | None) -> dict[str, Any]:
    """Parse `--hold` into members of a `ForwardSpec`. Raises a usage error."""
    if text is None:
        return {}
    from kecs.forward.document import Hold

    values: dict[str, Any] = dict(_numbers("--hold", text, HOLD_KEYS))
    if "connections" in values:
        values["connections"] = _whole("--hold", "connections", values["connections"])
    found = _checked("--hold", values, Hold)
    return {"hold_seconds": found.seconds, "hold_connections": found.connections}


def read_idle(text: str | None) -> dict[str, Any]:
    """Parse `--idle` into a member of a `ForwardSpec`. Raises a usage error."""
    if text is None:
        return {}
    from kecs.forward.spec import LONGEST_IDLE, SHORTEST_IDLE

    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not SHORTEST_IDLE <= seconds <= LONGEST_IDLE:
        what = f"`--idle {text}` is no number of seconds from {SHORTEST_IDLE} to {LONGEST_IDLE}"
        raise KecsError(what, "give one: `--idle 30`", ExitCode.USAGE)
    return {"idle_seconds": seconds}


def read_probe(text: str | None) -> Probe | None:
    """Parse `--probe`. Raises a usage error."""
    if text is None:
        return None
    from kecs.forward.spec import Probe

    kind, colon, path = text.partition(":")
    if kind == "tcp" and not colon:
        return Probe()
    if kind == "http" and (not colon or path.startswith("/")):
        return _checked("--probe", {"type": "http", "path": path or "/"}, Probe)
    raise KecsError(f"`{text}` is no probe", "write `tcp`, or `http:/path`", ExitCode.USAGE)


def read_notify(given: tuple[str, ...]) -> Notify | None:
    """Parse `--notify`, each kind once. Raises a usage error."""
    if not given:
        return None
    from kecs.forward.spec import Notify

    found: dict[str, Any] = {}
    for text in given:
        member, value = _listener(text)
        if member in found:
            raise KecsError(
                f"`--notify` names two of a kind: `{text}` is the second",
                "give one desktop, one command and one webhook at most",
                ExitCode.USAGE,
            )
        found[member] = value
    return _checked("--notify", found, Notify)


def _listener(text: str) -> tuple[str, Any]:
    if text == "desktop":
        return "desktop", True
    if text.startswith(("http://", "https://")):
        return "webhook", text
    if text.startswith("command:"):
        try:
            words = shlex.split(text.removeprefix("command:"))
        except ValueError as error:
            raise KecsError(
                f"`{text}` is no command: {error}", "quote it as a shell would", ExitCode.USAGE
            ) from error
        if words:
            return "command", words
    raise KecsError(
        f"`{text}` names nobody to tell",
        "write `desktop`, `command:PROGRAM ARGUMENTS`, or a URL",
        ExitCode.USAGE,
    )


def _checked(name: str, values: dict[str, Any], kind: type[T]) -> T:
    """Return the value that a file with the same words would have. Raises a usage error beyond its limits."""
    import msgspec

    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise KecsError(
            f"`{name}` cannot be so: {where.rstrip('`')}: {what[:1].lower()}{what[1:]}",
            "it has the limits of a file: `docs/reference/port-forward.schema.json`",
            ExitCode.USAGE,
        ) from error


def _numbers(name: str, text: str | None, keys: tuple[str, ...]) -> dict[str, float]:
    """Parse `key=1,key=0.5`: keys of `keys`, each once, numbers of 0 or more."""
    found: dict[str, float] = {}
    for part in (text or "").split(",") if text is not None else ():
        key, _, value = part.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if key not in keys or key in found or not 0 <= number < float("inf"):
            raise KecsError(
                f"`{name} {text}` cannot be understood at `{part}`",
                f"write `key=number`, with commas between, each once; the keys are {', '.join(keys)}",
                ExitCode.USAGE,
            )
        found[key] = number
    return found


def _whole(name: str, key: str, number: float) -> int:
    if not number.is_integer():
        raise KecsError(
            f"`{name}`: `{key}={number:g}` is no whole number", "give one without a point", ExitCode.USAGE
        )
    return int(number)
