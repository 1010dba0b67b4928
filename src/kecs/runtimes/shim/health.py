"""The health check of one container, by Docker's rules (which are ECS's).

The first check runs one interval after the start, the next one interval after the last has ended.
A success makes it HEALTHY at once; `retries` failures in a row make it UNHEALTHY, where those that
began within the start period do not count until a check has succeeded (moby: daemon/health.go).
"""

from __future__ import annotations

import enum
import os
import signal
import time
from collections.abc import Callable

from kecs.runtimes import process
from kecs.runtimes.shim import CHECK_VARIABLE, spawn
from kecs.runtimes.shim.loop import Loop, Timer
from kecs.runtimes.shim.tree import Tree


class Health(enum.Enum):
    """Health as ECS names it."""

    UNKNOWN = "UNKNOWN"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"


class HealthCheck:
    """Runs the check command again and again, between `start` and `stop`."""

    def __init__(
        self,
        order: dict,  # type: ignore[type-arg] # JSON
        program: spawn.Program,
        container: str,
        loop: Loop,
        tree: Tree,
        changed: Callable[[], None],
    ) -> None:
        self.status = Health.UNKNOWN
        self._program = spawn.Program(
            order["argv"], {**program.environment, CHECK_VARIABLE: "1"}, program.directory, program.user
        )
        self._interval: float = order["interval"]
        self._timeout: float = order["timeout"]
        self._retries: int = order["retries"]
        self._start_period: float = order["startPeriod"]
        self._owner = f"{container}/check"
        self._loop = loop
        self._tree = tree
        self._changed = changed
        self._timer: Timer | None = None
        self._pid: int | None = None
        self._timed_out = False
        self._began = 0.0
        self._container_began = 0.0
        self._failures = 0

    def start(self) -> None:
        """Begin: the container has just started."""
        self._container_began = time.monotonic()
        self._timer = self._loop.call_later(self._interval, self._run)

    def stop(self) -> None:
        """Check no more; a check that is running is killed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pid is not None:
            self._kill()

    def on_exit(self, pid: int, status: int) -> bool:
        """Take the end of process `pid` if it was the check's; tell whether it was."""
        if pid != self._pid:
            return False
        self._pid = None
        self._tree.remove(pid)
        if self._timer is not None:
            self._timer.cancel()
            self._conclude(healthy=spawn.exit_code(status) == 0 and not self._timed_out)
        return True

    def _run(self) -> None:
        self._began = time.monotonic()
        self._timed_out = False
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            self._pid = spawn.start(self._program, null)
        except spawn.CannotStart:
            self._conclude(healthy=False)
            return
        finally:
            os.close(null)
        self._tree.add(self._pid, self._owner)
        self._timer = self._loop.call_later(self._timeout, self._time_out)

    def _time_out(self) -> None:
        self._timed_out = True
        self._kill()

    def _kill(self) -> None:
        for one in self._tree.owned_by(self._owner):
            process.send_signal(one, signal.SIGKILL)

    def _conclude(self, *, healthy: bool) -> None:
        before = self.status
        if healthy:
            self._failures = 0
            self.status = Health.HEALTHY
        elif self.status is not Health.UNKNOWN or self._began - self._container_began >= self._start_period:
            self._failures += 1
            if self._failures >= self._retries:
                self.status = Health.UNHEALTHY
        self._timer = self._loop.call_later(self._interval, self._run)
        if self.status is not before:
            self._changed()
