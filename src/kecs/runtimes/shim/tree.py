"""Which processes belong to which container, and whether any are left at all."""

from __future__ import annotations

import os

from kecs.runtimes import process
from kecs.runtimes.process import Process
from kecs.runtimes.shim import CHECK_VARIABLE, CONTAINER_VARIABLE, TASK_VARIABLE


class Tree:
    """The processes below the shim. Orphans are ours too (subreaper) and keep their owner.

    An owner is a container's name, or `<container>/check` for a health check; a container's name
    holds no slash.
    """

    def __init__(self, task_arn: str) -> None:
        self._arn = task_arn
        self._roots: dict[int, str] = {}
        self._sessions: dict[int, str] = {}
        self._orphans: dict[tuple[int, str], str] = {}

    def add(self, pid: int, owner: str) -> None:
        """Say that our child `pid`, which leads its own session, is the main process of `owner`."""
        self._roots[pid] = owner
        self._sessions[pid] = owner

    def remove(self, pid: int) -> None:
        """Say that the main process `pid` has ended; what it leaves behind still is its owner's."""
        owner = self._roots.pop(pid, "")
        if "/" in owner:
            self._sessions.pop(pid, None)

    def by_owner(self) -> dict[str, list[Process]]:
        """Return all processes below the shim, by owner; "" has those that hide whose they are."""
        if process.ADOPTS_ORPHANS and not has_children():
            return {}
        everything = process.processes()
        roots = {one.pid for one in self._our_roots(everything)}
        orphans: dict[tuple[int, str], str] = {}
        owners: dict[int, str] = {}
        found: dict[str, list[Process]] = {}
        for one in process.subtrees(everything, lambda one: one.pid in roots):  # parents come first
            if one.pid in self._roots:
                owner = self._roots[one.pid]
            elif one.pid in roots:
                key = (one.pid, one.start)
                known = self._orphans.get(key)
                owner = orphans[key] = self._owner_of_orphan(one) if known is None else known
            else:
                owner = owners[one.parent]
            owners[one.pid] = owner
            found.setdefault(owner, []).append(one)
        self._orphans = orphans
        return found

    def owned_by(self, owner: str) -> list[Process]:
        """Return the living processes of `owner`."""
        return [one for one in self.by_owner().get(owner, []) if not one.zombie]

    def _our_roots(self, everything: list[Process]) -> list[Process]:
        shim = os.getpid()
        roots = [one for one in everything if one.parent == shim]
        if not process.ADOPTS_ORPHANS:
            # Its group may be another's by now, so the environment must name this task.
            roots += [
                one
                for one in everything
                if one.parent != shim
                and one.session in self._sessions
                and process.variable(one.pid, TASK_VARIABLE) == self._arn
            ]
        return roots

    def _owner_of_orphan(self, orphan: Process) -> str:
        if orphan.session in self._sessions:
            return self._sessions[orphan.session]
        if container := process.variable(orphan.pid, CONTAINER_VARIABLE):
            return f"{container}/check" if process.variable(orphan.pid, CHECK_VARIABLE) else container
        return ""


def has_children() -> bool:
    """Tell whether this process has any child, ended or not."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
