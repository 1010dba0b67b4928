"""The nodes of the cluster, as far as node ports need them: addresses, and whether they are ready."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from kecs.kube.client import KubeClient
from kecs.kube.watch import Changed, Deleted, Event, Report, Synced
from kecs.runtimes.base import NodeObserved
from kecs.runtimes.kubernetes.following import follow

_KINDS = ("ExternalIP", "InternalIP")
"""Types of addresses that can be dialled, best first (Kubernetes API, NodeAddress)."""


class Nodes:
    """Follows the nodes of a cluster."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._nodes: dict[str, NodeObserved] = {}
        self._cordoned: set[str] = set()
        self._known = False
        self._news = asyncio.Event()
        self._closed = False

    def is_ready(self, name: str | None) -> bool:
        """Tell whether a node is there and ready; one that is not known yet counts as ready."""
        node = self._nodes.get(name or "")
        return (node is not None and node.ready) or not self._known

    def is_cordoned(self, name: str | None) -> bool:
        """Tell whether a node takes no pods, which is how a drain of it begins."""
        return name in self._cordoned

    async def observed(self) -> AsyncIterator[list[NodeObserved]]:
        """Yield all nodes, by name, once they are known and after each change that matters, until `close`."""
        told: list[NodeObserved] | None = None
        while not self._closed:
            now = sorted(self._nodes.values(), key=lambda node: node.name)
            if self._known and now != told:
                told = now
                yield now
                continue
            self._news.clear()
            if not self._closed:
                await self._news.wait()

    async def watch(self, report: Report) -> None:
        """Follow the nodes for ever; cancelled by the owner. `report` hears why that cannot go on."""
        await follow(partial(self._client.watch, "Node", {}, report=report), self._take, "nodes", report)

    def _take(self, event: Event) -> None:
        if isinstance(event, Synced):
            self._nodes = {node.name: node for node in map(observe, event.objects)}
            self._cordoned = {_name(each) for each in event.objects if _is_cordoned(each)}
            self._known = True
        elif isinstance(event, Changed):
            node = observe(event.object)
            self._nodes[node.name] = node
            self._cordoned.discard(node.name)
            self._cordoned |= {node.name} if _is_cordoned(event.object) else set()
        elif isinstance(event, Deleted):
            self._nodes.pop(_name(event.object), None)
            self._cordoned.discard(_name(event.object))
        self._news.set()

    def close(self) -> None:
        """End `observed`."""
        self._closed = True
        self._news.set()


def observe(node: dict[str, Any]) -> NodeObserved:
    """Return what matters of a Node object."""
    status = node.get("status") or {}
    listed = status.get("addresses") or []
    addresses = [
        item["address"]
        for kind in _KINDS
        for item in listed
        if item.get("type") == kind and _is_numeric(item.get("address", ""))
    ]
    ready = any(
        item.get("type") == "Ready" and item.get("status") == "True"
        for item in status.get("conditions") or []
    )
    return NodeObserved(name=_name(node), addresses=list(dict.fromkeys(addresses)), ready=ready)


def _name(node: dict[str, Any]) -> str:
    return str(node["metadata"]["name"])


def _is_cordoned(node: dict[str, Any]) -> bool:
    return bool((node.get("spec") or {}).get("unschedulable"))


def _is_numeric(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
