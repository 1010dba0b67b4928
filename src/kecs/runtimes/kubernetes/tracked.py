"""One task's pod, from the order to run it (or its adoption) to its end.

`runtime.KubernetesRuntime` feeds it the pod's objects, `pods` says what they mean, and out come observations.
A pod is deleted here and nowhere else, and not before its logs are kept.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from kecs import aio
from kecs.kube.client import KubeClient
from kecs.kube.errors import ApiError, Unreachable
from kecs.runtimes.base import TaskObserved
from kecs.runtimes.kubernetes import identity, pods, reasons
from kecs.runtimes.kubernetes.log_stream import Life
from kecs.runtimes.kubernetes.nodes import Nodes
from kecs.runtimes.kubernetes.pod_logs import PodLogs

LOGS_WITHIN = 10.0
"""Seconds for what a pod that has ended wrote to be copied, before the pod is deleted all the same."""
LOST_AFTER = 5.0
"""Seconds beyond its grace period after which a pod on a node that is not ready is lost."""
LOOK_AGAIN = 10.0
"""Seconds until a pod that is late to go is looked at again."""
RETRY_AFTER = 1.0
"""Seconds until a pod that has ended, and could not be deleted, is tried again."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tools:
    """What all tracked pods of a runtime share."""

    client: KubeClient
    logs: PodLogs
    nodes: Nodes
    publish: Callable[[TaskObserved], None]
    vanished: str | None = None
    """Why a pod is gone that nobody was seen to delete, where the kind of cluster tells; None: unknown."""


class _Ordered(NamedTuple):
    namespace: str
    name: str
    secret: bool
    """It has one, of the same name."""


