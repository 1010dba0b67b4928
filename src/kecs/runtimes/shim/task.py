"""The task: which container starts and stops when, and when all of it has ended.

`advance` is idempotent: it looks at what is and does what follows; every event just calls it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

from kecs.runtimes import process
from kecs.runtimes.shim.container import Container
from kecs.runtimes.shim.loop import Loop, Timer
from kecs.runtimes.shim.ports import Ports
from kecs.runtimes.shim.tree import Tree, has_children

_UNKILLABLE = 10.0
"""Seconds after SIGKILL until a process that does not die (stuck in the kernel) is left alone."""


class Task:
    """The containers of one task, from its order to its end."""

    def __init__(self, order: dict, loop: Loop, changed: Callable[[], None]) -> None:  # type: ignore[type-arg] # JSON
        self.id: str = order["id"]
        self.tree = Tree(order["arn"])
        self.containers = {
            one["name"]: Container(one, loop, self.tree, self._hint, self.advance)
            for one in order["containers"]
        }
        self.stopping = False
        self.ended = False
        self.failure: str | None = None
        self.port_taken: int | None = None
        self._loop = loop
        self._changed = changed
        self._ports = Ports(list(self.containers.values()), loop, self.tree, changed)
        self._end_began: float | None = None
        self._again: Timer | None = None

    @property
    def stop_seconds(self) -> float:
        """Longest that a stop may take until all is killed: stop timeouts along the longest chain."""

        def chain(name: str, above: tuple[str, ...]) -> float:
            one = self.containers[name]
            below = [
                chain(other, (*above, name))
                for other, _ in one.depends_on
                if other in self.containers and other not in above
            ]
            return one.stop_timeout + max(below, default=0.0)

        return max((chain(name, ()) for name in self.containers), default=0.0)

    def advance(self) -> None:
        """Do what follows from how things are."""
        if self.ended:
            return
        for one in self.containers.values():
            one.settle()
        if not self.stopping and not self._is_over():
            self._start_what_can()
        self.stopping = self.stopping or self._is_over()
        if self.stopping:
            self._stop_what_may()
        if all(one.status == "STOPPED" for one in self.containers.values()):
            self._end()
        self._changed()

    def stop(self) -> None:
        """Stop all containers, those that others depend on last. Idempotent."""
        if not self.stopping:
            self.stopping = True
            self.advance()

    def kill(self) -> None:
        """End everything at once."""
        self.stopping = True
        for one in self.containers.values():
            if one.status == "RUNNING":
                one.begin_stop(0.0)
        self.advance()

    def reap(self) -> None:
        """Take the exit status of every child that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            for one in self.containers.values():
                if one.pid == pid:
                    self._on_exit(one, status)
                elif one.check is not None:
                    one.check.on_exit(pid, status)
        self.advance()

    def observed(self) -> dict:  # type: ignore[type-arg] # JSON
        """Return the state as `runtimes.base.TaskObserved` in JSON."""
        return {
            "task_id": self.id,
            "containers": [one.observed() for one in self.containers.values()],
            "ended": self.ended,
            "failure": self.failure,
            "port_taken": self.port_taken,
        }

    def _hint(self) -> None:
        self._ports.hint()

    def _on_exit(self, one: Container, status: int) -> None:
        if one.essential and not self.stopping and self.port_taken is None:
            self.port_taken = self._ports.stranger()
        one.on_exit(status)

    def _is_over(self) -> bool:
        stopped = [one for one in self.containers.values() if one.status == "STOPPED"]
        return any(one.essential for one in stopped) or len(stopped) == len(self.containers)

    def _start_what_can(self) -> None:
        again = True
        while again:
            again = False
            for one in self.containers.values():
                if one.status != "PENDING":
                    continue
                verdict = self._dependencies(one)
                if verdict is None:
                    continue
                again = True
                if verdict:
                    one.refuse(f"CannotStartContainerError: {verdict}")
                else:
                    self._start(one)
                if one.essential and one.started_at is None:
                    self.failure = one.reason
                    return
        waiting = [one.name for one in self.containers.values() if one.status == "PENDING"]
        if waiting and not any(one.status == "RUNNING" for one in self.containers.values()):
            self.failure = f"ResourceInitializationError: containers {', '.join(waiting)} wait for each other"
            self.stopping = True

    def _start(self, one: Container) -> None:
        one.start()
        if one.status == "RUNNING":
            self._ports.started()
            if one.start_timeout is not None:
                self._loop.call_later(one.start_timeout, self.advance)

    def _dependencies(self, one: Container) -> str | None:
        """Return "" when `one` may start, None when it must wait, else why it never can."""
        waits = False
        for name, condition in one.depends_on:
            what = f"container ordering dependency [{name}] for target [{one.name}]"
            other = self.containers.get(name)
            if other is None:
                return f"dependency graph: failed to resolve {what}: no such container"
            if _is_met(other, condition):
                continue
            if other.status == "STOPPED":
                why = "did not exit successfully" if condition == "SUCCESS" else f"stopped before {condition}"
                return f"dependency graph: failed to resolve {what} as dependency {why}"
            late = other.start_deadline is not None and time.monotonic() >= other.start_deadline
            if late and condition != "START":
                return f"dependency graph: {what} has timed out"
            waits = True
        return None if waits else ""

    def _stop_what_may(self) -> None:
        again = True
        while again:
            again = False
            for one in self.containers.values():
                if one.status == "PENDING":
                    one.cancel()
                    again = True
                elif one.status == "RUNNING" and one.stop_deadline is None and not self._is_needed(one):
                    one.begin_stop(one.stop_timeout)
                    self._loop.call_later(one.stop_timeout + 0.001, self.advance)

    def _is_needed(self, one: Container) -> bool:
        """Tell whether a container that depends on `one` still runs."""
        return any(
            other.status == "RUNNING" and any(name == one.name for name, _ in other.depends_on)
            for other in self.containers.values()
        )

    def _end(self) -> None:
        """End every process that is left, then the task; comes back until none is."""
        self._ports.stop()
        now = time.monotonic()
        if self._end_began is None:
            self._end_began = now
        left = [one for group in self.tree.by_owner().values() for one in group]
        for one in left:
            process.send_signal(one, signal.SIGKILL)
        alive = has_children() if process.ADOPTS_ORPHANS else any(not one.zombie for one in left)
        if self._again is not None:
            self._again.cancel()
        if alive and now - self._end_began < _UNKILLABLE:
            self._again = self._loop.call_later(0.01, self.reap)
            return
        if alive:
            pids = ", ".join(str(one.pid) for one in left)
            print(f"processes {pids} do not die of SIGKILL", file=sys.stderr, flush=True)  # noqa: T201
        for container in self.containers.values():
            container.close()
        self.ended = True


def _is_met(other: Container, condition: str) -> bool:
    if condition == "START":
        return other.started_at is not None
    if condition == "HEALTHY":
        return other.status == "RUNNING" and other.health == "HEALTHY"
    return other.status == "STOPPED" and (
        other.exit_code == 0 or (condition == "COMPLETE" and other.started_at is not None)
    )
