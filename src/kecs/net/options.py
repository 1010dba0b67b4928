"""Socket options of the data path, each with its reason.

On Linux an accepted socket inherits all of these from its listener (`sk_clone_lock` in
net/core/sock.c copies them), so that accepting costs no further system call.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys

INHERITED = sys.platform == "linux"
"""Whether an accepted socket has its listener's options; elsewhere it is given them again."""

KEEPALIVE = (60, 15, 4)
"""Seconds of silence before the first probe, seconds between probes, probes: a peer that vanished
without a word is given up after two minutes. Linux' own 7200/75/9 is over two hours; the idle 60 s
stay below the 350 s after which the usual load balancers and NATs forget a connection."""

_RESET = struct.pack("ii", 1, 0)
_ORDERLY = struct.pack("ii", 0, 0)
_KEEPIDLE = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))

_TCP = socket.IPPROTO_TCP
_LEVEL = socket.SOL_SOCKET
_LINGER = socket.SO_LINGER


def prepare(sock: socket.SocketType) -> None:
    """Set what every socket of the data path has: its listeners, accepted and dialled ones.

    SO_LINGER of 0 s makes any close a reset, also the one that the kernel does for a process that was
    killed: a download that was cut never looks whole. `end_orderly` takes it back.
    """
    sock.setsockopt(_LEVEL, _LINGER, _RESET)
    sock.setsockopt(_TCP, socket.TCP_NODELAY, 1)
    idle, interval, probes = KEEPALIVE
    sock.setsockopt(_LEVEL, socket.SO_KEEPALIVE, 1)
    if _KEEPIDLE is not None:
        sock.setsockopt(_TCP, _KEEPIDLE, idle)
    sock.setsockopt(_TCP, socket.TCP_KEEPINTVL, interval)
    sock.setsockopt(_TCP, socket.TCP_KEEPCNT, probes)


def end_orderly(sock: socket.SocketType) -> None:
    """Let the close that follows be an orderly one: the kernel still delivers what it took."""
    with contextlib.suppress(OSError):  # macOS: EINVAL on a socket that was reset meanwhile
        sock.setsockopt(_LEVEL, _LINGER, _ORDERLY)
