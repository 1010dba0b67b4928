"""Images that only this machine's Docker has come into the cluster before the pods that run them start.

`task_images` asks for the images of a task (`Images.bring`) and gets, for each, what was tried: the pod is
made whatever came of it, and the kubelet pulls what it does not find. Each id of an image is imported once,
however many tasks wait for it, and one import runs at a time, on a thread. No failure here stops a task.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from kecs import aio
from kecs.client.images import short_id
from kecs.errors import KecsError

SURE_FOR = 30.0
"""Seconds for which the nodes are not asked again whether they have an image: a kubelet short of disk space
deletes some, and a burst of tasks must not ask a hundred times."""
FAILED_FOR = 120.0
"""Seconds until an id of an image whose import failed is tried again: a service starts its tasks anew all the
time, and each would wait."""
TURN_WITHIN = 300.0
"""Longest wait, in seconds, for the imports before this one; each of them has a limit of its own."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Source(Protocol):
    """The Docker of this machine and the nodes of one cluster. All methods block; they run on threads."""

    def local_id(self, image: str) -> str | None:
        """Return the id of an image that Docker has, else None. Raises `KecsError` when it does not say."""
        ...

    def has(self, image: str, image_id: str) -> bool:
        """Tell whether every node has the image as it is in Docker. Raises `KecsError`."""
        ...

    def bring(self, image: str, image_id: str, note: Callable[[str], None]) -> None:
        """Import the image into every node, and see that it is there. Raises `KecsError`."""
        ...

    def stop(self) -> None:
        """End what the other methods have begun, from any thread; they raise `KecsError`."""
        ...


@dataclass(frozen=True)
class Brought:
    """What came of bringing one image."""

    image: str
    how: Literal["there", "imported", "absent", "failed", "unasked"]
    """`there`: the nodes had it; `absent`: Docker has none of that name; `unasked`: nothing was tried."""
    image_id: str = ""
    """Docker's id in short, where it has one."""
    detail: str = ""
    """Why it `failed` or was `unasked`, without a period."""
    seconds: float = 0.0
    """What the import took."""

    @property
    def tried(self) -> str | None:
        """Say what was tried, for the error of a pull that fails all the same; None: nothing to tell."""
        if self.how == "absent":
            return f"Docker on this machine has no image {self.image} to import"
        if self.how == "imported":
            return "it had been imported from Docker on this machine"
        if self.how == "failed":
            return f"importing it from Docker on this machine failed: {self.detail}"
        return self.detail or None


Began = Callable[[str, str], Awaitable[None]]
"""Is told that an import begins for which the caller waits: (image, id in short)."""


class Brings(Protocol):
    """What `task_images` needs: `Images`, or `Never`."""

    async def bring(self, images: Collection[str], began: Began) -> list[Brought]:
        """Return once each image is where it is run from, or will not get there by this way."""
        ...

    def progress(self, images: Iterable[str]) -> str | None:
        """Say what is being done for the first of these for which anything is, else None."""
        ...

    async def close(self) -> None:
        """End what has begun."""
        ...


class Never:
    """An instance that was started with `--import never`: nothing is tried, and who looks for why is told."""

    async def bring(self, images: Collection[str], began: Began) -> list[Brought]:  # noqa: ARG002
        """Return that nothing was tried."""
        why = "images of Docker on this machine are not imported (`--import never`)"
        return [Brought(image, "unasked", detail=why) for image in images]

    def progress(self, images: Iterable[str]) -> str | None:  # noqa: ARG002 - see `Brings`
        """Return None."""
        return None

    async def close(self) -> None:
        """Do nothing."""


