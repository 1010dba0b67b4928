"""The shim from its start to its end: greet, take the order, run the task, leave its last state."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys

from kecs.runtimes import process
from kecs.runtimes.shim import STATE_FILE, TASK_VARIABLE
from kecs.runtimes.shim.door import Door
from kecs.runtimes.shim.loop import Loop
from kecs.runtimes.shim.statefile import StateFile
from kecs.runtimes.shim.task import Task

_PATIENCE = 1.0
"""Seconds that a control plane has to take the last state; it finds it in the file otherwise."""


def main(folder: str) -> int:
    """Run one task whose folder is `folder`; standard input is a connection to the control plane.

    Returns 0 when the task has run to its end, 1 when there was none to run.
    """
    process.close_inherited()
    with contextlib.suppress(PermissionError):
        os.setsid()
    os.chdir(folder)
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return _Daemon(os.environ[TASK_VARIABLE]).run()


class _Daemon:
    def __init__(self, arn: str) -> None:
        self._loop = Loop()
        self._task: Task | None = None
        self._changed = True
        self._file = StateFile(arn)
        self._door = Door(self._loop, self._on_order)

    def run(self) -> int:
        above = socket.socket(fileno=os.dup(0))
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.close(null)
        # The file before the greeting: whoever comes next finds us as soon as anything was started.
        self._file.write(None)
        above.sendall(b'{"task": null}\n')
        process.load()
        process.become_subreaper()
        order, more = _first_line(above)
        if order is None:
            self._door.close(0.0)
            with contextlib.suppress(OSError):
                os.unlink(STATE_FILE)  # noqa: PTH108 - pathlib takes 8 ms to import
            return 1
        task = self._task = Task(json.loads(order)["task"], self._loop, self._note)
        self._loop.on_signal(signal.SIGCHLD, task.reap)
        self._loop.on_signal(signal.SIGTERM, task.stop)
        self._door.admit(above, more)
        task.advance()
        while not task.ended:
            self._publish(task)
            self._loop.turn()
        self._publish(task)
        self._door.close(_PATIENCE)
        return 0

    def _note(self) -> None:
        self._changed = True

    def _publish(self, task: Task) -> None:
        if self._changed:
            self._changed = False
            self._file.write(task)  # first: what was told is also found again
            self._door.tell({"task": task.observed(), "stopSeconds": task.stop_seconds})

    def _on_order(self, order: str) -> None:
        if self._task is None:
            return
        if order == "stop":
            self._task.stop()
        elif order == "kill":
            self._task.kill()
        else:
            print(f"unknown order: {order!r}", file=sys.stderr, flush=True)  # noqa: T201


def _first_line(above: socket.socket) -> tuple[bytes | None, bytes]:
    """Read the order of the control plane that started us, and what came behind it; None: it left."""
    received = bytearray()
    while b"\n" not in received:
        try:
            data = above.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            return None, b""
        received += data
    order, _, more = bytes(received).partition(b"\n")
    return order, more
