"""Who holds a port: the process, where the system tells (Linux: /proc/net/tcp and /proc/*/fd)."""

from __future__ import annotations

import pwd
from collections.abc import Iterable
from pathlib import Path

from kecs import procnet

PROC = Path("/proc")


def holder_of(port: int) -> str | None:
    """Return e.g. `nginx (pid 12)` for what listens on `port`, else for what uses it; None if unknown.

    Of a process that may not be looked into, the user is named.
    """
    sockets = [sock for sock in procnet.tcp_sockets() if sock.local[1] == port and sock.inode]
    sockets.sort(key=lambda sock: sock.state != procnet.LISTEN)
    if not sockets:
        return None
    for pid in _pids():
        if _has_any(pid, {f"socket:[{sock.inode}]" for sock in sockets[:1]}):
            return f"{_name(pid)} (pid {pid})"
    uid = sockets[0].uid
    try:
        return f"a process of user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"a process of uid {uid}"


def _pids() -> Iterable[int]:
    """All processes, the oldest of those that share a socket first: that is the one to stop."""
    return sorted(int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())


def _has_any(pid: int, links: set[str]) -> bool:
    try:
        return any(str(entry.readlink()) in links for entry in (PROC / str(pid) / "fd").iterdir())
    except OSError:
        return False  # it ended, or is another user's


def _name(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return "a process"
