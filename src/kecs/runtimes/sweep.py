"""Ends the processes of tasks whose shim is dead: those that name the task's ARN themselves, and theirs.

Never anything else: each process is looked at again, pinned by a descriptor, before it is signalled.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable

from kecs.runtimes import process
from kecs.runtimes.process import Process
from kecs.runtimes.shim import TASK_VARIABLE

_PATIENCE = 5.0
"""Seconds after which a process that does not die of SIGKILL (stuck in the kernel) is left alone."""
_log = logging.getLogger(__name__)


def find(names: Callable[[str], bool]) -> list[Process]:
    """List the living processes whose KECS_TASK_ARN satisfies `names`, and their descendants.

    Never this process nor one above it, which a person may have started from within a task.
    """
    everything = process.processes()
    spared = _self_and_above(everything)

    def is_root(one: Process) -> bool:
        if one.pid in spared or one.zombie:
            return False
        arn = process.variable(one.pid, TASK_VARIABLE)
        return arn is not None and names(arn)

    found = process.subtrees(everything, is_root)
    return [one for one in found if not one.zombie and one.pid not in spared]


async def end(names: Callable[[str], bool]) -> None:
    """Kill what `find` finds until it finds nothing."""
    deadline = time.monotonic() + _PATIENCE
    while found := find(names):
        if time.monotonic() > deadline:
            _log.error("processes do not die of SIGKILL: %s", [one.pid for one in found])
            return
        for one in found:
            process.send_signal(one, signal.SIGKILL)
        await asyncio.sleep(0.01)


class Sweeper:
    """Ends the processes of many tasks by one look at all processes, however many ask at once."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._busy = asyncio.Lock()

    async def end(self, arn_or_id: str) -> None:
        """End the processes of one task, given by its ARN, or by its id when the ARN is not known."""
        waiting = self._waiting.get(arn_or_id)
        if waiting is None:
            waiting = self._waiting[arn_or_id] = asyncio.get_running_loop().create_future()
        async with self._busy:
            if not waiting.done():
                batch, self._waiting = self._waiting, {}
                try:
                    await end(lambda arn: arn in batch or arn.rpartition("/")[2] in batch)
                finally:
                    for future in batch.values():
                        future.set_result(None)


def _self_and_above(everything: list[Process]) -> set[int]:
    parents = {one.pid: one.parent for one in everything}
    above: set[int] = set()
    pid = os.getpid()
    while pid and pid not in above:
        above.add(pid)
        pid = parents.get(pid, 0)
    return above
