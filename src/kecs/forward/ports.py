"""How a port is written for people. Pure, and quick to import: `list` needs it."""

from __future__ import annotations


def port_text(port: int | str | None, protocol: str | None) -> str:
    """Return a port (or an address with one), and its protocol unless that is TCP: `80`, `53/udp`."""
    return f"{port}/udp" if protocol == "udp" else str(port)
