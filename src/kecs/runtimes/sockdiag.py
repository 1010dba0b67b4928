"""The listening TCP sockets of this machine, asked of the kernel by netlink (Linux, sock_diag(7)).

`/proc/net/tcp` walks the whole hash of established connections for each read (5 ms and more where
memory is plenty); a dump of the LISTEN state walks the listeners only, about 1 µs each. Standard
library only and quick to import: the task shim uses it.
"""

from __future__ import annotations

import errno
import socket
import struct

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_REQUEST_DUMP = 0x301
_TCP_LISTEN = 10
_TIMEOUT = 2.0


class Listener:
    """One socket in LISTEN."""

    __slots__ = ("host", "inode", "port")

    def __init__(self, host: str, port: int, inode: int) -> None:
        self.host = host
        """Address it is bound to, as text."""
        self.port = port
        self.inode = inode


def listeners() -> list[Listener]:
    """List the listening TCP sockets of this network namespace, IPv4 first. Raises `OSError`."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as asked:
        asked.settimeout(_TIMEOUT)
        return [found for family in (socket.AF_INET, socket.AF_INET6) for found in _dump(asked, family)]


def _dump(asked: socket.socket, family: int) -> list[Listener]:
    # struct inet_diag_req_v2 (linux/inet_diag.h): family, protocol, extensions, pad, states, socket id
    request = struct.pack("=BBBxI48x", family, socket.IPPROTO_TCP, 0, 1 << _TCP_LISTEN)
    header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0)
    asked.send(header + request)
    found: list[Listener] = []
    while True:
        data = asked.recv(1 << 16)
        offset = 0
        while offset + 16 <= len(data):
            length, kind = struct.unpack_from("=IH", data, offset)
            if kind == _NLMSG_DONE:
                return found
            if kind == _NLMSG_ERROR:
                (code,) = struct.unpack_from("=i", data, offset + 16)
                raise OSError(-code, errno.errorcode.get(-code, "netlink error"))
            found.append(_listener(data, offset + 16, family))
            offset += (length + 3) & ~3


def _listener(data: bytes, at: int, family: int) -> Listener:
    # struct inet_diag_msg: 4 bytes, id {sport, dport (big-endian), src[16], dst[16], if, cookie[8]},
    # expires, rqueue, wqueue, uid, inode
    (port,) = struct.unpack_from("!H", data, at + 4)
    size = 4 if family == socket.AF_INET else 16
    host = socket.inet_ntop(family, data[at + 8 : at + 8 + size])
    (inode,) = struct.unpack_from("=I", data, at + 68)
    return Listener(host, port, inode)
