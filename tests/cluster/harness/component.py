"""One long-running program of the cluster: started, watched, killed and started again.

Used by `controlplane` and `node`. Each runs in a session of its own with its log in a file; when it dies,
the last lines of that log are the error, not a time-out somewhere else.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.cluster.harness import procs
from tests.cluster.harness.machine import Machine
from tests.process.harness import until

LOG_LINES = 25


class ComponentDiedError(Exception):
    """A component ended by itself; the text holds the end of its log."""


class Component:
    """A program in a machine. `pid` is its process as this computer sees it."""

    def __init__(self, name: str, machine: Machine, command: Sequence[str | Path]) -> None:
        self.name = name
        self.log = machine.folder / f"{name}.log"
        self.pid = 0
        self._machine = machine
        self._command = list(command)
        self._entered: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its log goes on at its end."""
        with self.log.open("ab") as log:
            self._entered = subprocess.Popen(
                self._machine.entering(*self._command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = until(self._find, f"{self.name} has started", seconds=10)

    def add_flags(self, *flags: str) -> None:
        """Give it further flags, from its next start on."""
        self._command += flags

    def _find(self) -> int:
        self.check()
        assert self._entered
        # nsenter forks, because only a child is in the new process namespace.
        return next(iter(procs.children(self._entered.pid)), 0)

    @property
    def running(self) -> bool:
        """Whether it was started and not killed since."""
        return self._entered is not None

    def check(self) -> None:
        """Raise ComponentDiedError when it has ended."""
        if self._entered and (code := self._entered.poll()) is not None:
            raise ComponentDiedError(f"{self.name} ended with {code}; the end of {self.log}:\n{self.tail()}")

    def tail(self) -> str:
        """Return the last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it and wait for the end."""
        assert self._entered
        procs.kill(self.pid, number)
        self.wait_ended()

    def wait_ended(self) -> None:
        """Wait for an end that somebody else has brought about, such as its machine's."""
        if self._entered:
            self._entered.wait(procs.END_SECONDS)
            self._entered = None

    def restart(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill it and start it again. Does not wait until it serves."""
        self.kill(number)
        self.start()

    def pause(self) -> None:
        """Stop it in its tracks: its connections stay open and silent."""
        procs.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        procs.kill(self.pid, signal.SIGCONT)


def wait(
    condition: Callable[[], object], what: str, components: Sequence[Component], seconds: float = 60
) -> None:
    """Wait for `condition`; a component's death meanwhile is the error."""

    def alive_and_true() -> bool:
        for component in components:
            component.check()
        try:
            return bool(condition())
        except RuntimeError as error:  # a command that fails until its server is there
            raise AssertionError(str(error)) from error

    until(alive_and_true, what, seconds=seconds, every=0.1)
