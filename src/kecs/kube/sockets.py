"""Options of the sockets to an API server: a peer that vanished is noticed within half a minute.

Used by `kecs.kube.client` (lists, watches, logs) and `kecs.kube.dial` (tunnels).
"""

from __future__ import annotations

import socket
import sys

IDLE, INTERVAL, PROBES = 10, 5, 3
"""Seconds of silence before the first probe, seconds between probes, unanswered probes until the end."""

GIVE_UP = (IDLE + INTERVAL * PROBES) * 1000
"""Milliseconds that sent bytes may stay unacknowledged; keep-alive is silent meanwhile (RFC 5482)."""

_IDLE_OPTION: int | None = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))

OPTIONS: tuple[tuple[int, int, int], ...] = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *([(int(socket.IPPROTO_TCP), int(_IDLE_OPTION), IDLE)] if _IDLE_OPTION is not None else []),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, INTERVAL),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES),
    *([(int(socket.IPPROTO_TCP), int(socket.TCP_USER_TIMEOUT), GIVE_UP)] if sys.platform == "linux" else []),
)


def prepare(sock: socket.socket) -> None:
    """Set the options on a connected socket."""
    for level, option, value in OPTIONS:
        sock.setsockopt(level, option, value)
