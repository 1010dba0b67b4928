"""`state.json` in the task's folder: what a control plane finds that was away, or after this one died."""

from __future__ import annotations

import json
import os
import sys

from kecs.runtimes import process
from kecs.runtimes.shim import STATE_FILE, STATE_VERSION
from kecs.runtimes.shim.task import Task

_FLEETING = ("health", "listening")
"""Not worth a write: they hold only as long as we run, and are told by the socket."""


class StateFile:
    """Writes the state when something that outlives us has changed. The folder is our working directory."""

    def __init__(self, arn: str) -> None:
        me = process.process(os.getpid())
        assert me is not None
        self._header = {
            "version": STATE_VERSION,
            "arn": arn,
            "bootId": process.boot_id(),
            "shim": {"pid": me.pid, "start": me.start},
        }
        self._written: object = None

    def write(self, task: Task | None) -> None:
        """Write the state of `task`, or that we wait for an order; keep going when the disk is full."""
        document = dict(self._header)
        essence: object = ()
        if task is not None:
            observed = task.observed()
            essence = [{k: v for k, v in one.items() if k not in _FLEETING} for one in observed["containers"]]
            essence = (essence, task.ended, task.stopping)
            document["task"] = observed
            document["stopping"] = task.stopping
            document["stopSeconds"] = task.stop_seconds
            document["processes"] = {
                one.name: {"pid": one.identity.pid, "start": one.identity.start}
                for one in task.containers.values()
                if one.identity is not None
            }
        if essence == self._written:
            return
        try:
            _replace(STATE_FILE, json.dumps(document).encode())
        except OSError as error:
            print(f"{STATE_FILE}: {error}", file=sys.stderr, flush=True)  # noqa: T201
        else:
            self._written = essence


def _replace(name: str, data: bytes) -> None:
    """Write new, fsync, rename, fsync the folder (docs/design/contracts.md, section 4)."""
    temporary = f".{name}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(temporary, name)  # noqa: PTH104 - pathlib takes 8 ms to import
    folder = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
