"""The end of an instance's tasks, and then of its control plane.

Used by the daemon for `POST /_kecs/shutdown` and for `--stop`. On k3d the tasks end as local ones do, because
its cluster is stopped next, which drains its nodes; a cluster that does not answer is not waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from kecs import aio
from kecs.client.admin_types import StopProgress
from kecs.controlplane.controller import Controller
from kecs.errors import KecsError

REASON = "Task stopped by kecs stop"
SILENT_FOR = 10.0
"""Seconds without a word from the cluster after which its tasks are left to end with it."""
LOOK_EVERY = 0.5
"""Seconds between two looks at whether it still answers."""
SILENT = "the cluster does not answer: what runs on it ends with it"

_log = logging.getLogger(__name__)


class Shutdown:
    """The stop of one control plane: begun once, told to everyone who asks."""

    def __init__(self, end: Callable[[], AsyncIterator[str]], leave: Callable[[], None]) -> None:
        """`end` ends the tasks and yields what a person may like to know; `leave` removes our traces then."""
        self._end, self._leave = end, leave
        self._progress: list[StopProgress] = []
        self._progressed = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._failure: KecsError | None = None

    @property
    def is_begun(self) -> bool:
        """Tell whether it goes on, or is done."""
        return self._work is not None

    def begin(self) -> None:
        """Begin, unless that was done before."""
        if self._work is None:
            self._progress, self._failure = [], None
            self._work = aio.create_task(self._run(), name="stop of the instance")

    async def lines(self) -> AsyncIterator[StopProgress]:
        """Begin, and yield what is done; the last line comes when the socket is gone.

        The work goes on when the one who asked leaves; who asks again sees the same lines.
        """
        self.begin()
        told = 0
        while True:
            self._progressed.clear()
            for line in self._progress[told:]:
                told += 1
                yield line
                if line.done:
                    return
            if self._failure is not None:
                yield StopProgress(text=f"{self._failure.message}: {self._failure.hint}")
                return
            await self._progressed.wait()

    async def _run(self) -> None:
        try:
            async for text in self._end():
                self._tell(StopProgress(text=text))
        except KecsError as error:
            # A full disk: nothing can be recorded, so nothing is stopped; another try may follow.
            _log.error("the tasks could not be stopped: %s", error.message, extra={"hint": error.hint})
            self._failure, self._work = error, None
            self._progressed.set()
            return
        self._leave()
        self._tell(StopProgress(text="", done=True))

    def _tell(self, line: StopProgress) -> None:
        self._progress.append(line)
        self._progressed.set()


class Answers(Protocol):
    """What is asked of the cluster."""

    def silent_for(self) -> float:
        """Return for how many seconds it has not answered."""


async def stop_tasks(controller: Controller) -> AsyncIterator[str]:
    """End every task; yield what a person may like to know of it."""
    async for stopped, every in controller.stop_all_tasks(REASON):
        if every:
            yield f"stopped {stopped} of {every} tasks"


async def stop_tasks_of(
    cluster: Answers, taken_up: asyncio.Event, controller: Controller
) -> AsyncIterator[str]:
    """End every task on a cluster that is about to be stopped, as long as it answers.

    `taken_up` is set when the controller knows the tasks. What could not be ended is found gone at the next
    start.
    """
    texts: list[str] = []
    news = asyncio.Event()

    async def end() -> None:
        await taken_up.wait()
        async for text in stop_tasks(controller):
            texts.append(text)
            news.set()

    ending = aio.create_task(end(), name="end of all tasks")
    ending.add_done_callback(lambda _: news.set())
    try:
        while True:
            news.clear()
            while texts:
                yield texts.pop(0)
            if ending.done():
                ending.result()
                return
            if cluster.silent_for() > SILENT_FOR:
                yield SILENT
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await news.wait()
    finally:
        await aio.cancel(ending)
