"""Where the agent serves its metrics: `ADDR:PORT` as a person writes it and `instance.yaml` keeps it."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from kecs.errors import ExitCode, KecsError

OFF = "off"
"""What a person writes to have none."""


class MetricsAddress(NamedTuple):
    """A numeric address and a port; `str` writes them as they are kept."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine reach it."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def url(self) -> str:
        """Where they are read."""
        return f"http://{self}/metrics"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> MetricsAddress:
    """Read `127.0.0.1:9400`, `[::1]:9400` or `localhost:9400`. Raises `KecsError` (exit 2) for anything else.

    Port 0 is refused: who scrapes must know the port.
    """
    host, colon, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        address = None
    if not colon or address is None or bracketed != (address.version == 6):
        raise _unusable(text)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise _unusable(text)
    return MetricsAddress(str(address), int(port))


def wanted(text: str | None, before: str | None) -> str | None:
    """Return what `instance.yaml` keeps after a wish: None is no wish, `off` is none."""
    if text is None:
        return before
    return None if text == OFF else str(parse(text))


def _unusable(text: str) -> KecsError:
    return KecsError(
        f"`{text}` is no address for metrics",
        f"write a numeric address and a port, such as `127.0.0.1:9400` or `[::1]:9400`, or `{OFF}`",
        ExitCode.USAGE,
    )
