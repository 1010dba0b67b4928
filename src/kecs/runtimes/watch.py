"""One task that the local runtime knows: its shim is started or found, heard to its end, told to stop."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kecs import aio, files
from kecs.errors import KecsError
from kecs.runtimes import link as shims
from kecs.runtimes import process, records
from kecs.runtimes.base import TaskObserved
from kecs.runtimes.link import Link
from kecs.runtimes.process import Process
from kecs.runtimes.shim import STATE_FILE
from kecs.runtimes.sweep import Sweeper

STOP_MARGIN = 5.0
"""Seconds beyond a task's stop timeouts after which a shim that does not end is ended itself."""
_STOP_SECONDS = 30.0
"""ECS's default stopTimeout, until the shim has said how long a stop can take."""
_KILL_PATIENCE = 3.0
"""Seconds that a shim has to end everything at once."""
_EXIT_PATIENCE = 0.5
"""Seconds from a shim's hanging up to its exit; later it has merely dropped us."""
_FIRST_STATE = 1.0
"""Seconds until a found shim that says nothing (it was stopped, the machine swaps) is told from its file."""

_log = logging.getLogger(__name__)


class Watch:
    """Follows one task from `run` or `adopt` to its end; `publish` gets each observation."""

    def __init__(
        self, task_id: str, folder: Path, publish: Callable[[TaskObserved], None], sweeper: Sweeper
    ) -> None:
        self.id = task_id
        self.last: TaskObserved | None = None
        """The newest observation."""
        self._folder = folder
        self._publish = publish
        self._sweeper = sweeper
        self._arn: str | None = None
        self._shim: Process | None = None
        self._link: Link | None = None
        self._final: TaskObserved | None = None
        self._same_boot = True
        self._stop_seconds = _STOP_SECONDS
        self._stop_asked = False
        self._timers: list[asyncio.TimerHandle] = []
        self._runner: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Tell whether nothing of the task exists any more."""
        return self.last is not None and self.last.ended

    def run(self, arn: str, order: dict[str, Any], before: Watch | None) -> None:
        """Start the task; `before` is the watch of an earlier run of it, which has ended."""
        self._arn = arn
        self._runner = aio.create_task(self._start(order, before), name=f"task {self.id[:8]}")

    def adopt(self) -> None:
        """Find the task's shim, or what it left."""
        self._runner = aio.create_task(self._adopt(), name=f"task {self.id[:8]}")

    def stop(self) -> None:
        """Have the task stopped; said again when it has ended already."""
        if self.last is not None and self.last.ended:
            self._publish(self.last)
        elif not self._stop_asked:
            self._stop_asked = True
            if self._shim is not None:
                self._order_stop()

    async def end(self) -> None:
        """Have the task ended at once, and wait until it is."""
        if self._link is not None:
            self._link.order("kill")
            self._later(_KILL_PATIENCE, self._end_shim)
        else:
            self.stop()
        await self.finished()

    async def finished(self) -> None:
        """Wait until the task has ended."""
        if self._runner is not None:
            await asyncio.wait([self._runner])

    async def close(self) -> None:
        """Let go; the task goes on."""
        if self._runner is not None:
            await aio.cancel(self._runner)

    async def _start(self, order: dict[str, Any], before: Watch | None) -> None:
        if before is not None:
            await before.finished()  # its shim must have left the folder
        assert self._arn is not None
        try:
            files.make_private_folder(self._folder)
            (self._folder / STATE_FILE).unlink(missing_ok=True)
            shim, link = await shims.start(self._folder, self._arn)
        except (OSError, KecsError) as error:
            self._fail(f"the task's own process cannot be started: {error}")
            return
        try:
            # The greeting says that the state file is there: from here on the shim is found after a crash.
            if await link.hear() is None:
                await shims.exited(shim)
                self._fail(f"the task's own process did not start: {shims.last_words(self._folder)}")
                return
            link.order("run", task=order)
            self._shim, self._link = shim, link  # only now can it be told to stop
            await self._follow()
        finally:
            link.close()
            self._let_go()

    async def _adopt(self) -> None:
        record = records.read(self._folder)
        if record is not None:
            self._arn = record.arn
            self._stop_seconds = record.stop_seconds
            self._same_boot = record.boot_id == process.boot_id()
            self._shim = record.living_shim()
        try:
            if self._shim is not None and record is not None:
                self._later(_FIRST_STATE, self._see_first, record.task or TaskObserved(task_id=self.id))
            await self._follow()
        finally:
            self._let_go()

    async def _follow(self) -> None:
        """Hear the shim until it has gone, then say how the task ended."""
        while self._shim is not None:
            if self._link is None:
                self._link = await self._connect(self._shim)
            if self._link is None:
                break
            if self._stop_asked:
                self._order_stop()
            while (report := await self._link.hear()) is not None:
                if report.task is None:
                    continue
                self._stop_seconds = report.stop_seconds
                if report.task.ended:
                    self._final = report.task  # told once the shim has gone, too
                else:
                    self._see(report.task)
            self._link.close()
            self._link = None
            try:
                async with asyncio.timeout(_EXIT_PATIENCE):
                    await shims.exited(self._shim)
            except TimeoutError:
                continue
            break
        await self._conclude()

    async def _connect(self, shim: Process) -> Link | None:
        """Connect to a shim that lives; None when it has gone."""
        delay = 0.01
        while process.is_alive(shim.pid, shim.start):
            try:
                return await shims.find(self._folder)
            except OSError:
                await asyncio.sleep(delay)  # it is about to listen, or about to leave
                delay = min(2 * delay, 1.0)
        return None

    async def _conclude(self) -> None:
        """Tell the end: as the shim told it, as it left it, or that both died without one."""
        record = records.read(self._folder)
        left = record.task if record is not None else None
        final = self._final or left
        if final is not None and final.ended:
            self._see(final)
            return
        if self._same_boot:
            await self._sweeper.end(self._arn or self.id)
        self._see(records.lost(self.id, self.last or left))

    def _order_stop(self) -> None:
        assert self._shim is not None
        if self._link is not None:
            self._link.order("stop")
        else:
            process.send_signal(self._shim, signal.SIGTERM)
        self._later(self._stop_seconds + STOP_MARGIN, self._end_shim)

    def _end_shim(self) -> None:
        """End a shim that does not do what it was told; its containers go with it, the rest is swept."""
        if self._shim is not None and process.send_signal(self._shim, signal.SIGKILL):
            _log.warning("the shim of task %s (pid %d) did not end: killed", self.id, self._shim.pid)

    def _see(self, seen: TaskObserved) -> None:
        self.last = seen
        self._publish(seen)

    def _see_first(self, seen: TaskObserved) -> None:
        if self.last is None:
            self._see(seen)

    def _fail(self, why: str) -> None:
        failure = f"ResourceInitializationError: {why}"
        _log.error("task %s: %s", self.id, failure)
        self._see(TaskObserved(task_id=self.id, failure=failure, ended=True))

    def _later(self, seconds: float, callback: Callable[..., None], *arguments: object) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, callback, *arguments))

    def _let_go(self) -> None:
        for timer in self._timers:
            timer.cancel()
        if self._link is not None:
            self._link.close()
            self._link = None


async def clear(folder: Path, sweeper: Sweeper, *, keep: bool) -> None:
    """End what still runs of a task that nobody expects, then remove its folder unless it is kept."""
    record = records.read(folder)
    shim = record.living_shim() if record is not None else None
    if shim is not None:
        _log.warning("task %s runs and nobody expects it: ending it", folder.name)
        try:
            async with asyncio.timeout(_KILL_PATIENCE):
                link = await shims.find(folder)
                try:
                    link.order("kill")
                    await shims.exited(shim)
                finally:
                    link.close()
        except (OSError, TimeoutError):
            process.send_signal(shim, signal.SIGKILL)
            await shims.exited(shim)
    over = record is not None and record.task is not None and record.task.ended
    if not over and (record is None or record.boot_id == process.boot_id()):
        await sweeper.end(record.arn if record is not None else folder.name)
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
