"""The runtime of a control plane, and whether its cluster is the one that the instance was made for.

Made by the daemon. `kecs.kube` and `kecs.runtimes.kubernetes` are imported for an instance on a cluster only,
`kecs.runtimes.local` for a local one only. Before a cluster has said that it is the right one, nothing is
done on it: behind the same context there may be another one now, on which every task would be missing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from kecs.client.admin_types import ClusterStatus
from kecs.client.cluster import another_cluster
from kecs.client.instance import Instance, Kubernetes
from kecs.controlplane.images import Brings, Images, Never
from kecs.ecs.model import Node
from kecs.ecs.state import Reader
from kecs.errors import ExitCode, KecsError
from kecs.paths import InstancePaths
from kecs.runtimes.base import Exposes, Runtime

RETRY_AFTER = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Delays, in seconds, before a cluster that did not answer is asked again which one it is."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """What runs the tasks of an instance."""

    runtime: Runtime
    exposes: Exposes | None = None
    cluster: Cluster | None = None
    rouse: Callable[[], None] = lambda: None
    """Look anew at all that is watched elsewhere: this machine has slept."""
    images: Brings | None = None
    """What brings images of this machine's Docker to the cluster; None where nothing does."""


def choose(paths: InstancePaths, instance: Instance) -> Chosen:
    """Make the runtime of an instance. Raises `KecsError` (exit 5) when its kubeconfig is of no use."""
    if instance.kubernetes is None:
        if instance.runtime == "k3d":
            raise KecsError(
                f"the cluster of the instance `{instance.name}` was never finished",
                "`kecs start` begins anew",
                ExitCode.UNREACHABLE,
            )
        from kecs.runtimes.local import LocalRuntime

        return Chosen(LocalRuntime(paths, environment=instance.environment, directory=instance.directory))
    from kecs.kube.access import Access
    from kecs.kube.client import KubeClient
    from kecs.kube.errors import ApiError, Unreachable
    from kecs.kube.identity import cluster_uid
    from kecs.runtimes.kubernetes import reasons
    from kecs.runtimes.kubernetes.manifests import Owner
    from kecs.runtimes.kubernetes.runtime import KubernetesRuntime

    access = Access.load(Path(instance.kubernetes.kubeconfig), instance.kubernetes.context)
    client = KubeClient(access)
    vanished = reasons.K3D_STOPPED if instance.k3d is not None else None
    runtime = KubernetesRuntime(client, Owner(instance.name, instance.id), paths.tasks, vanished=vanished)

    async def uid() -> str:
        try:
            return await cluster_uid(client)
        except (ApiError, Unreachable) as error:
            raise Silent(str(error)) from error

    known = Cluster(instance.kubernetes, access.server, runtime, uid)
    return Chosen(runtime, runtime, known, client.rouse, _images(paths, instance))


def _images(paths: InstancePaths, instance: Instance) -> Brings | None:
    """Return what brings images to the nodes: KECS's own cluster only, others are their owners' work."""
    if instance.k3d is None:
        return None
    if instance.k3d.import_images == "never":
        return Never()
    from kecs.controlplane.k3d_images import K3dImages

    return Images(K3dImages(paths, instance))


class Silent(Exception):  # noqa: N818 - it names the cluster's state
    """The cluster did not say which one it is; the text says why."""


class Cluster:
    """What is known of the cluster of this instance."""

    def __init__(
        self,
        chosen: Kubernetes,
        server: str,
        runtime: Exposes,
        uid: Callable[[], Awaitable[str]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`uid` asks the cluster for its identity. Raises `Silent`."""
        self._chosen, self._server, self._runtime = chosen, server, runtime
        self._uid, self._clock = uid, clock
        self._known = False
        self._trouble: tuple[float, str] | None = None

    async def known(self) -> None:
        """Return once the cluster has said that it is the right one, however long that takes.

        Raises `KecsError` (exit 4) when it is another one.
        """
        attempts = 0
        while not self._known:
            try:
                found = await self._uid()
            except Silent as error:
                delay = RETRY_AFTER[min(attempts, len(RETRY_AFTER) - 1)]
                attempts += 1
                if self._trouble is None:
                    _log.warning("the cluster cannot be asked which one it is: %s", error)
                self._trouble = (self._trouble[0] if self._trouble else self._clock(), str(error))
                await asyncio.sleep(delay)
                continue
            if found != self._chosen.cluster_uid:
                raise another_cluster(self._chosen)
            self._known, self._trouble = True, None

    def trouble(self) -> str | None:
        """Return since when and why the cluster cannot be reached, in a sentence; None while it can."""
        trouble = self._now()
        if trouble is None:
            return None
        since = time.strftime("%H:%M:%S", time.localtime(trouble[0]))
        return f"the cluster cannot be reached since {since}: {trouble[1]}"

    def silent_for(self) -> float:
        """Return for how many seconds it has not answered; 0 while it does."""
        trouble = self._now()
        return 0.0 if trouble is None else max(0.0, self._clock() - trouble[0])

    def status(self, state: Reader) -> ClusterStatus:
        """Say how it is; nodes are as last seen."""
        trouble = self._now()
        nodes = state.scan(Node)
        return ClusterStatus(
            context=self._chosen.context,
            server=self._server,
            connected=self._known and trouble is None,
            lost_at=trouble[0] if trouble is not None else None,
            detail=trouble[1] if trouble is not None else None,
            nodes=len(nodes),
            nodes_ready=sum(node.ready for node in nodes),
        )

    def _now(self) -> tuple[float, str] | None:
        return self._runtime.trouble if self._known else self._trouble
