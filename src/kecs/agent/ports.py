"""Which local port a forward gets: chosen by binding it, never by probing (docs/design/contracts.md, 3)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

from kecs.net import listener

UNPRIVILEGED = 1024
"""The first port that anybody may bind: below it, the target port is not tried as the local one."""

Sockets = tuple[socket.socket, ...]


def bind(
    addresses: Sequence[str], given: int | None, target_port: int, avoid: set[int], *, udp: bool = False
) -> tuple[int, Sockets]:
    """Bind the port that was given; else the target port, or another one.

    The target port is tried when it is 1024 or above and not in `avoid`. Raises `KecsError`, which names the
    holder of a port that is taken.
    """
    if given is not None:
        return given, listener.bind(addresses, given, udp=udp)
    if target_port >= UNPRIVILEGED and target_port not in avoid:
        with contextlib.suppress(listener.PortTaken):
            return target_port, listener.bind(addresses, target_port, udp=udp)
    return listener.bind_chosen(addresses, listener.FORWARD_PORTS, avoid, udp=udp)
