"""Reading what a person types for a service, a task, an address; errors come before any daemon does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kecs.errors import ExitCode, KecsError

if TYPE_CHECKING:
    from kecs.forward.spec import TargetSyntaxError


def syntax_error(error: TargetSyntaxError) -> KecsError:
    """Turn `what is wrong: what to write` into an error and its hint."""
    message, colon, hint = str(error).rpartition(": ")
    if not colon:
        return KecsError(str(error), "see `kecs port-forward start --help`", ExitCode.USAGE)
    return KecsError(message, hint, ExitCode.USAGE)


def name_of(text: str) -> tuple[str, str]:
    """Split `[cluster/]name` or an ARN into (cluster, name); the cluster defaults to `default`."""
    if text.startswith("arn:"):
        return "default", text
    cluster, slash, name = text.rpartition("/")
    if not name or "/" in cluster or (slash and not cluster):
        raise KecsError(
            f"`{text}` names no service and no task",
            "write `cluster/name`, `name` (in the cluster `default`), or an ARN",
            ExitCode.USAGE,
        )
    return cluster or "default", name


def seconds(text: str) -> float:
    """Parse a number of seconds, 0 to a day."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86400:
        raise KecsError(
            f"`{text}` is no number of seconds", "give one from 0 to 86400: `--wait=30`", ExitCode.USAGE
        )
    return value


def addresses(given: tuple[str, ...]) -> list[str]:
    """Check addresses to listen on."""
    if not given:
        return []
    import ipaddress

    found: list[str] = []
    for text in given:
        if text == "localhost":
            continue
        try:
            address: Any = ipaddress.ip_address(text)
        except ValueError:
            raise KecsError(
                f"`{text}` is no IP address to listen on",
                "give one of this machine, such as `127.0.0.1`, or `0.0.0.0` for all of them",
                ExitCode.USAGE,
            ) from None
        found.append(str(address))
    return found