class _Job:
    """One image on its way, for all who wait for it."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.image_id = ""
        self.importing = asyncio.Event()
        """Docker has it, the nodes do not: it is imported when its turn has come."""
        self.since: float | None = None
        """When its turn came (`Images` clock)."""
        self.step = ""
        """The last that the program said; written by its thread."""
        self.work: asyncio.Task[Brought]

    def note(self, text: str) -> None:
        self.step = text


class Images:
    """Brings images; lives on the event loop of the control plane."""

    def __init__(self, source: Source, clock: Callable[[], float] = time.monotonic) -> None:
        self._source, self._clock = source, clock
        self._jobs: dict[str, _Job] = {}
        self._sure: dict[str, tuple[str, float]] = {}
        """Docker's id of each image that all nodes have, and when that was seen."""
        self._failed: dict[tuple[str, str], tuple[float, Brought]] = {}
        self._turn = asyncio.Lock()
        # Threads of their own: a Docker that hangs must not hold up what else runs on threads.
        self._threads = ThreadPoolExecutor(3, thread_name_prefix="images")

    async def bring(self, images: Collection[str], began: Began) -> list[Brought]:
        """See `Brings.bring`. Who stops to wait leaves the import to the others, and to itself later."""
        return list(await asyncio.gather(*(self._wait_for(image, began) for image in dict.fromkeys(images))))

    def progress(self, images: Iterable[str]) -> str | None:
        """See `Brings.progress`."""
        for image in images:
            job = self._jobs.get(image)
            if job is None or not job.importing.is_set():
                continue
            if job.since is None:
                return f"image {image} waits to be imported from Docker: other imports are before it"
            step = f" ({job.step})" if job.step else ""
            so_far = f"{self._clock() - job.since:.0f} s so far{step}"
            return f"image {image} is being imported from Docker into the cluster, {so_far}"
        return None

    async def close(self) -> None:
        """See `Brings.close`; programs that run are ended with all that they started."""
        jobs, self._jobs = list(self._jobs.values()), {}
        self._source.stop()
        await aio.cancel(*(job.work for job in jobs))
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _wait_for(self, image: str, began: Began) -> Brought:
        if "@" in image:
            why = "an image that is named by its digest is not imported from Docker on this machine"
            return Brought(image, "unasked", detail=why)
        job = self._jobs.get(image)
        if job is None:
            job = self._jobs[image] = _Job(image)
            job.work = aio.create_task(self._do(job), name=f"image {image}")
        importing = aio.create_task(job.importing.wait(), name=f"import of {image}")
        try:
            await asyncio.wait({job.work, importing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await aio.cancel(importing)
        if job.importing.is_set():
            await began(image, job.image_id)
        return await asyncio.shield(job.work)

    async def _do(self, job: _Job) -> Brought:
        try:
            return await self._bring(job)
        except Exception:  # noqa: BLE001 - the top of a task: a fault of ours must not hold tasks up
            _log.exception("image %s could not be brought to the cluster", job.image)
            return Brought(job.image, "failed", job.image_id, "the control plane's log says why")
        finally:
            self._jobs.pop(job.image, None)

    async def _bring(self, job: _Job) -> Brought:
        """Look whether the image is to be imported, and import it."""
        image = job.image
        try:
            full_id = await self._on_thread(self._source.local_id, image)
            if full_id is None:
                return Brought(image, "absent")
            job.image_id = short_id(full_id)
            if await self._is_there(image, full_id):
                return Brought(image, "there", job.image_id)
        except KecsError as error:
            why = f"it was not imported from Docker on this machine: {error.message}"
            return Brought(image, "unasked", job.image_id, why)
        failed = self._failed.get((image, full_id))
        if failed is not None and self._clock() < failed[0] + FAILED_FOR:
            return failed[1]
        job.importing.set()
        try:
            async with asyncio.timeout(TURN_WITHIN):
                await self._turn.acquire()
        except TimeoutError:
            return Brought(image, "failed", job.image_id, f"its turn did not come within {TURN_WITHIN:.0f} s")
        try:
            return await self._import(job, full_id)
        finally:
            self._turn.release()

    async def _import(self, job: _Job, full_id: str) -> Brought:
        image, job.since = job.image, self._clock()
        _log.info("importing image %s (%s) from Docker into the cluster", image, job.image_id)
        try:
            await self._on_thread(self._source.bring, image, full_id, job.note)
        except KecsError as error:
            brought = Brought(image, "failed", job.image_id, error.message, self._clock() - job.since)
            self._failed[image, full_id] = (self._clock(), brought)
            more = {"hint": error.hint}
            _log.warning("image %s could not be imported: %s", image, error.message, extra=more)
            return brought
        self._failed.pop((image, full_id), None)
        self._sure[image] = (full_id, self._clock())
        seconds = self._clock() - job.since
        _log.info("image %s is in the cluster after %.1f s", image, seconds)
        return Brought(image, "imported", job.image_id, seconds=seconds)

    async def _is_there(self, image: str, full_id: str) -> bool:
        sure = self._sure.get(image)
        if sure is not None and sure[0] == full_id and self._clock() < sure[1] + SURE_FOR:
            return True
        found = await self._on_thread(self._source.has, image, full_id)
        if found:
            self._sure[image] = (full_id, self._clock())
        else:
            self._sure.pop(image, None)
        return found

    async def _on_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, functools.partial(call, *arguments))
