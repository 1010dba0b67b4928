"""The images of one task: brought before it is started, told of in its service's events.

Between a task's flow, which knows rows, and `images`, which knows none.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable

import msgspec

from kecs.controlplane.images import Brings
from kecs.ecs import events
from kecs.ecs.model import Service, Task
from kecs.ecs.state import Tx
from kecs.runtimes.base import TaskSpec
from kecs.store.ecs import Store

_log = logging.getLogger(__name__)


class TaskImages:
    """Brings the images of tasks."""

    def __init__(self, store: Store, images: Brings, clock: Callable[[], float]) -> None:
        self._store, self._images, self._clock = store, images, clock

    async def bring(self, task: Task, spec: TaskSpec) -> TaskSpec:
        """Return once nothing more can be done for its images; the order then says what was tried."""

        async def began(image: str, image_id: str) -> None:
            await self._say(task, events.imports_image, image, image_id)

        names = dict.fromkeys(one.image for one in spec.containers if one.image)
        brought = {each.image: each for each in await self._images.bring(names, began)}
        for each in brought.values():
            if each.how == "imported":
                await self._say(task, events.imported_image, each.image, each.image_id, each.seconds)
            elif each.how == "failed":
                await self._say(task, events.image_not_imported, each.image, each.image_id, each.detail)
        tried = {image: each.tried for image, each in brought.items()}
        replace = msgspec.structs.replace
        containers = [replace(one, image_tried=tried.get(one.image)) for one in spec.containers]
        return replace(spec, containers=containers)

    def progress(self, images: Iterable[str]) -> str | None:
        """Say what is being done for the first of these for which anything is, else None."""
        return self._images.progress(images)

    async def close(self) -> None:
        """End what has begun."""
        await self._images.close()

    async def _say(self, task: Task, event: Callable[..., Service], *what: str | float) -> None:
        """Write an event of the task's service, if it is of one."""

        def commit(tx: Tx) -> None:
            service = tx.get(Service, task.region, task.cluster, task.service or "")
            if service is not None:
                tx.put(event(service, *what, self._clock(), lambda: uuid.uuid4().hex))

        try:
            await self._store.transact(commit)
        except Exception:  # noqa: BLE001 - a full disk: a task must not wait for words about it
            _log.exception("an event of the service of task %s could not be committed", task.id)
