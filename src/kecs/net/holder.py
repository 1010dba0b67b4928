"""Who holds a port: the process, where the system tells (Linux: /proc/net/tcp, udp and /proc/*/fd)."""

from __future__ import annotations

import pwd
import sys
from collections.abc import Iterable
from pathlib import Path

from kecs import procnet

PROC = Path("/proc")


def holder_of(port: int, *, udp: bool = False) -> str | None:
    """Return e.g. `nginx (pid 12)` for what listens on `port`, else for what uses it; None if unknown.

    Of a process that may not be looked into, the user is named. `udp` asks for UDP's port of that number.
    """
    listed = procnet.udp_sockets() if udp else procnet.tcp_sockets()
    sockets = [sock for sock in listed if sock.local[1] == port and sock.inode]
    sockets.sort(key=lambda sock: sock.state != procnet.LISTEN)
    if not sockets:
        return None
    holders = [pid for pid in _pids() if _has(pid, f"socket:[{sockets[0].inode}]")]
    if holders:
        # The oldest of those that share it: that is the one to stop. Process ids start again from the
        # bottom one day, so they do not tell.
        oldest = min(holders, key=_started)
        return f"{_name(oldest)} (pid {oldest})"
    uid = sockets[0].uid
    try:
        return f"a process of user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"a process of uid {uid}"


def _pids() -> Iterable[int]:
    return (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())


def _has(pid: int, link: str) -> bool:
    try:
        return any(str(entry.readlink()) == link for entry in (PROC / str(pid) / "fd").iterdir())
    except OSError:
        return False  # it ended, or is another user's


def _started(pid: int) -> int:
    """Return when the process started, in clock ticks since boot (proc_pid_stat(5), field 22)."""
    try:
        # The second field, the name in parentheses, may hold anything.
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return sys.maxsize


def _name(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return "a process"
