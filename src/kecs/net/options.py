"""Socket options of the data path, each with its reason.

On Linux an accepted socket inherits all of these from its listener (`sk_clone_lock` in
net/core/sock.c copies them), so that accepting costs no further system call.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

INHERITED = sys.platform == "linux"
"""Whether an accepted socket has its listener's options; elsewhere it is given them again."""

KEEPALIVE = (60, 15, 4)
"""Seconds of silence before the first probe, seconds between probes, probes: a peer that vanished
without a word is given up after two minutes. Linux' own 7200/75/9 is over two hours; the idle 60 s
stay below the 350 s after which the usual load balancers and NATs forget a connection."""

_RESET = struct.pack("ii", 1, 0)
_ORDERLY = struct.pack("ii", 0, 0)
_KEEPIDLE = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))

_LEVEL = int(socket.SOL_SOCKET)
_LINGER = int(socket.SO_LINGER)
_TCP = int(socket.IPPROTO_TCP)
_OPTIONS: list[tuple[int, int, int]] = [
    (_TCP, int(socket.TCP_NODELAY), 1),
    (_LEVEL, int(socket.SO_KEEPALIVE), 1),
    *([(_TCP, int(_KEEPIDLE), KEEPALIVE[0])] if _KEEPIDLE is not None else []),
    (_TCP, int(socket.TCP_KEEPINTVL), KEEPALIVE[1]),
    (_TCP, int(socket.TCP_KEEPCNT), KEEPALIVE[2]),
]
"""Plain numbers: this is done for each connection, and an enum is looked up by name each time."""


_CONGESTION: int | None = getattr(socket, "TCP_CONGESTION", None)
_SIMPLEST = b"reno"
"""It is in every Linux, and everybody may choose it (tcp(7), tcp_allowed_congestion_control)."""


def _paces() -> bool:
    """Tell whether this system's own way to avoid congestion holds packets back by a timer, as bbr does."""
    try:
        name = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_bytes().strip()
    except OSError:
        return False
    return name not in (_SIMPLEST, b"cubic")


_PACES = sys.platform == "linux" and _CONGESTION is not None and _paces()


def _setter() -> Callable[[int, int, int, bytes, int], int] | None:
    """Return libc's setsockopt; None where Python cannot call it.

    For an option that takes bytes Python's own tries two other forms first, makes an error of each, and so
    costs three times as much: with three of them for each connection, 4 % of what one costs in all.
    """
    try:
        import ctypes

        return ctypes.PyDLL(None).setsockopt  # does not let others run meanwhile: it never waits
    except (ImportError, OSError, AttributeError):
        return None


_set_bytes = _setter()


def _set(sock: socket.SocketType, level: int, option: int, value: bytes) -> None:
    """Set an option that takes bytes. Raises `OSError`."""
    if _set_bytes is None or _set_bytes(sock.fileno(), level, option, value, len(value)):
        sock.setsockopt(level, option, value)  # says why it failed


def prepare(sock: socket.SocketType, *, local: bool) -> None:
    """Set what every socket of the data path has: its listeners, accepted and dialled ones.

    SO_LINGER of 0 s makes any close a reset, also the one that the kernel does for a process that was
    killed: a download that was cut never looks whole. `end_orderly` takes it back. `local`: it leads to this
    machine only, where nothing is congested and pacing costs a third of the throughput and of the CPU.
    """
    set_option = sock.setsockopt
    for level, option, value in _OPTIONS:
        set_option(level, option, value)
    _set(sock, _LEVEL, _LINGER, _RESET)
    if local and _PACES and _CONGESTION is not None:
        try:  # noqa: SIM105 - `suppress` would cost more than the call
            _set(sock, _TCP, _CONGESTION, _SIMPLEST)
        except OSError:
            pass  # no kernel says so, and it would go on with its own way


def is_loopback(host: str) -> bool:
    """Tell whether a numeric address is one that only this machine can reach."""
    return host == "::1" or host.startswith("127.")


def end_orderly(sock: socket.SocketType) -> None:
    """Let the close that follows be an orderly one: the kernel still delivers what it took."""
    try:  # noqa: SIM105 - `suppress` would cost more than the call
        _set(sock, _LEVEL, _LINGER, _ORDERLY)
    except OSError:
        pass  # macOS: EINVAL on a socket that was reset meanwhile
