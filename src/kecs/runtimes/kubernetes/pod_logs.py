"""What the containers of pods wrote: read from the cluster while a pod lives, kept in files before it goes.

`kecs.runtimes.kubernetes.runtime` has logs captured when a pod begins to leave. `tasks/<id>/<container>.log`
is whole: it is written under another name and renamed at the end of the stream. It holds what the kubelet
still has then, which by its `containerLogMaxSize` is the newest 10 MiB of each container.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable
from contextlib import aclosing
from pathlib import Path

from kecs import aio, files
from kecs.ecs.names import kubernetes_name
from kecs.kube.client import KubeClient
from kecs.kube.errors import ApiError, Unreachable

_CHUNK = 1 << 16
_log = logging.getLogger(__name__)


class PodLogs:
    """Reads and keeps the logs of one instance's pods. Lives on the event loop."""

    def __init__(self, client: KubeClient, folder: Path) -> None:
        """`folder` is the instance's `tasks/`; each task has a folder in it once a log is kept."""
        self._client = client
        self._folder = folder
        self._captures: dict[tuple[str, str], asyncio.Task[None]] = {}

    def capture(self, task_id: str, namespace: str, pod: str, containers: Iterable[str]) -> None:
        """Follow these containers into their files until each has ended; once for each container."""
        for container in containers:
            key = (task_id, container)
            if key not in self._captures and not self._kept(task_id, container).exists():
                self._captures[key] = aio.create_task(
                    self._capture(task_id, namespace, pod, container), name=f"logs of {pod}/{container}"
                )

    async def captured(self, task_id: str, within: float) -> None:
        """Wait until the captures of a task have ended, at most `within` seconds; what is there is kept."""
        mine = {key: task for key, task in self._captures.items() if key[0] == task_id}
        if mine:
            _, late = await asyncio.wait(mine.values(), timeout=within)
            await aio.cancel(*late)
        for key in mine:
            self._captures.pop(key, None)

    def has(self, task_id: str, container: str) -> bool:
        """Tell whether the whole log of a container is kept here."""
        return self._kept(task_id, container).exists()

    async def read_kept(self, task_id: str, container: str) -> AsyncIterator[bytes]:
        """Yield a kept log; nothing when there is none."""
        with contextlib.suppress(FileNotFoundError), self._kept(task_id, container).open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    async def read_living(
        self, namespace: str, pod: str, container: str, *, follow: bool
    ) -> AsyncGenerator[bytes, None]:
        """Yield a container's log from the cluster; with `follow` until it ends.

        Nothing when the container has not started, or the pod is gone.
        """
        try:
            async with aclosing(
                self._client.logs(namespace, pod, kubernetes_name(container), follow=follow)
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
        """End the captures; the next process begins them anew where the pod still lives."""
        await aio.cancel(*self._captures.values())
        self._captures.clear()

    async def _capture(self, task_id: str, namespace: str, pod: str, container: str) -> None:
        whole = self._kept(task_id, container)
        part = whole.with_name(f".{whole.name}.part")
        began = False
        try:
            files.make_private_folder(self._folder)
            files.make_private_folder(whole.parent)
            with part.open("wb") as file:
                try:
                    async with aclosing(
                        self._client.logs(namespace, pod, kubernetes_name(container), follow=True)
                    ) as chunks:
                        async for chunk in chunks:
                            began = True
                            file.write(chunk)
                except ApiError as error:
                    if error.status not in (400, 404):
                        _log.warning("the log of %s/%s could not be kept: %s", pod, container, error)
                except Unreachable as error:
                    _log.warning("the log of %s/%s was kept in part: %s", pod, container, error)
        except OSError as error:
            _log.warning("the log of %s/%s cannot be written: %s", pod, container, error)
        finally:
            with contextlib.suppress(OSError):
                if began:
                    part.chmod(0o600)
                    part.replace(whole)
                else:
                    part.unlink(missing_ok=True)

    def _kept(self, task_id: str, container: str) -> Path:
        return self._folder / task_id / f"{container}.log"
