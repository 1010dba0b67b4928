"""Processes of this machine on Linux: /proc, pidfd, prctl. Reached through `kecs.runtimes.process`.

Standard library only and quick to import (no typing, no dataclasses): the task shim uses it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct

from kecs.runtimes.sockdiag import Listener
from kecs.runtimes.sockdiag import listeners as _dump

ADOPTS_ORPHANS = True
"""`become_subreaper` works: an orphan of our descendants becomes our child."""
HAS_SOCKETS = True
"""The sockets of a process can be seen."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Process:
    """One process; `pid` and `start` together name it for the life of this boot."""

    __slots__ = ("parent", "pid", "session", "start", "zombie")

    def __init__(self, pid: int, parent: int, session: int, start: str, *, zombie: bool = False) -> None:
        self.pid = pid
        self.parent = parent
        self.session = session
        self.start = start
        """When it started, comparable for equality only (Linux: clock ticks since boot)."""
        self.zombie = zombie
        """It has ended and waits for its parent to notice."""


def boot_id() -> str:
    """Return the id of this boot of the machine."""
    return _read("/proc/sys/kernel/random/boot_id").decode().strip()


def process(pid: int) -> Process | None:
    """Return process `pid`, or None."""
    try:
        # proc_pid_stat(5): the name in parentheses may itself hold blanks and parentheses
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fields = os.read(descriptor, 4096).rpartition(b")")[2].split()  # one read has it all
        finally:
            os.close(descriptor)
        return Process(pid, int(fields[1]), int(fields[3]), fields[19].decode(), zombie=fields[0] in b"ZX")
    except (OSError, IndexError, ValueError):
        return None


def processes() -> list[Process]:
    """List every process."""
    found = (process(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - also for the shim
    return [one for one in found if one is not None]


def variable(pid: int, name: str) -> str | None:
    """Return a variable of the environment that process `pid` was started with, if it may be read."""
    try:
        block = _read(f"/proc/{pid}/environ")
    except OSError:
        return None
    prefix = os.fsencode(name) + b"="
    for item in block.split(b"\0"):
        if item.startswith(prefix):
            return os.fsdecode(item[len(prefix) :])
    return None


def send_signal(target: Process, number: int) -> bool:
    """Signal `target` if it is still the process that it was; tell whether it was there.

    Its start is read while a pidfd pins the process, so that a reused pid is never hit.
    """
    try:
        pinned = os.pidfd_open(target.pid)
    except ProcessLookupError:
        return False
    except OSError:  # no pidfd here (Linux before 5.3, a sandbox): the window is between two calls
        return _same(target) and _kill(target.pid, number)
    try:
        if not _same(target):
            return False
        signal.pidfd_send_signal(pinned, number)
    except (ProcessLookupError, PermissionError):
        return False
    else:
        return True
    finally:
        os.close(pinned)


def watch_exit(target: Process) -> int | None:
    """Return a descriptor that becomes readable when `target` ends; None if it has ended.

    Raises `OSError` where the kernel has no such descriptors.
    """
    try:
        pinned = os.pidfd_open(target.pid)
    except ProcessLookupError:
        return None
    if _same(target):
        return pinned
    os.close(pinned)
    return None


def socket_inodes(pid: int) -> dict[int, int]:
    """Return the sockets that process `pid` has open: inode to descriptor."""
    found: dict[int, int] = {}
    try:
        names = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 - also for the shim
    except OSError:
        return found
    for name in names:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115 - also for the shim
        except OSError:
            continue
        if target.startswith("socket:["):
            found[int(target[8:-1])] = int(name)
    return found


def holds(pid: int, descriptor: int, inode: int) -> bool:
    """Tell whether `descriptor` of process `pid` still is the socket `inode`; one system call."""
    try:
        return os.readlink(f"/proc/{pid}/fd/{descriptor}") == f"socket:[{inode}]"  # noqa: PTH115 - also for the shim
    except OSError:
        return False


def listeners() -> list[Listener]:
    """List the listening TCP sockets of this network namespace."""
    try:
        return _dump()
    except OSError:  # no sock_diag here: a kernel without it, or a sandbox
        from kecs import procnet

        rows = procnet.tcp_sockets(states=frozenset({procnet.LISTEN}))
        return [Listener(row.local[0], row.local[1], row.inode) for row in rows]


def has_ipv6_loopback() -> bool:
    """Tell whether ::1 can be dialled."""
    try:
        return b"0" * 31 + b"1 " in _read("/proc/net/if_inet6")
    except OSError:
        return False


def become_subreaper() -> None:
    """Make orphaned descendants of this process its children (prctl(2), Linux 3.4)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends; lost at exec of a set-uid program."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def load() -> None:
    """Load what `become_subreaper` and `die_with_parent` need: before a fork, not after."""
    _prctl(_PR_SET_PDEATHSIG, 0)


def close_inherited() -> None:
    """Close every descriptor but standard ones: what a library of our parent did not close at exec."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - also for the shim
        if int(name) > 2:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(int(name))


def peer_uid(peer: socket.socket) -> int:
    """Return the user at the other end of a unix socket (unix(7), SO_PEERCRED)."""
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", raw)[1])


def connect_in(folder: str, name: str) -> socket.socket:
    """Connect to the unix socket `name` in `folder`, however long the path. Raises `OSError`."""
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.connect(f"/proc/self/fd/{directory}/{name}")
        except BaseException:
            connected.close()
            raise
        return connected
    finally:
        os.close(directory)


_libc = None


def _prctl(option: int, value: int) -> None:
    global _libc
    if _libc is None:
        import ctypes

        _libc = ctypes.CDLL(None, use_errno=True)
    _libc.prctl(option, value, 0, 0, 0)


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, 1 << 16)
        while more := os.read(descriptor, 1 << 16):
            data += more
        return data
    finally:
        os.close(descriptor)


def _same(target: Process) -> bool:
    now = process(target.pid)
    return now is not None and now.start == target.start


def _kill(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
