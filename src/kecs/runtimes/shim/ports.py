"""What the containers listen on: looked for quickly until all ports listen, then merely confirmed.

A look costs one netlink dump; descriptors of processes are read only when a socket that matters is
new. With 200 idle tasks, each shim wakes every five seconds for a few system calls.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable

from kecs.runtimes import process
from kecs.runtimes.shim.container import Container
from kecs.runtimes.shim.loop import Loop, Timer
from kecs.runtimes.shim.tree import Tree

_QUICKEST = 0.012
"""Seconds between two looks at first; later a twentieth of the time it has taken so far."""
_SLOWEST = 1.0
_CONFIRM = (1.0, 5.0)
"""Seconds between confirmations once everything listens: from, to; a tenth of the time since the start."""
_TABLE = 10.0
"""Seconds until a look at the table of listeners is due although everything listens."""
_EVERYTHING = (1.0, 30.0)
"""Seconds between looks for listeners on ports that nobody mapped (`explain` shows them): while a
mapped port is missing, a tenth of the time since the start and at least this; else the second."""
_ESTRANGED = 60.0
"""Seconds after which a stranger's socket is looked into again."""
_SETTLED = 40.0
"""Seconds after the last start, within which a listener on an unmapped port is looked for everywhere."""
_CHOSEN = range(20000, 30000)
"""Ports that KECS gives to tasks and forwards: in this range the others' need not be looked into."""


class _Known:
    """A listening socket of ours, where it was found, and how to dial it."""

    __slots__ = ("address", "container", "descriptor", "pid")

    def __init__(self, container: Container, pid: int, descriptor: int, address: tuple[str, int]) -> None:
        self.container = container
        self.pid = pid
        self.descriptor = descriptor
        self.address = address


