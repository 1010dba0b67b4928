"""What the containers of pods wrote: read from the cluster while a pod lives, kept in files before it goes.

`kecs.runtimes.kubernetes.runtime` has logs captured when a pod begins to leave. Both go on over whatever
breaks (`log_stream`) until the container has ended or the pod is gone. `tasks/<id>/<container>.log` is a log
of which nothing more can be had; until then it has another name (`kept_log`). It holds what the kubelet still
had when it was begun, by its `containerLogMaxSize` the newest 10 MiB of each container, and all since.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

from kecs import aio
from kecs.ecs.names import kubernetes_name
from kecs.errors import KecsError
from kecs.kube.client import KubeClient
from kecs.kube.errors import ApiError, Unreachable
from kecs.runtimes.kubernetes import log_stream
from kecs.runtimes.kubernetes.kept_log import KeptLog, unsettled
from kecs.runtimes.kubernetes.log_stream import Writer
from kecs.runtimes.kubernetes.stamped_lines import StampedLines

_CHUNK = 1 << 16
_log = logging.getLogger(__name__)


class PodLogs:
    """Reads and keeps the logs of one instance's pods. Lives on the event loop."""

    def __init__(self, client: KubeClient, folder: Path) -> None:
        """`folder` is the instance's `tasks/`; each task has a folder in it once a log is kept."""
        self._client = client
        self._folder = folder
        self._captures: dict[tuple[str, str], asyncio.Task[None]] = {}
        """Those under way, and those that came to their end."""

    def capture(self, writer: Writer, containers: Iterable[str]) -> None:
        """Follow these containers into their files until each has ended; once for each container.

        One that was given up, as the API server refused it or the disk was full, is gone on with.
        """
        for container in containers:
            key = (writer.task_id, container)
            if key not in self._captures and not self.has(*key):
                self._captures[key] = aio.create_task(
                    self._capture(writer, container), name=f"log of {container} of {writer.task_id[:8]}"
                )

    async def captured(self, task_id: str, within: float) -> None:
        """Wait until the captures of a task have ended, at most `within` seconds.

        `capture` goes on with what is not whole then; `settle` keeps it as it is.
        """
        mine = {key: task for key, task in self._captures.items() if key[0] == task_id}
        if mine:
            _, late = await asyncio.wait(mine.values(), timeout=within)
            await aio.cancel(*late)
        for key in mine:
            self._captures.pop(key, None)

    def settle(self, task_id: str) -> None:
        """Take that nothing more can be had of a task: what is there is its log.

        That may be what an earlier process left.
        """
        for log in unsettled(self._folder / task_id):
            log.settle()

    def has(self, task_id: str, container: str) -> bool:
        """Tell whether a container's log is kept here, of which nothing more can be had."""
        return self._kept(task_id, container).whole.exists()

    async def read_kept(self, task_id: str, container: str) -> AsyncIterator[bytes]:
        """Yield a kept log; nothing when there is none."""
        whole = self._kept(task_id, container).whole
        with contextlib.suppress(FileNotFoundError), whole.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    def follow(self, writer: Writer, container: str) -> AsyncGenerator[bytes, None]:
        """Yield what a container wrote and writes, over whatever breaks, until it has ended.

        Nothing when it never starts, or the pod is gone. Raises `ApiError` when the API server refuses for
        good, `Unreachable` when the client was closed.
        """
        return log_stream.follow(self._client, writer, container, StampedLines())

    async def read_living(self, namespace: str, pod: str, container: str) -> AsyncGenerator[bytes, None]:
        """Yield what a container wrote by now, from the cluster. Raises `ApiError`, `Unreachable`.

        Nothing when the container has not started, or the pod is gone.
        """
        try:
            async with aclosing(
                self._client.logs(namespace, pod, kubernetes_name(container), follow=False)
            ) as chunks:
                async for chunk in chunks:
                    yield chunk
        except ApiError as error:
            if error.status not in (400, 404):  # 400: it waits to start, or its container was removed
                raise

    def forget(self, task_id: str) -> None:
        """Delete what is kept of a task."""
        shutil.rmtree(self._folder / task_id, ignore_errors=True)

    def keep_only(self, task_ids: Collection[str]) -> None:
        """Delete what is kept of all other tasks."""
        if self._folder.is_dir():
            for folder in self._folder.iterdir():
                if folder.name not in task_ids:
                    self.forget(folder.name)

    async def close(self) -> None:
        """End the captures; the next process goes on with them where the pod still lives.

        Where it does not, `settle` makes the log of what they got.
        """
        await aio.cancel(*self._captures.values())
        self._captures.clear()

    async def _capture(self, writer: Writer, container: str) -> None:
        """Write a container's log to its file; what is not whole is left to be gone on with."""
        kept = self._kept(writer.task_id, container)
        mark = kept.mark()
        lines = StampedLines(mark)
        file: BinaryIO | None = None
        written = ended = False
        try:
            try:
                async with aclosing(log_stream.follow(self._client, writer, container, lines)) as parts:
                    async for part in parts:
                        if file is None:
                            file = kept.open(mark)
                        written = False
                        file.write(part)
                        written = True
                ended = True
            finally:
                if file is not None:
                    file.close()
        except (ApiError, Unreachable) as error:
            _log.warning("the log of %s of task %s is kept in part: %s", container, writer.task_id, error)
        except (OSError, KecsError) as error:
            written = ended = False
            _log.warning("the log of %s of task %s cannot be written: %s", container, writer.task_id, error)
        finally:
            if ended:
                kept.settle()
            else:
                self._captures.pop((writer.task_id, container), None)
                if written:
                    kept.leave(lines.mark)

    def _kept(self, task_id: str, container: str) -> KeptLog:
        return KeptLog(self._folder / task_id, container)
