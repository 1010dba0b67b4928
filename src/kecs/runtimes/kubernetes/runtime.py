"""The `kubernetes` runtime: each task is one Pod of a cluster, which it never restarts.

The cluster does placement, networking and images; ECS's rules stay in `kecs.ecs`. Observations come from one
watch of the instance's pods, and what is missing after a relist is gone. Implements `runtimes.base.Runtime`
and `Exposes`; the control plane makes it, with the cluster reachable or not: what cannot be done now is
raised and tried again by the caller.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import aclosing
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from kecs import aio
from kecs.errors import ExitCode, KecsError
from kecs.kube.client import KubeClient
from kecs.kube.errors import ApiError, Unreachable
from kecs.kube.watch import Changed, Deleted, Event, Synced
from kecs.runtimes.base import Exposure, NodeObserved, TaskObserved, TaskSpec
from kecs.runtimes.kubernetes import manifests, pods
from kecs.runtimes.kubernetes.exposures import Exposures
from kecs.runtimes.kubernetes.following import follow
from kecs.runtimes.kubernetes.manifests import Owner
from kecs.runtimes.kubernetes.namespaces import ForeignNamespaceError, Namespaces
from kecs.runtimes.kubernetes.nodes import Nodes
from kecs.runtimes.kubernetes.pod_logs import PodLogs
from kecs.runtimes.kubernetes.tracked import Tools, TrackedPod
from kecs.runtimes.news import News

STARTS_AT_ONCE = 16
"""Pods that are being created at a time: a burst must not be throttled by the API server's fairness."""
WATCHED = ("Pod", "Node", "Service")
"""Kinds that are followed, those first without which more stands still."""
SLEEP_ACTION_SINCE = (1, 30)
"""Kubernetes from which `preStop.sleep` works (KEP-3960: beta and on by default)."""

_log = logging.getLogger(__name__)


