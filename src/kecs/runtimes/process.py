"""Processes of this machine: the one place where the local runtime knows which platform it is on.

`kecs.runtimes.procfs` (Linux) or `kecs.runtimes.portable` (elsewhere) does the work. Standard library
only: the task shim uses it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable

from kecs.runtimes.sockdiag import Listener

if sys.platform == "linux":
    from kecs.runtimes.procfs import (
        ADOPTS_ORPHANS,
        HAS_SOCKETS,
        Process,
        become_subreaper,
        boot_id,
        close_inherited,
        connect_in,
        die_with_parent,
        has_ipv6_loopback,
        holds,
        listeners,
        load,
        peer_uid,
        process,
        processes,
        send_signal,
        socket_inodes,
        variable,
        watch_exit,
    )
else:
    from kecs.runtimes.portable import (
        ADOPTS_ORPHANS,
        HAS_SOCKETS,
        Process,
        become_subreaper,
        boot_id,
        close_inherited,
        connect_in,
        die_with_parent,
        has_ipv6_loopback,
        holds,
        listeners,
        load,
        peer_uid,
        process,
        processes,
        send_signal,
        socket_inodes,
        variable,
        watch_exit,
    )

__all__ = [
    "ADOPTS_ORPHANS",
    "HAS_SOCKETS",
    "Listener",
    "Process",
    "become_subreaper",
    "boot_id",
    "close_inherited",
    "connect_in",
    "descendants",
    "die_with_parent",
    "has_ipv6_loopback",
    "holds",
    "is_alive",
    "listeners",
    "load",
    "peer_uid",
    "process",
    "processes",
    "reap",
    "send_signal",
    "socket_inodes",
    "subtrees",
    "variable",
    "watch_exit",
]


def is_alive(pid: int, start: str) -> Process | None:
    """Return the process when `pid` still is the one that started at `start` and has not ended."""
    found = process(pid)
    return found if found is not None and found.start == start and not found.zombie else None


def descendants(pid: int) -> list[Process]:
    """Return the children of `pid`, theirs, and so on; parents first; without `pid` itself."""
    return subtrees(processes(), lambda one: one.parent == pid)


def subtrees(everything: Iterable[Process], is_root: Callable[[Process], bool]) -> list[Process]:
    """Return the processes of `everything` that are roots, and all below them, parents first."""
    children: dict[int, list[Process]] = {}
    found: dict[int, Process] = {}
    for one in everything:
        children.setdefault(one.parent, []).append(one)
        if is_root(one):
            found[one.pid] = one
    queue = list(found.values())
    for one in queue:
        for child in children.get(one.pid, ()):
            if child.pid not in found:
                found[child.pid] = child
                queue.append(child)
    return queue


def reap(pid: int) -> bool:
    """Take the exit status of `pid` if it is an ended child of this process; tell whether it was."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False