class TrackedPod:
    """Follows one pod; `publish` gets each observation."""

    def __init__(self, task_id: str, tools: Tools) -> None:
        self.task_id = task_id
        self.last: TaskObserved | None = None
        """The newest observation that was published."""
        self.over = False
        """Nothing of the task exists any more, and that was said."""
        self.changed = asyncio.Event()
        """Set (and replaced) at each observation, and when the pod goes or is told to."""
        self._tools = tools
        self._pod: dict[str, Any] | None = None
        self._ordered: _Ordered | None = None
        """What may be in the cluster although nobody answered that it is."""
        self._on_watch = True
        """The watch has told of it; until then a list may be older than the pod."""
        self._stopping = False
        self._is_gone = False
        """The pod is not in the cluster any more."""
        self._looks: list[asyncio.TimerHandle] = []
        self._late: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def place(self) -> tuple[str, str] | None:
        """(namespace, pod) once the pod was seen."""
        if self._pod is None:
            return None
        return self._pod["metadata"]["namespace"], self._pod["metadata"]["name"]

    def order(self, namespace: str, name: str, *, secret: bool) -> None:
        """Note what is asked for next: a request that is not answered may have been done all the same."""
        self._ordered = _Ordered(namespace, name, secret)

    def life(self, container: str) -> Life:
        """Say what is known of a container by now, to those who read its log (`log_stream.Writer`)."""
        if self.over or self._is_gone:
            return Life.IS_GONE
        seen = self.last.containers if self.last is not None else []
        stopped = any(one.name == container and one.status == "STOPPED" for one in seen)
        return Life.HAS_ENDED if stopped else Life.GOES_ON

    def created(self, pod: dict[str, Any]) -> None:
        """Take the pod as the API server answered when it was created; the watch may have been faster."""
        if self._pod is None:
            self.seen(pod)
            self._on_watch = False

    def missed(self) -> None:
        """Take that the pod is not in a whole list: it is gone, unless that list may be older than it."""
        if self._pod is not None and self._on_watch:
            self.gone()
        self._on_watch = True

    def seen(self, pod: dict[str, Any]) -> None:
        """Take the pod as it is now."""
        if self.over or self._ending is not None:
            return
        self._pod, self._on_watch = pod, True
        now = time.time()
        observed = pods.observe(pod, now, self.last)
        if pod["metadata"].get("deletionTimestamp"):
            self._capture(observed)
            self._expect_the_end(pod)
            leaving = None if self._stopping else self._why_leaving(pod)
            observed = msgspec.structs.replace(observed, leaving=leaving)
        if observed.ended:
            self._publish(msgspec.structs.replace(observed, ended=False))
            self._end(self._conclude(observed))
            return
        self._publish(observed)
        self._look_at(pods.next_look(pod, now))

    def gone(self) -> None:
        """Take that the pod is not there any more."""
        self._is_gone = True
        self._stir()
        if not self.over and self._ending is None:
            self._end(self._vanish(self._gone(stopping=self._stopping)))

    async def stop(self) -> None:
        """Have the pod deleted; its end is observed. Raises `ApiError`, `Unreachable`: try again."""
        if self.over:
            assert self.last is not None
            self._publish(self.last)
            return
        self._stopping = True
        if self._ending is not None:
            return
        if self._pod is None:
            await self._find()
        if self._pod is None or self.over or self._ending is not None:
            return
        if self.last is not None:
            self._capture(self.last)
        metadata = self._pod["metadata"]
        there = await self._tools.client.delete(
            "Pod", metadata["namespace"], metadata["name"], uid=metadata["uid"]
        )
        if not there:
            self.gone()

    def fail(self, why: str) -> None:
        """Say that the task could not be started; nothing of it exists."""
        _log.error("task %s: %s", self.task_id, why)
        self.over = True
        self._publish(TaskObserved(task_id=self.task_id, placed=False, failure=why, ended=True))

    async def drop_secret(self) -> None:
        """Delete the Secret of a pod that there is not. Raises `ApiError`, `Unreachable`."""
        if self._ordered is not None and self._ordered.secret:
            await self._tools.client.delete("Secret", self._ordered.namespace, self._ordered.name)

    def lost(self, why: str | None = None) -> None:
        """Say that the cluster does not know the task."""
        self.over = True
        self._tools.logs.settle(self.task_id)
        last = self._gone(stopping=False)
        self._publish(msgspec.structs.replace(last, lost=True, failure=why))

    async def close(self) -> None:
        """Let go; the pod goes on."""
        self._forget_timers()
        if self._ending is not None:
            await aio.cancel(self._ending)

    async def _find(self) -> None:
        """Take a pod whose creation nobody answered as it is; without one, say that the task is over."""
        if self._ordered is not None:
            # Listed, not got: the smallest role has no other way to look at pods.
            named = {identity.TASK_ID: self.task_id}
            found, _ = await self._tools.client.list("Pod", self._ordered.namespace, named)
            if found:
                self.created(found[0])
                return
            await self.drop_secret()
        if self._pod is None:  # the watch has not been faster
            self._finish(TaskObserved(task_id=self.task_id, placed=False, ended=True))

    def _why_leaving(self, pod: dict[str, Any]) -> str:
        why = pods.why_leaving(pod)
        # A drain that must not fail (`--disable-eviction`) deletes pods and says nothing on them.
        if why == reasons.POD_DELETED and self._tools.nodes.is_cordoned(pod.get("spec", {}).get("nodeName")):
            return self._tools.vanished or reasons.DRAINED
        return why

    def _gone(self, *, stopping: bool) -> TaskObserved:
        why = self._tools.vanished or reasons.POD_DELETED
        return pods.gone(self.task_id, self.last, stopping=stopping, why=why)

    def _capture(self, observed: TaskObserved) -> None:
        """Have the logs of all containers that run or ran kept; what waits to try again does so at once."""
        names = [one.name for one in observed.containers if one.started_at is not None]
        self._tools.logs.capture(self, names)
        self._stir()

    def _end(self, how: Any) -> None:
        self._forget_timers()
        self._ending = aio.create_task(how, name=f"end of task {self.task_id[:8]}")

    async def _conclude(self, final: TaskObserved) -> None:
        """Keep the logs of a pod of which nothing runs any more, delete it, and say so."""
        while True:
            self._capture(final)
            await self._tools.logs.captured(self.task_id, LOGS_WITHIN)
            if await self._try_to_delete(grace=None):
                break
            await asyncio.sleep(RETRY_AFTER)  # then there is time for what is not whole of its logs, too
        self._finish(final)

    async def _vanish(self, final: TaskObserved) -> None:
        """Say that a pod is gone, once what can still be read of it was."""
        await self._tools.logs.captured(self.task_id, LOGS_WITHIN)
        await self._delete(grace=None)  # its Secret
        self._finish(final)

    async def _give_up(self, node: str) -> None:
        """Forget a pod whose node does not answer: what it does there can be neither seen nor ended."""
        await self._tools.logs.captured(self.task_id, 0)
        await self._delete(grace=0)
        self.lost(f"Task was lost: its node {node} does not answer")

    def _finish(self, final: TaskObserved) -> None:
        self.over = True
        self._tools.logs.settle(self.task_id)
        self._publish(final)

    async def _delete(self, *, grace: int | None) -> None:
        """Delete the pod and what belongs to it, however long that takes."""
        while True:
            if await self._try_to_delete(grace=grace):
                return
            await asyncio.sleep(RETRY_AFTER)

    async def _try_to_delete(self, *, grace: int | None) -> bool:
        """Delete the pod and what belongs to it; False when that cannot be done now."""
        if self._pod is None:
            return True
        metadata = self._pod["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        try:
            await self._tools.client.delete("Pod", namespace, name, grace=grace, uid=metadata["uid"])
            if pods.has_secret(self._pod):
                await self._tools.client.delete("Secret", namespace, name)
        except (ApiError, Unreachable) as error:
            _log.warning("pod %s/%s could not be deleted: %s", namespace, name, error)
            return False
        return True

    def _expect_the_end(self, pod: dict[str, Any]) -> None:
        if self._late is None:
            grace = float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)
            loop = asyncio.get_running_loop()
            self._late = loop.call_later(grace + LOST_AFTER, self._is_late)

    def _is_late(self) -> None:
        """Give the pod up when its node is not ready: nobody can end it there."""
        assert self._pod is not None
        node = self._pod.get("spec", {}).get("nodeName")
        if self._tools.nodes.is_ready(node):
            _log.warning("pod %s is being deleted and does not go", self._pod["metadata"]["name"])
            self._late = asyncio.get_running_loop().call_later(LOOK_AGAIN, self._is_late)
        else:
            self._end(self._give_up(str(node)))

    def _look_at(self, when: float | None) -> None:
        """Look again when time alone changes what the pod means."""
        for handle in self._looks:
            handle.cancel()
        self._looks.clear()
        if when is not None:
            loop = asyncio.get_running_loop()
            self._looks.append(loop.call_later(max(0.05, when - time.time()), self._look))

    def _look(self) -> None:
        if self._pod is not None:
            self.seen(self._pod)

    def _forget_timers(self) -> None:
        self._look_at(None)
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _stir(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def _publish(self, observed: TaskObserved) -> None:
        self.last = observed
        self._stir()
        self._tools.publish(observed)
