"""The namespaces of an instance, one for each of its ECS clusters: made when needed, deleted by `destroy`.

A namespace of the same name that another made (its `kecs.dev/instance-id` is not ours) is never used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

from kecs.kube.client import KubeClient
from kecs.kube.errors import ApiError
from kecs.kube.watch import Deleted, Synced
from kecs.runtimes.kubernetes import manifests
from kecs.runtimes.kubernetes.manifests import Owner

GRACE = 2
"""Seconds that pods get to end when all is destroyed: nobody leads traffic away from them any more, so the
time for that (`preStop`) is not waited for."""

DELETES_AT_ONCE = 8


class ForeignNamespaceError(Exception):
    """The namespace belongs to somebody else; the text says so."""


class Namespaces:
    """The namespaces of one instance."""

    def __init__(self, client: KubeClient, owner: Owner) -> None:
        self._client, self._owner = client, owner
        self._there: set[str] = set()
        self._one_at_a_time = asyncio.Lock()

    async def ensure(self, name: str, region: str, cluster: str) -> None:
        """Make the namespace unless it is there.

        Raises `ForeignNamespaceError`, `ApiError`, `Unreachable`.
        """
        if name in self._there:
            return
        async with self._one_at_a_time:
            if name in self._there:
                return
            found = await self._client.get("Namespace", None, name)
            if found is not None and not manifests.owned(found, self._owner):
                raise ForeignNamespaceError(f"the namespace {name} was not made by this instance")
            await self._client.apply(manifests.namespace(name, self._owner, region, cluster))
            self._there.add(name)

    def check(self, name: str, error: ApiError) -> None:
        """Look again next time when an error says that the namespace is not there any more, or is leaving."""
        leaving = any(cause.reason == "NamespaceTerminating" for cause in error.causes)
        if leaving or error.status == HTTPStatus.NOT_FOUND:
            self._there.discard(name)


async def destroy(client: KubeClient, owner: Owner, note: Callable[[str], None]) -> int:
    """Delete every namespace of the instance, with all that is in it; return how many there were.

    Returns when they are gone. Raises `ApiError`, `Unreachable`.
    """
    objects, _ = await client.list("Namespace", None, manifests.selector(owner))
    left = {each["metadata"]["name"] for each in objects if manifests.owned(each, owner)}
    count = len(left)
    if not left:
        return 0
    note(f"deleting {count} namespace{'s' if count > 1 else ''} of the cluster: {', '.join(sorted(left))}")
    await _end_pods(client, owner, left)
    for name in left:
        await client.delete("Namespace", None, name)
    async with aclosing(client.watch("Namespace", manifests.selector(owner))) as events:
        while left:
            event = await anext(events)
            if isinstance(event, Synced):
                left &= {each["metadata"]["name"] for each in event.objects}
            elif isinstance(event, Deleted):
                left.discard(event.object["metadata"]["name"])
    return count


async def _end_pods(client: KubeClient, owner: Owner, namespaces: Collection[str]) -> None:
    """Have the pods of these namespaces deleted; the namespaces' own end would leave them all their time."""
    pods, _ = await client.list("Pod", None, manifests.selector(owner))
    at_once = asyncio.Semaphore(DELETES_AT_ONCE)

    async def end(metadata: dict[str, Any]) -> None:
        async with at_once:
            await client.delete("Pod", metadata["namespace"], metadata["name"], grace=GRACE)

    ours = (pod["metadata"] for pod in pods if manifests.owned(pod, owner))
    await asyncio.gather(*(end(each) for each in ours if each["namespace"] in namespaces))
