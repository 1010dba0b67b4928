"""Kubernetes Services of ECS services and tasks: applied, taken away, and watched for what others do to them.

Implements the part of `kecs.runtimes.base.Exposes` that is about exposures; `runtime.KubernetesRuntime`
owns it. Which node port a Service has is decided elsewhere (`kecs.ecs.node_ports`): here it is only applied.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

from kecs.kube.client import KubeClient
from kecs.kube.errors import ApiError
from kecs.kube.watch import Changed, Deleted, Event, Report, Synced
from kecs.runtimes.base import Exposure, NodePortTakenError
from kecs.runtimes.kubernetes import manifests
from kecs.runtimes.kubernetes.following import follow
from kecs.runtimes.kubernetes.manifests import Owner
from kecs.runtimes.kubernetes.namespaces import Namespaces

_TAKEN = re.compile(r"(\d+): provided port is already allocated")
"""Text of pkg/registry/core/service/portallocator in Kubernetes, behind the field's value."""
Key = tuple[str, str]
"""(namespace, name)."""


class Exposures:
    """The Services of one instance."""

    def __init__(self, client: KubeClient, owner: Owner, namespaces: Namespaces) -> None:
        self._client, self._owner, self._namespaces = client, owner, namespaces
        self._applied: dict[Key, Exposure] = {}
        self._drifted: dict[Key, None] = {}
        self._news = asyncio.Event()
        self._closed = False

    async def expose(self, exposure: Exposure) -> None:
        """Make the cluster so. Raises `NodePortTakenError`, `ApiError`, `Unreachable`."""
        await self._namespaces.ensure(exposure.namespace, exposure.region, exposure.cluster)
        # Before the request: its own echo on the watch must not look like somebody's change.
        before = self._applied.get(exposure.key)
        self._applied[exposure.key] = exposure
        try:
            await self._client.apply(manifests.service(exposure, self._owner))
        except ApiError as error:
            if before is None:
                self._applied.pop(exposure.key, None)
            else:
                self._applied[exposure.key] = before
            self._namespaces.check(exposure.namespace, error)
            taken = _TAKEN.search(error.message)
            if error.status == HTTPStatus.UNPROCESSABLE_ENTITY and taken is not None:
                raise NodePortTakenError(int(taken[1])) from error
            raise

    async def withdraw(self, namespace: str, name: str) -> None:
        """Delete a Service of this instance; one of another stays."""
        self._applied.pop((namespace, name), None)
        found = await self._client.get("Service", namespace, name)
        if found is not None and manifests.owned(found, self._owner):
            await self._client.delete("Service", namespace, name, uid=found["metadata"]["uid"])

    async def exposures(self) -> list[Exposure]:
        """Return what the cluster has of this instance's now."""
        objects, _ = await self._client.list("Service", None, manifests.selector(self._owner))
        found = (manifests.exposure_of(each) for each in objects)
        return [exposure for exposure in found if exposure is not None]

    async def drift(self) -> AsyncIterator[Key]:
        """Yield the key of each applied exposure that the cluster has otherwise, or not any more."""
        while not self._closed:
            while self._drifted:
                key = next(iter(self._drifted))
                del self._drifted[key]
                yield key
            self._news.clear()
            if not self._closed:
                await self._news.wait()

    async def watch(self, report: Report) -> None:
        """Follow the Services for ever; cancelled by the owner. `report` hears why that cannot go on."""
        labels = manifests.selector(self._owner)
        watch = partial(self._client.watch, "Service", labels, report=report)
        await follow(watch, self._take, "Services", report)

    def _take(self, event: Event) -> None:
        if isinstance(event, Synced):
            self._compare({_key(each): each for each in event.objects})
        elif isinstance(event, Changed):
            key = _key(event.object)
            applied = self._applied.get(key)
            if applied is not None and not self._is_so(event.object, applied):
                self._note(key)
        elif isinstance(event, Deleted) and (key := _key(event.object)) in self._applied:
            self._note(key)

    def close(self) -> None:
        """End `drift`."""
        self._closed = True
        self._news.set()

    def _compare(self, there: Mapping[Key, dict[str, Any]]) -> None:
        """Note what a whole list does not have, or has otherwise."""
        for key, wanted in self._applied.items():
            if key not in there or not self._is_so(there[key], wanted):
                self._note(key)

    def _is_so(self, item: dict[str, Any], exposure: Exposure) -> bool:
        """Tell whether a Service leads where it was applied to; what the cluster added does not count."""
        wanted, found = manifests.service(exposure, self._owner)["spec"], item["spec"]
        ports = sorted(wanted["ports"], key=_port)
        there = sorted(found.get("ports") or [], key=_port)
        return (
            (wanted["type"], wanted["selector"]) == (found.get("type"), found.get("selector"))
            and len(ports) == len(there)
            and all(one.items() <= other.items() for one, other in zip(ports, there, strict=True))
        )

    def _note(self, key: Key) -> None:
        self._drifted[key] = None
        self._news.set()


def _key(item: dict[str, Any]) -> Key:
    return (item["metadata"]["namespace"], item["metadata"]["name"])


def _port(port: Mapping[str, Any]) -> tuple[int, str]:
    return port["port"], port.get("protocol", "TCP")
