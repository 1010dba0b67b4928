"""One container of the task: its process, its output, its state."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from kecs.runtimes import process
from kecs.runtimes.process import Process
from kecs.runtimes.shim import spawn
from kecs.runtimes.shim.health import Health, HealthCheck
from kecs.runtimes.shim.log import Log
from kecs.runtimes.shim.loop import READ, Loop
from kecs.runtimes.shim.tree import Tree

_STOP_SIGNAL = signal.SIGTERM
"""An image's STOPSIGNAL is not known where images are not pulled; this is Docker's default."""
_AT_ONCE = 1 << 20
"""Bytes of output taken in one go: a chatty container must not keep the others waiting."""


class Container:
    """A container as the shim runs it. `kecs.runtimes.orders` writes the order it is made from."""

    def __init__(
        self,
        order: dict,  # type: ignore[type-arg] # JSON
        loop: Loop,
        tree: Tree,
        on_output: Callable[[], None],
        on_health: Callable[[], None],
    ) -> None:
        self.name: str = order["name"]
        self.essential: bool = order["essential"]
        self.depends_on: list[tuple[str, str]] = [(name, condition) for name, condition in order["dependsOn"]]
        self.stop_timeout: float = order["stopTimeout"]
        self.start_timeout: float | None = order["startTimeout"]
        self.ports: list[int] = order["ports"]
        """TCP ports of this machine that it should listen on."""
        self.status = "PENDING"
        self.identity: Process | None = None
        self.exited = False
        """Its main process has ended; it is STOPPED once nothing else of it is left."""
        self.exit_code: int | None = None
        self.reason: str | None = order["refused"]
        self.listening: list[tuple[str, int]] = []
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.start_deadline: float | None = None
        """Monotonic time by which those that wait for it give up."""
        self.stop_deadline: float | None = None
        """Monotonic time of SIGKILL, once it was told to stop."""
        self.runtime_id: str = order["runtimeId"]
        self._program = spawn.Program(
            order["argv"],
            order["environment"],
            order["directory"],
            tuple(order["user"]) if order["user"] else None,
        )
        self._loop = loop
        self._tree = tree
        self._on_output = on_output
        self._told: set[int] = set()
        self._log: Log | None = None
        self._pipe = -1
        self.check: HealthCheck | None = None
        if order["healthCheck"] is not None:
            self.check = HealthCheck(order["healthCheck"], self._program, self.name, loop, tree, on_health)

    @property
    def health(self) -> str:
        """HEALTHY, UNHEALTHY or UNKNOWN."""
        return (self.check.status if self.check is not None else Health.UNKNOWN).value

    @property
    def pid(self) -> int | None:
        """Process id of its main process while that lives."""
        return self.identity.pid if self.identity is not None and not self.exited else None

    def start(self) -> None:
        """Start it; on failure it is STOPPED with a reason."""
        if self.reason is None:
            try:
                self._start()
            except spawn.CannotStart as error:
                self.reason = f"CannotStartContainerError: container {self.name}: {error}"
            except OSError as error:
                self.reason = f"CannotStartContainerError: container {self.name}: its log: {error.strerror}"
        if self.reason is not None:
            self._stopped()

    def _start(self) -> None:
        self._log = Log(f"{self.name}.log")
        self._pipe, theirs = os.pipe()
        os.set_blocking(self._pipe, False)
        try:
            pid = spawn.start(self._program, theirs)
        finally:
            os.close(theirs)
        self._tree.add(pid, self.name)
        self.identity = process.process(pid)
        self._loop.watch(self._pipe, READ, self._take_output)
        self.status = "RUNNING"
        self.started_at = time.time()
        if self.start_timeout is not None:
            self.start_deadline = time.monotonic() + self.start_timeout
        if self.check is not None:
            self.check.start()

    def refuse(self, reason: str) -> None:
        """End it before it was started, saying why."""
        self.reason = reason
        self._stopped()

    def cancel(self) -> None:
        """End it before it was started, because the task ends."""
        self._stopped()

    def on_exit(self, status: int) -> None:
        """Take note that its main process has ended with a wait status."""
        assert self.identity is not None
        self.exited = True
        self.exit_code = spawn.exit_code(status)
        self.finished_at = time.time()
        self._tree.remove(self.identity.pid)
        if self.check is not None:
            self.check.stop()

    def begin_stop(self, seconds: float) -> None:
        """Send the stop signal to the main process; SIGKILL follows after `seconds`."""
        self.stop_deadline = time.monotonic() + seconds
        if self.check is not None:
            self.check.stop()
        if self.identity is not None and not self.exited:
            self._told.add(self.identity.pid)
            process.send_signal(self.identity, _STOP_SIGNAL)

    def settle(self) -> None:
        """Bring a container that is ending nearer to its end; idempotent.

        A runtime of images kills what is left when process 1 of the container ends. So does this one
        when the end was not planned; in a planned stop the rest is told to stop too and has what is
        left of stopTimeout, since `sh -c "…"` dies of a SIGTERM that it would ignore as process 1.
        """
        if self.status != "RUNNING":
            return
        overdue = self.stop_deadline is not None and time.monotonic() >= self.stop_deadline
        if not self.exited:
            if overdue and self.identity is not None:
                for one in [self.identity, *self._tree.owned_by(self.name)]:
                    process.send_signal(one, signal.SIGKILL)
            return
        rest = self._tree.owned_by(self.name)
        if rest and self.stop_deadline is not None and not overdue:
            for one in rest:
                if one.pid not in self._told:
                    self._told.add(one.pid)
                    process.send_signal(one, _STOP_SIGNAL)
            return
        for one in rest:
            process.send_signal(one, signal.SIGKILL)
        self._stopped()

    def close(self) -> None:
        """Take what output is left and let go of pipe and log."""
        if self._pipe >= 0:
            self._take_output()
        self._close_pipe()
        if self._log is not None:
            self._log.close()
            self._log = None

    def observed(self) -> dict:  # type: ignore[type-arg] # JSON
        """Return the state as `runtimes.base.ContainerObserved` in JSON."""
        return {
            "name": self.name,
            "status": self.status,
            "pid": self.pid,
            "runtime_id": self.runtime_id if self.started_at is not None else None,
            "exit_code": self.exit_code,
            "reason": self.reason,
            "health": self.health,
            "listening": self.listening,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
        }

    def _stopped(self) -> None:
        self.status = "STOPPED"
        self.listening = []
        if self.finished_at is None:
            self.finished_at = time.time()
        if self._pipe >= 0:
            self._take_output()

    def _take_output(self) -> None:
        taken = 0
        while taken < _AT_ONCE:
            try:
                data = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                break
            if not data:
                self._close_pipe()
                break
            taken += len(data)
            if self._log is not None:
                self._log.write(data)
        self._on_output()

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            self._loop.unwatch(self._pipe)
            os.close(self._pipe)
            self._pipe = -1
