"""Processes of this machine where there is no /proc (macOS): `ps` and kill. Reached through `process`.

Tested against fakes only; slow (a `ps` for each question), which is why Linux has `procfs`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys

from kecs.runtimes.procfs import Process
from kecs.runtimes.sockdiag import Listener

ADOPTS_ORPHANS = False
"""An orphan goes to process 1."""
HAS_SOCKETS = False
"""The sockets of a process cannot be seen: a port is ready when a connection to it succeeds."""

_LOCAL_PEERCRED = 1
"""macOS' sys/un.h; at level SOL_LOCAL = 0 it gives `struct xucred`."""


def boot_id() -> str:
    """Return the id of this boot of the machine (macOS: kern.bootsessionuuid)."""
    return _run("sysctl", "-n", "kern.bootsessionuuid").strip()


def process(pid: int) -> Process | None:
    """Return process `pid`, or None."""
    found = _parse(_run("ps", "-o", "pid=,ppid=,pgid=,stat=,lstart=", "-p", str(pid)))
    return found[0] if found else None


def processes() -> list[Process]:
    """List every process; its `session` is its group, the nearest that `ps` tells everywhere."""
    return _parse(_run("ps", "-A", "-o", "pid=,ppid=,pgid=,stat=,lstart="))


def _parse(output: str) -> list[Process]:
    found = []
    for line in output.splitlines():
        fields = line.split(maxsplit=4)
        if len(fields) == 5:
            pid, parent, group, state, start = fields
            found.append(
                Process(int(pid), int(parent), int(group), start.strip(), zombie=state.startswith("Z"))
            )
    return found


def variable(pid: int, name: str) -> str | None:
    """Return a variable of the environment of process `pid`; only values without blanks are told whole."""
    for word in _run("ps", "-E", "-ww", "-o", "command=", "-p", str(pid)).split():
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def send_signal(target: Process, number: int) -> bool:
    """Signal `target` if it still is the process that it was; tell whether it was there."""
    now = process(target.pid)
    if now is None or now.start != target.start:
        return False
    try:
        os.kill(target.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def watch_exit(target: Process) -> int | None:
    """Return None if `target` has ended, else raise `OSError`: no descriptor can be had, so ask again."""
    now = process(target.pid)
    if now is None or now.zombie or now.start != target.start:
        return None
    raise OSError("a process cannot be watched by a descriptor here")


def socket_inodes(pid: int) -> dict[int, int]:
    """Return nothing: sockets cannot be seen."""
    del pid
    return {}


def holds(pid: int, descriptor: int, inode: int) -> bool:
    """Return False: sockets cannot be seen."""
    del pid, descriptor, inode
    return False


def listeners() -> list[Listener]:
    """Return nothing: sockets cannot be seen."""
    return []


def has_ipv6_loopback() -> bool:
    """Tell whether ::1 can be bound."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def become_subreaper() -> None:
    """Do nothing: orphans go to process 1 here, and are found by group and environment."""


def die_with_parent() -> None:
    """Do nothing: there is no such order to the kernel here."""


def load() -> None:
    """Do nothing."""


def close_inherited() -> None:
    """Close descriptors but standard ones; not up to the limit, which may be a thousand million."""
    os.closerange(3, 4096)


def peer_uid(peer: socket.socket) -> int:
    """Return the user at the other end of a unix socket (struct xucred: version, uid, …)."""
    raw = peer.getsockopt(0, _LOCAL_PEERCRED, 76)
    return int(struct.unpack_from("=II", raw)[1])


def connect_in(folder: str, name: str) -> socket.socket:
    """Connect to the unix socket `name` in `folder`, however long the path. Raises `OSError`."""
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        with contextlib.ExitStack() as on_error:
            connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            on_error.callback(connected.close)
            connected.connect(name)
            on_error.pop_all()
        return connected
    finally:
        os.fchdir(here)
        os.close(here)


def _run(*command: str) -> str:
    import subprocess

    environment = {"PATH": "/bin:/usr/bin:/sbin:/usr/sbin", "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode not in (0, 1):  # `ps -p` exits 1 for a process that is not there
        print(f"{command[0]}: {done.stderr.strip()}", file=sys.stderr)  # noqa: T201
    return done.stdout
