"""KECS ports of local tasks: chosen by binding, kept as rows while the task lives and 60 s more.

(docs/design/contracts.md, 3 and 7.) A port is bound to see that it is free and released at once, because
the task's own process is to bind it; between the two a stranger can take it, which the runtime then
reports as `port_taken` and the task flow answers with another port.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable, Sequence

import msgspec

from kecs.ecs import kept_ports
from kecs.ecs.model import LocalPort, Task, TaskPort
from kecs.ecs.state import Reader, Tx

KEPT_AFTER_RELEASE = 60.0
"""Seconds for which a released port is not given again."""


class NoPortLeftError(Exception):
    """Every candidate is taken; the text is the task's stopped reason."""


class TaskPorts:
    """Chooses ports for tasks. Lives on the event loop: a choice is made without an await in it."""

    def __init__(
        self,
        candidates: Sequence[int],
        is_free: Callable[[int], bool],
        named: Callable[[], set[int]],
    ) -> None:
        self._candidates = candidates
        self._is_free = is_free
        self._named = named
        self._in_hand: set[int] = set()

    def choose(self, state: Reader, task: Task) -> list[TaskPort]:
        """Return the ports of `task` with a port of this machine for each that needs one.

        The chosen ports stay reserved until `commit` or `give_back`. Raises `NoPortLeftError`. A Pod needs
        none: its network is its own.
        """
        if task.pod is not None:
            return task.ports
        # One number stands for a container port in both protocols, so that PORT_53 has one meaning.
        numbers: dict[tuple[str, int], int] = {}
        avoid: set[int] | None = None
        chosen: list[TaskPort] = []
        for port in task.ports:
            number = self._given(task, port)
            if number == 0:
                if avoid is None:
                    avoid = kept_ports.ports_in_rows(state) | self._named()
                key = (port.container, port.container_port)
                number = numbers.get(key) or self._next(avoid)
                numbers[key] = number
            chosen.append(msgspec.structs.replace(port, host_port=number, ready=False))
        return chosen

    def commit(self, tx: Tx, task: Task, ports: Iterable[TaskPort]) -> None:
        """Write the rows of the chosen ports."""
        for number in sorted({port.host_port for port in ports} & self._in_hand):
            tx.put(LocalPort(port=number, region=task.region, task_id=task.id))

    def give_back(self, ports: Iterable[TaskPort]) -> None:
        """End the reservation: the rows are committed, or will not be."""
        self._in_hand -= {port.host_port for port in ports}

    @staticmethod
    def _given(task: Task, port: TaskPort) -> int:
        """Return the port that network mode and definition prescribe; 0: a KECS port is needed."""
        if task.network_mode == "host":
            return port.container_port
        return port.host_port

    def _next(self, avoid: set[int]) -> int:
        for candidate in self._candidates:
            if candidate not in avoid and candidate not in self._in_hand and self._is_free(candidate):
                self._in_hand.add(candidate)
                return candidate
        raise NoPortLeftError(
            "CannotStartContainerError: no port is left for local tasks between "
            f"{min(self._candidates)} and {max(self._candidates)}"
        )


def release(tx: Tx, task: Task, now: float, number: int | None = None) -> None:
    """Mark the ports of `task` (or only `number`) as released: they may be given again later."""
    for port in task.ports:
        row = tx.get(LocalPort, port.host_port)
        if row is None or row.task_id != task.id or row.released_at is not None:
            continue
        if number is None or number == row.port:
            tx.put(msgspec.structs.replace(row, released_at=now))


def can_bind(number: int) -> bool:
    """Tell whether a process of this machine could listen on `number` now, on any address, TCP and UDP.

    Bound and not listened on, so that nobody can connect meanwhile; where a listener has the port, even on
    one address only, the bind fails (bind(2), EADDRINUSE).
    """
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 - not listened on
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            try:
                with socket.socket(family, kind) as probe:
                    if kind == socket.SOCK_STREAM:
                        # As the task's own server may: connections of the port's last holder may linger.
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    probe.bind((address, number))
            except OSError as error:
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    return False
    return True
