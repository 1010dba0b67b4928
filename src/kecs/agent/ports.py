"""Which local port a forward gets: chosen by binding it, never by probing (docs/design/contracts.md, 3)."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from typing import Any

from kecs.errors import ExitCode, KecsError
from kecs.net import listener

UNPRIVILEGED = 1024
"""The first port that anybody may bind: below it, the target port is not tried as the local one."""

Sockets = tuple[socket.socket, ...]


def bind_given(addresses: Sequence[str], port: int) -> Sockets:
    """Bind the port that was asked for. Raises `KecsError` (exit 4) that names its holder."""
    try:
        return listener.bind(addresses, port)
    except OSError as error:
        raise _not_bound(error, port) from error


def bind_chosen(addresses: Sequence[str], target_port: int, avoid: set[int]) -> tuple[int, Sockets]:
    """Bind the target port when it is 1024 or above, not to be avoided and free; else another."""
    try:
        if target_port >= UNPRIVILEGED and target_port not in avoid:
            with contextlib.suppress(listener.PortTaken):
                return target_port, listener.bind(addresses, target_port)
        return listener.bind_chosen(addresses, listener.FORWARD_PORTS, avoid)
    except OSError as error:
        raise _not_bound(error, None) from error


def why_not_bound(error: OSError, port: int | None) -> str:
    """Say why `port` (None: one that KECS chooses) cannot be listened on: its holder where known."""
    holder: Any = getattr(error, "holder", None)
    address: Any = getattr(error, "address", None)
    where = (f"port {port}" if port is not None else "a port") + (f" on {address}" if address else "")
    if isinstance(error, listener.PortTaken) or error.errno == errno.EADDRINUSE:
        return f"{where} is taken" + (f" by {holder}" if holder else "")
    if error.errno == errno.EACCES:
        return f"{where} needs more rights than user {os.getuid()} has"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{where} cannot be bound: this machine has no such address"
    return f"{where} cannot be bound: {error.strerror or error}"


def _not_bound(error: OSError, port: int | None) -> KecsError:
    message = why_not_bound(error, port)
    if isinstance(error, listener.PortTaken) or error.errno == errno.EADDRINUSE:
        hint = "choose another `--local-port`, or leave it out to have one chosen"
        return KecsError(message, hint, ExitCode.CONFLICT)
    if error.errno == errno.EADDRNOTAVAIL:
        return KecsError(message, "give an `--address` of this machine, or none for loopback", ExitCode.USAGE)
    if error.errno == errno.EACCES:
        return KecsError(message, "choose a local port of 1024 or above")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return KecsError(message, "stop forwards that are not needed, or raise `ulimit -n`")
    return KecsError(message, "see `kecs logs --daemon agent`")