class Ports:
    """Keeps `Container.listening` true and calls `changed` when it has changed."""

    def __init__(
        self, containers: list[Container], loop: Loop, tree: Tree, changed: Callable[[], None]
    ) -> None:
        self._containers = containers
        self._loop = loop
        self._tree = tree
        self._changed = changed
        self._known: dict[int, _Known] = {}
        self._strangers = {one.inode for one in process.listeners()}
        """Sockets that were looked into and are not ours; what listens before we start anything is not."""
        self._strangers_since = time.monotonic()
        self._seen: set[int] = set()
        self._timer: Timer | None = None
        self._started = 0.0
        self._looked = 0.0
        self._everywhere_at = 0.0
        self._ipv6 = process.has_ipv6_loopback()

    def started(self) -> None:
        """Look quickly: a container has just started."""
        self._started = time.monotonic()
        self._everywhere_at = self._started + _EVERYTHING[0]
        self._schedule(_QUICKEST)

    def hint(self) -> None:
        """Look soon: a container that should listen has just written something."""
        soon = max(time.monotonic() + _QUICKEST / 4, self._looked + _QUICKEST)
        if self._timer is not None and self._timer.when > soon and self._missing():
            self._schedule(soon - time.monotonic())

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stranger(self) -> int | None:
        """Return a port of the task that never listened and that a process outside of the task holds."""
        never = {port for container in self._containers for port in container.ports} - self._seen
        if not never:
            return None
        if not process.HAS_SOCKETS:
            return next((port for port in sorted(never) if _dial(port)), None)
        held = {one.inode: one.port for one in process.listeners() if one.port in never}
        if held:
            for processes in self._tree.by_owner().values():
                for one in processes:
                    for inode in process.socket_inodes(one.pid):
                        held.pop(inode, None)
        return min(held.values(), default=None)

    def _schedule(self, seconds: float) -> None:
        self.stop()
        self._timer = self._loop.call_later(seconds, self._tick)

    def _running(self) -> list[Container]:
        return [one for one in self._containers if one.pid is not None]

    def _missing(self) -> set[int]:
        running = self._running()
        there = {port for one in running for _, port in one.listening}
        return {port for one in running for port in one.ports} - there

    def _tick(self) -> None:
        began = time.monotonic()
        if not self._running():
            self._timer = None
            return
        if process.HAS_SOCKETS:
            missing = self._confirm() | self._missing()
            if missing or began >= min(self._looked + _TABLE, self._everywhere_at):
                self._look(began, missing)
            self._show({(one.container.name, one.address) for one in self._known.values()})
        else:
            self._dial_missing()
        self._schedule(self._delay(began))

    def _delay(self, began: float) -> float:
        now = time.monotonic()
        if not self._missing():
            return min(_CONFIRM[1], max(_CONFIRM[0], (now - self._started) / 10))
        return max(_QUICKEST, 10 * (now - began), min(_SLOWEST, (now - self._started) / 20))

    def _confirm(self) -> set[int]:
        """Drop what is no longer open where it was found; return the ports of what was dropped."""
        gone = [
            inode
            for inode, one in self._known.items()
            if one.container.exited or not process.holds(one.pid, one.descriptor, inode)
        ]
        return {self._known.pop(inode).address[1] for inode in gone}

    def _look(self, now: float, missing: set[int]) -> None:
        """Find out whose the sockets are that listen and are not known yet; quickly for `missing` ports."""
        table = {one.inode: one for one in process.listeners()}
        self._known = {inode: one for inode, one in self._known.items() if inode in table}
        everywhere = now >= self._everywhere_at
        if missing and now - self._strangers_since > _ESTRANGED:
            self._strangers.clear()  # one of them may have become ours by inheritance
            self._strangers_since = now
        self._strangers &= table.keys()
        fresh = {
            inode
            for inode, one in table.items()
            if inode not in self._known
            and inode not in self._strangers
            and (everywhere or one.port in missing)
        }
        if fresh:
            self._attribute(fresh, ((one, [one.pid]) for one in self._running() if one.pid), table)
        # Beyond the main processes it takes a look at every process of the machine: not when all is well.
        worth = bool(missing) or now - self._started < _SETTLED
        if worth and any(table[one].port in missing or table[one].port not in _CHOSEN for one in fresh):
            found = self._tree.by_owner()
            rest = ((one, [each.pid for each in found.get(one.name, [])]) for one in self._running())
            self._attribute(fresh, rest, table)
        self._strangers |= fresh
        self._looked = now
        if everywhere:
            often = max(_EVERYTHING[0], (now - self._started) / 10)
            self._everywhere_at = now + (often if missing else _EVERYTHING[1])

    def _attribute(
        self,
        fresh: set[int],
        holders: Iterable[tuple[Container, list[int]]],
        table: dict[int, process.Listener],
    ) -> None:
        """Move from `fresh` to the known those sockets that a process of `holders` has open."""
        for container, pids in holders:
            for pid in pids:
                for inode, descriptor in process.socket_inodes(pid).items():
                    if inode in fresh:
                        fresh.discard(inode)
                        one = table[inode]
                        self._known[inode] = _Known(
                            container, pid, descriptor, (self._host(one.host), one.port)
                        )

    def _host(self, host: str) -> str:
        """Return the address to dial for one that a socket is bound to."""
        if host == "0.0.0.0":  # noqa: S104 - it is compared, not bound
            return "127.0.0.1"
        if host == "::":
            # IPV6_V6ONLY is not told, and ::1 works with and without it
            return "::1" if self._ipv6 else "127.0.0.1"
        return host.removeprefix("::ffff:")

    def _dial_missing(self) -> None:
        there = {(one.name, address) for one in self._running() for address in one.listening}
        missing = self._missing()
        for one in self._running():
            for port in one.ports:
                if port in missing and (host := _dial(port)):
                    there.add((one.name, (host, port)))
        self._show(there)

    def _show(self, there: set[tuple[str, tuple[str, int]]]) -> None:
        changed = False
        for one in self._running():
            # IPv4 first, then by port
            mine = sorted((address for name, address in there if name == one.name), key=_order)
            if mine != one.listening:
                one.listening = mine
                self._seen.update(port for _, port in mine)
                changed = True
        if changed:
            self._changed()


def _order(address: tuple[str, int]) -> tuple[bool, int, str]:
    host, port = address
    return (":" in host, port, host)


def _dial(port: int) -> str | None:
    """Return the loopback address that answers on `port`, if one does."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.settimeout(0.2)
                probe.connect((host, port))
                return host
        except OSError:
            continue
    return None
