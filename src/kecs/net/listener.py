"""Binding the listeners of forwards (and the ports of local tasks), all addresses or none.

A port is chosen by binding it, never by probing and binding later. SO_REUSEADDR lets a port come back
while old connections linger in TIME_WAIT; SO_REUSEPORT is never set: it would let two share a port. UDP has
no TIME_WAIT, and there SO_REUSEADDR lets two share a port too (socket(7)): it is not set either.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

from kecs.errors import ExitCode, KecsError
from kecs.net.holder import holder_of

FORWARD_PORTS = range(20000, 30000)
"""Ports for forwards, tried from the bottom: outside the kernels' ephemeral ranges (Linux 32768-60999,
IANA and macOS 49152-65535), so that no outgoing connection takes a forward's port while the agent
is away."""

TASK_PORTS = range(29999, 19999, -1)
"""Ports for local tasks: the same ones from the top."""

KEPT_PORTS = range(25000, 28000)
"""Ports that are kept for services: from the middle, where the others come last."""

BACKLOG = 4096
"""Linux cuts it to net.core.somaxconn, 4096 since 5.4."""


class PortTaken(KecsError):  # noqa: N818 - it names the port's state
    """Another socket has the port."""

    def __init__(self, address: str, port: int, holder: str | None, *, udp: bool = False) -> None:
        which = f"UDP port {port}" if udp else f"port {port}"
        super().__init__(
            f"{which} on {address} is taken" + (f" by {holder}" if holder else ""),
            "stop what holds it, or choose another local port",
            ExitCode.CONFLICT,
        )
        self.address = address
        self.port = port
        self.holder = holder


def bind(addresses: Sequence[str], port: int, *, udp: bool = False) -> tuple[socket.socket, ...]:
    """Return listening sockets on `port` at every one of `addresses` (numeric IPv4 or IPv6), or none.

    With `udp` they are bound sockets of UDP, whose ports are other ones than TCP's. Port 0 lets the kernel
    choose one that is free on all of them. Raises `PortTaken`, or `KecsError` for an address that is none of
    this machine's and for a port that only root may have.
    """
    try:
        return _bind_all(addresses, port, udp=udp)
    except PortTaken as error:
        raise PortTaken(error.address, error.port, holder_of(error.port, udp=udp), udp=udp) from error


def bind_chosen(
    addresses: Sequence[str], candidates: Iterable[int], avoid: AbstractSet[int], *, udp: bool = False
) -> tuple[int, tuple[socket.socket, ...]]:
    """Bind the first of `candidates` that is not in `avoid` and free on all `addresses`.

    Raises `KecsError` when there is none.
    """
    for port in candidates:
        if port not in avoid:
            try:
                return port, _bind_all(addresses, port, udp=udp)
            except PortTaken:
                continue
    raise KecsError(
        "none of the ports that KECS chooses from is free",
        "name one by `--local-port`, or stop what holds ports 20000 to 29999",
        ExitCode.CONFLICT,
    )


def default_addresses() -> list[str]:
    """Return 127.0.0.1, and ::1 where it can be bound."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return ["127.0.0.1"]
    return ["127.0.0.1", "::1"]


def _bind_all(addresses: Sequence[str], port: int, *, udp: bool) -> tuple[socket.socket, ...]:
    attempts = 16 if port == 0 else 1
    while True:
        attempts -= 1
        bound: list[socket.socket] = []
        try:
            for address in dict.fromkeys(addresses):
                bound.append(_bind_one(address, bound[0].getsockname()[1] if bound else port, udp=udp))
        except BaseException as error:
            for sock in bound:
                sock.close()
            if attempts and isinstance(error, PortTaken):
                continue  # the kernel's choice for the first address was taken on another
            raise
        return tuple(bound)


def _bind_one(address: str, port: int, *, udp: bool) -> socket.socket:
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    try:
        family, _, _, _, where = socket.getaddrinfo(
            address, port, type=kind, flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise KecsError(
            f"`{address}` is not an IP address",
            "give one like `127.0.0.1`, `::1` or `0.0.0.0`",
            ExitCode.USAGE,
        ) from error
    if sys.platform == "darwin" and port and not udp and _answers(family, where):
        # There a listener on the wildcard address does not stop another from binding 127.0.0.1.
        raise PortTaken(address, port, None)
    sock = socket.socket(family, kind)
    try:
        if not udp:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        if not udp:
            sock.listen(BACKLOG)  # with SO_REUSEADDR a taken port may show only here
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise _translated(address, port, error, udp=udp) from error
    return sock


def _answers(family: int, where: tuple[object, ...]) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(0.5)
        return sock.connect_ex(where) == 0


def _translated(address: str, port: int, error: OSError, *, udp: bool) -> KecsError:
    if error.errno == errno.EADDRINUSE:
        return PortTaken(address, port, None, udp=udp)
    if error.errno in (errno.EACCES, errno.EPERM):
        return KecsError(
            f"port {port} on {address} needs privileges that KECS does not have",
            "choose a local port of 1024 or above",
            ExitCode.USAGE,
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return KecsError(
            f"`{address}` is no address of this machine",
            "give one that `ip address` shows, or leave `--address` away",
            ExitCode.USAGE,
        )
    return KecsError(f"port {port} on {address} cannot be bound: {error.strerror or error}")
