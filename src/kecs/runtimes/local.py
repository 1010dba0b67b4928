"""The `local` runtime: each task is processes of this machine under a shim of its own.

The shim (`kecs.runtimes.shim`) does what must go on without us: it starts, checks, stops and ends the
containers. `kecs.runtimes.watch` starts shims, finds them again, and makes what they say observations.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from kecs import aio, files
from kecs.errors import ExitCode, KecsError
from kecs.paths import InstancePaths
from kecs.runtimes import orders, tasklog
from kecs.runtimes.base import TaskObserved, TaskSpec
from kecs.runtimes.news import News
from kecs.runtimes.sweep import Sweeper
from kecs.runtimes.watch import Watch, clear


class LocalRuntime:
    """Runs tasks as local processes; implements `kecs.runtimes.base.Runtime`."""

    name = "local"

    def __init__(self, paths: InstancePaths, *, environment: Mapping[str, str], directory: str) -> None:
        """`environment` and `directory` are those of `kecs start`, as the instance keeps them."""
        self._tasks = paths.tasks
        self._environment = dict(environment)
        self._directory = directory
        self._watches: dict[str, Watch] = {}
        self._news = News()
        self._closed = False
        self._sweeper = Sweeper()
        self._clearing: set[asyncio.Task[None]] = set()

    async def open(self, expected: Sequence[str], keep: Collection[str] | None = None) -> None:
        """Adopt what lives of `expected`, end all else; see `runtimes.base.Runtime.open`."""
        files.make_private_folder(self._tasks)
        for task_id in expected:
            self._watch(task_id).adopt()
        for folder in sorted(self._tasks.iterdir()):
            if folder.name in self._watches or not folder.is_dir():
                continue
            kept = keep is None or folder.name in keep
            clearing = aio.create_task(clear(folder, self._sweeper, keep=kept), name=f"clear {folder.name}")
            self._clearing.add(clearing)
            clearing.add_done_callback(self._clearing.discard)

    async def run(self, task: TaskSpec) -> None:
        """Start a task; one that runs already is left alone, one that has ended is run anew."""
        before = self._watches.get(task.id)
        if before is None or before.ended:
            order = orders.order(task, self._environment, self._directory)
            self._watch(task.id).run(task.arn, order, before)

    async def stop(self, task_id: str) -> None:
        """Stop a task; the last observation of one that has ended is repeated."""
        watch = self._watches.get(task_id)
        if watch is not None:
            watch.stop()
        else:
            self._news.tell(TaskObserved(task_id=task_id, ended=True, lost=True))

    def observations(self) -> AsyncIterator[TaskObserved]:
        """Yield observations until `close`; of several of one task, only the newest."""
        return self._news.observations()

    async def logs(self, task_id: str, container: str, *, follow: bool) -> AsyncIterator[bytes]:
        """Yield a container's log, oldest first; with `follow` until the container has ended.

        Raises `KecsError` when nothing is kept of the task.
        """
        folder = self._tasks / task_id
        if task_id not in self._watches and not folder.is_dir():
            raise KecsError(f"nothing is kept of task `{task_id}`", exit_code=ExitCode.NOT_FOUND)

        def goes_on() -> bool:
            return not self._closed and self._may_write(task_id, container)

        async for chunk in tasklog.read(folder / f"{container}.log", goes_on=goes_on if follow else None):
            yield chunk

    async def forget(self, task_id: str) -> None:
        """Delete a task's folder; a task that still runs is ended first."""
        watch = self._watches.pop(task_id, None)
        if watch is not None and not watch.ended:
            await watch.end()
        self._news.drop(task_id)
        await clear(self._tasks / task_id, self._sweeper, keep=False)

    async def settled(self) -> None:
        """Wait until what nobody expected at `open` has ended."""
        await asyncio.gather(*self._clearing, return_exceptions=True)

    async def close(self) -> None:
        """Let go: tasks go on."""
        self._closed = True
        self._news.close()
        await asyncio.gather(*(watch.close() for watch in self._watches.values()))
        await aio.cancel(*self._clearing)

    def _watch(self, task_id: str) -> Watch:
        watch = self._watches[task_id] = Watch(task_id, self._tasks / task_id, self._news.tell, self._sweeper)
        return watch

    def _may_write(self, task_id: str, container: str) -> bool:
        watch = self._watches.get(task_id)
        if watch is None or watch.ended:
            return False
        if watch.last is None:
            return True
        return any(one.name == container and one.status != "STOPPED" for one in watch.last.containers)
