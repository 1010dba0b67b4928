"""What containers wrote, as `kecs logs` asks for it: of one task, or of a service's tasks together.

The runtime keeps the bytes; here they become lines with the task and the container that wrote them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import msgspec

from kecs import aio
from kecs.client.admin_types import LogLine, Refusal
from kecs.controlplane.endpoints import Changes
from kecs.controlplane.lookup import find_service, find_task, nothing_found
from kecs.controlplane.ps import tasks_of
from kecs.ecs.model import Key, Service, Task
from kecs.ecs.state import State
from kecs.errors import ExitCode, KecsError
from kecs.runtimes.base import Runtime

Lines = asyncio.Queue[bytes | None]
WAITING = 256
"""Lines that may wait for a slow reader; then the files are read no further."""
COMING_UP = frozenset({"PROVISIONING", "PENDING", "ACTIVATING"})
BY_ITSELF = frozenset({"EssentialContainerExited", "TaskFailedToStart"})
"""Stop codes of tasks that nobody told to stop."""

_log = logging.getLogger(__name__)


class TaskLogs:
    """Reads the logs of tasks. Lives on the event loop."""

    def __init__(self, state: Callable[[], State], runtime: Runtime) -> None:
        self._state = state
        self._runtime = runtime
        self._news: dict[Key, set[asyncio.Event]] = {}

    def on_commit(self, changes: Changes) -> None:
        """Let those who follow a service see its new tasks."""
        for old, new in changes.values():
            row = new or old
            if isinstance(row, Task) and row.service is not None:
                self._tell((row.region, row.cluster, row.service))
            elif isinstance(row, Service):
                self._tell(row.key)

    def lines(
        self, region: str, cluster: str, name: str, *, container: str | None, follow: bool
    ) -> AsyncIterator[bytes]:
        """Return the encoded `LogLine`s of a service or a task. Raises `KecsError` when there is none."""
        state = self._state()
        service = find_service(state, region, cluster, name)
        if service is not None:
            tasks = self._worth_reading(service)
            if tasks:
                _check_container(tasks, container)
            if follow:
                return self._stream(partial(self._pour_service, service, container))
            return self._read(tasks, container)
        task = find_task(state, region, cluster, name)
        if task is None:
            raise nothing_found(state, region, cluster, name, "service or task")
        _check_container([task], container)
        return (
            self._stream(partial(self._pour, [task], container)) if follow else self._read([task], container)
        )

    def _worth_reading(self, service: Service) -> list[Task]:
        """Return the living tasks of a service, or the one that stopped last when none lives.

        While none has come up, the last one that ended by itself comes before them: why it did is what is
        looked for, and its successor may not have written anything yet.
        """
        tasks = tasks_of(service, self._state().scan(Task, service.region, service.cluster))
        alive = [task for task in tasks if task.last_status != "STOPPED"]
        if any(task.last_status not in COMING_UP for task in alive):
            return alive
        last = sorted((task for task in tasks if task not in alive), key=lambda task: task.stopped_at or 0.0)[
            -1:
        ]
        return [task for task in last if not alive or task.stop_code in BY_ITSELF] + alive

    async def _read(self, tasks: list[Task], container: str | None) -> AsyncIterator[bytes]:
        for task in tasks:
            for name in _containers(task, container):
                async for line in self._of_container(task.id, name, follow=False):
                    yield line

    async def _stream(self, pour: Callable[[Lines], Awaitable[None]]) -> AsyncIterator[bytes]:
        """Yield what `pour` puts into a queue, until it has ended."""
        queue: Lines = asyncio.Queue(WAITING)

        async def fill() -> None:
            try:
                await pour(queue)
            except Exception:
                await queue.put(None)
                raise
            await queue.put(None)

        filling = aio.create_task(fill(), name="reader of logs")
        try:
            while (line := await queue.get()) is not None:
                yield line
            await filling  # its failure cuts the answer: it must not look whole
        finally:
            await aio.cancel(filling)

    async def _pour(self, tasks: list[Task], container: str | None, into: Lines) -> None:
        """Put the lines of all containers as they come, until each has ended."""
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                for name in _containers(task, container):
                    group.create_task(self._pour_container(task.id, name, into))

    async def _pour_container(self, task_id: str, container: str, into: Lines) -> None:
        async for line in self._of_container(task_id, container, follow=True):
            await into.put(line)

    async def _pour_service(self, service: Service, container: str | None, into: Lines) -> None:
        """Put the lines of a service's tasks, also of those to come, until it is deleted."""
        news = asyncio.Event()
        listeners = self._news.setdefault(service.key, set())
        listeners.add(news)
        read: set[str] = set()
        try:
            async with asyncio.TaskGroup() as group:
                while not self._is_gone(service):
                    news.clear()
                    for task in self._worth_reading(service):
                        if task.id not in read:
                            read.add(task.id)
                            group.create_task(self._pour([task], container, into))
                    await news.wait()
        finally:
            listeners.discard(news)

    def _is_gone(self, service: Service) -> bool:
        now = self._state().get(Service, *service.key)
        return now is None or now.status == "INACTIVE"

    async def _of_container(self, task_id: str, container: str, *, follow: bool) -> AsyncIterator[bytes]:
        """Yield each line as an encoded `LogLine` with its newline; at last why it cannot be read, if so.

        What is wrong with one container does not end the others.
        """
        unread, error = b"", None
        try:
            async for data in self._runtime.logs(task_id, container, follow=follow):
                *lines, unread = (unread + data).split(b"\n")
                for line in lines:
                    yield _encode(task_id, container, line)
        except KecsError as refused:
            if refused.exit_code != ExitCode.NOT_FOUND:  # else it never came as far as writing anything
                error = Refusal(message=refused.message, hint=refused.hint, exit_code=int(refused.exit_code))
        except Exception as failure:  # noqa: BLE001 - the reader must hear of it, and of the other containers
            _log.exception("the log of %s of task %s could not be read", container, task_id)
            error = Refusal(
                message=f"the log of {container} cannot be read: {failure or type(failure).__name__}",
                hint="look at `kecs logs --daemon controlplane`",
            )
        if unread:
            yield _encode(task_id, container, unread)
        if error is not None:
            yield _encode(task_id, container, b"", error)

    def _tell(self, service: Key) -> None:
        for news in self._news.get(service, ()):
            news.set()


def _encode(task_id: str, container: str, text: bytes, error: Refusal | None = None) -> bytes:
    line = LogLine(task_id=task_id, container=container, text=text.decode(errors="replace"), error=error)
    return msgspec.json.encode(line) + b"\n"


def _containers(task: Task, only: str | None) -> list[str]:
    return [each.name for each in task.containers if only is None or each.name == only]


def _check_container(tasks: list[Task], container: str | None) -> None:
    known = sorted({each.name for task in tasks for each in task.containers})
    if container is not None and container not in known:
        raise KecsError(
            f"there is no container `{container}` in it",
            f"it has {', '.join(f'`{name}`' for name in known)}",
            ExitCode.NOT_FOUND,
        )