class KubernetesRuntime:
    """Runs tasks as Pods."""

    name = "kubernetes"

    def __init__(
        self, client: KubeClient, owner: Owner, folder: Path, *, vanished: str | None = None
    ) -> None:
        """`folder` is the instance's `tasks/`, where the logs of tasks that have ended are kept.

        `vanished`: see `tracked.Tools`.
        """
        self._client, self._owner = client, owner
        self._logs = PodLogs(client, folder)
        self._nodes = Nodes(client)
        self._namespaces = Namespaces(client, owner)
        self._exposures = Exposures(client, owner, self._namespaces)
        self._news = News()
        self._tools = Tools(client, self._logs, self._nodes, self._news.tell, vanished)
        self._pods: dict[str, TrackedPod] = {}
        self._adopting: set[str] = set()
        self._starting = asyncio.Semaphore(STARTS_AT_ONCE)
        self._sleep_action: bool | None = None
        self._workers: list[asyncio.Task[None]] = []
        self._clearing: set[asyncio.Task[None]] = set()
        self._troubles: dict[str, tuple[float, str]] = {}
        """By kind: since when (epoch seconds) and why its objects cannot be watched."""

    @property
    def trouble(self) -> tuple[float, str] | None:
        """Since when (epoch seconds) and why the cluster cannot be followed; None while all is well."""
        return next((self._troubles[kind] for kind in WATCHED if kind in self._troubles), None)

    # Runtime

    async def open(self, expected: Sequence[str], keep: Collection[str] | None = None) -> None:
        """Begin to watch; see `runtimes.base.Runtime.open`. Returns without waiting for the cluster."""
        self._adopting = set(expected)
        if keep is not None:
            self._logs.keep_only({*expected, *keep})
        self._workers = [
            aio.create_task(self._watch_pods(), name="watch of pods"),
            aio.create_task(self._nodes.watch(partial(self._report, "Node")), name="watch of nodes"),
            aio.create_task(
                self._exposures.watch(partial(self._report, "Service")), name="watch of Services"
            ),
        ]

    async def run(self, task: TaskSpec) -> None:
        """Create the task's Pod. Raises `ApiError`, `Unreachable` when the cluster cannot take it now."""
        tracked = self._pods.get(task.id)
        if tracked is None or tracked.over:
            tracked = self._pods[task.id] = TrackedPod(task.id, self._tools)
        elif tracked.place is not None:
            return
        try:
            async with self._starting:
                tracked.created(await self._create(task, tracked))
        except ForeignNamespaceError as error:
            tracked.fail(f"ResourceInitializationError: {error}")
        except ApiError as error:
            self._namespaces.check(task.namespace or "", error)
            if error.status == HTTPStatus.UNAUTHORIZED and self.trouble is None:
                # An open watch outlives the credentials it was opened with, for minutes. Asking again now, it
                # says in `trouble` what is wrong, and later that it is over.
                self._client.rouse()
            if not _is_final(error):
                raise
            await _drop_secret(tracked)
            tracked.fail(f"ResourceInitializationError: the cluster refused the task's pod: {error.message}")

    async def stop(self, task_id: str) -> None:
        """Delete the task's Pod; its end is observed. Raises `ApiError`, `Unreachable`: try again."""
        tracked = self._pods.get(task_id)
        if tracked is not None:
            await tracked.stop()
        else:
            self._news.tell(TaskObserved(task_id=task_id, ended=True, lost=True))

    def observations(self) -> AsyncIterator[TaskObserved]:
        """Yield observations until `close`; of several of one task, only the newest."""
        return self._news.observations()

    async def logs(self, task_id: str, container: str, *, follow: bool) -> AsyncIterator[bytes]:
        """Yield what a container wrote, oldest first; with `follow` until it has ended, whatever breaks.

        Raises `KecsError` when nothing is kept of the task, the cluster refuses to tell, or (without
        `follow`) it cannot be reached.
        """
        tracked = self._pods.get(task_id)
        while follow and tracked is not None and not tracked.over and _waits(tracked, container):
            await tracked.changed.wait()
        if self._logs.has(task_id, container):
            async for chunk in self._logs.read_kept(task_id, container):
                yield chunk
        elif tracked is not None and not tracked.over and tracked.place is not None:
            try:
                living = (
                    self._logs.follow(tracked, container)
                    if follow
                    else self._logs.read_living(*tracked.place, container)
                )
                async with aclosing(living) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except (ApiError, Unreachable) as error:
                raise KecsError(
                    f"the log of {container} cannot be read: {error}",
                    "look at `kecs status`",
                    ExitCode.UNREACHABLE,
                ) from error
        else:
            raise KecsError(f"nothing is kept of task `{task_id}`", exit_code=ExitCode.NOT_FOUND)

    async def forget(self, task_id: str) -> None:
        """Delete what is kept of a stopped task."""
        tracked = self._pods.pop(task_id, None)
        if tracked is not None:
            await tracked.close()
        self._news.drop(task_id)
        self._logs.forget(task_id)

    async def settled(self) -> None:
        """Wait until the deletion of what nobody expected was asked for."""
        await asyncio.gather(*self._clearing, return_exceptions=True)

    async def close(self) -> None:
        """Let go: pods go on."""
        self._news.close()
        self._nodes.close()
        self._exposures.close()
        await aio.cancel(*self._workers, *self._clearing)
        await asyncio.gather(*(tracked.close() for tracked in self._pods.values()))
        await self._logs.close()
        await self._client.close()

    # Exposes

    async def expose(self, exposure: Exposure) -> None:
        """See `runtimes.base.Exposes.expose`."""
        await self._exposures.expose(exposure)

    async def withdraw(self, namespace: str, name: str) -> None:
        """See `runtimes.base.Exposes.withdraw`."""
        await self._exposures.withdraw(namespace, name)

    async def exposures(self) -> list[Exposure]:
        """See `runtimes.base.Exposes.exposures`."""
        return await self._exposures.exposures()

    def drift(self) -> AsyncIterator[tuple[str, str]]:
        """See `runtimes.base.Exposes.drift`."""
        return self._exposures.drift()

    def nodes(self) -> AsyncIterator[list[NodeObserved]]:
        """See `runtimes.base.Exposes.nodes`."""
        return self._nodes.observed()

    # How it is done

    async def _create(self, task: TaskSpec, tracked: TrackedPod) -> dict[str, Any]:
        assert task.namespace is not None
        assert task.pod is not None
        if self._sleep_action is None:
            self._sleep_action = await self._client.version() >= SLEEP_ACTION_SINCE
        await self._namespaces.ensure(task.namespace, task.region, task.cluster)
        secret = manifests.secret(task, self._owner)
        tracked.order(task.namespace, task.pod, secret=secret is not None)
        if secret is not None:
            await self._client.apply(secret)
        return await self._client.apply(manifests.pod(task, self._owner, sleep_action=self._sleep_action))

    async def _watch_pods(self) -> None:
        labels = manifests.selector(self._owner)
        report = partial(self._report, "Pod")
        watch = partial(self._client.watch, "Pod", labels, report=report)
        await follow(watch, self._take, "pods", report)

    def _take(self, event: Event) -> None:
        if isinstance(event, Synced):
            self._synced(event.objects)
        elif isinstance(event, Changed):
            self._seen(event.object)
        elif isinstance(event, Deleted):
            self._seen(event.object)
            tracked = self._pods.get(pods.task_id(event.object))
            if tracked is not None and tracked.place == _place(event.object):
                tracked.gone()

    def _report(self, kind: str, error: ApiError | Unreachable | None) -> None:
        """Note that the watch of a kind cannot go on, or goes on."""
        if error is None:
            self._troubles.pop(kind, None)
        else:
            since, _ = self._troubles.get(kind, (time.time(), ""))
            self._troubles[kind] = (since, str(error))

    def _synced(self, objects: list[dict[str, Any]]) -> None:
        """Take a whole list: what is missing from it is gone."""
        there = {pods.task_id(each) for each in objects}
        for task_id, tracked in self._pods.items():
            if task_id not in there:
                tracked.missed()
        adopting, self._adopting = self._adopting, set()
        for task_id in adopting:
            tracked = self._pods.setdefault(task_id, TrackedPod(task_id, self._tools))
            if task_id not in there:
                tracked.lost()
        for each in objects:
            self._seen(each)

    def _seen(self, pod: dict[str, Any]) -> None:
        tracked = self._pods.get(pods.task_id(pod))
        if tracked is not None and not (tracked.over and tracked.place is None):
            tracked.seen(pod)
        elif not pod["metadata"].get("deletionTimestamp"):
            self._clear(pod)

    def _clear(self, pod: dict[str, Any]) -> None:
        """Delete a pod of this instance that nobody expects."""
        namespace, name = _place(pod)

        async def delete() -> None:
            try:
                await self._client.delete("Pod", namespace, name, uid=pod["metadata"]["uid"])
                if pods.has_secret(pod):
                    await self._client.delete("Secret", namespace, name)
            except (ApiError, Unreachable) as error:  # seen again at the next relist
                _log.warning("pod %s/%s could not be deleted: %s", namespace, name, error)

        _log.warning("pod %s/%s runs and nobody expects it: deleting it", namespace, name)
        clearing = aio.create_task(delete(), name=f"clear {name}")
        self._clearing.add(clearing)
        clearing.add_done_callback(self._clearing.discard)


async def _drop_secret(tracked: TrackedPod) -> None:
    try:
        await tracked.drop_secret()
    except (ApiError, Unreachable) as error:  # it stays until `kecs destroy`
        _log.warning("the Secret of task %s could not be deleted: %s", tracked.task_id, error)


def _place(pod: dict[str, Any]) -> tuple[str, str]:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]


def _waits(tracked: TrackedPod, container: str) -> bool:
    """Tell whether the container has not started yet, and may."""
    if tracked.last is None:
        return True
    return any(
        one.name == container and one.status == "PENDING" and one.started_at is None
        for one in tracked.last.containers
    )


def _is_final(error: ApiError) -> bool:
    """Tell whether asking again would be refused again: what is wrong is the pod, or a right that lacks.

    404 (the namespace went meanwhile), 409, 429 and everything of the server's own are tried again; and 401,
    since a new login is taken up when there is one.
    """
    terminating = "NamespaceTerminating" in (cause.reason for cause in error.causes)
    return error.status in (400, 403, 422) and not terminating
