"""Private unix sockets: where the daemons serve, and who asks (docs/design/contracts.md, section 8)."""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
from pathlib import Path

from kecs import files
from kecs.errors import KecsError

BACKLOG = 128

_LINUX = sys.platform == "linux"
_SOL_LOCAL = 0
_LOCAL_PEERCRED = 1
"""macOS' sys/un.h; the socket module does not name them."""


def bind_private(path: Path) -> socket.socket:
    """Return a listening, non-blocking unix socket at `path`, mode 0600, in a folder that is ours, 0700.

    A socket file that stands there is a dead daemon's and is removed: call this only while holding
    the daemon's lock, which says that no other lives. Anything but a socket is refused.
    """
    files.make_private_folder(path.parent)
    try:
        path.parent.chmod(0o700)
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if _LINUX:
                # The file's mode is the socket's (unix_bind in net/unix/af_unix.c): private from the
                # first moment, without the process-wide umask.
                os.fchmod(sock.fileno(), 0o600)
            sock.bind(str(path))
            path.chmod(0o600)  # nobody can connect before `listen`, so here it is not too late either
            sock.listen(BACKLOG)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise files.unusable(path, error) from error
    return sock


def peer_uid(sock: socket.socket) -> int:
    """Return the user id of the process at the other end of a unix socket (as it was at its connect)."""
    if _LINUX:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", raw)[1])  # struct ucred: pid, uid, gid (unix(7))
    raw = sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 76)
    version, uid = struct.unpack_from("2I", raw)  # struct xucred (sys/ucred.h)
    if version != 0:
        raise KecsError("the system names the other end of a socket in an unknown way")
    return int(uid)


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise KecsError(f"`{path}` is not a socket", "something else stands where it is needed; move it away")
    path.unlink()
