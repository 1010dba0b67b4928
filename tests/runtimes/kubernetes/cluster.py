"""A cluster in memory that stands in for `kecs.kube.client.KubeClient`: objects, watches, logs; no kubelet.

Tests play the kubelet: they say what becomes of a pod by `update` and `remove`.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

from kecs.kube.errors import ApiError, Unreachable
from kecs.kube.watch import Changed, Deleted, Synced

Key = tuple[str, str | None, str]


class Cluster:
    """Objects by (kind, namespace, name)."""

    def __init__(self, version: tuple[int, int] = (1, 35)) -> None:
        self.objects: dict[Key, dict[str, Any]] = {}
        self.deletions: list[tuple[Key, int | None]] = []
        """What was asked to be deleted, with the grace period that was given."""
        self.refusals: list[ApiError] = []
        """Raised by the next calls of `apply`, the first first."""
        self.unanswered: set[str] = set()
        """Kinds of which the next `apply` is done, but its answer gets lost."""
        self.reports: dict[str, Any] = {}
        """By kind: what a watch is to tell its troubles to."""
        self.deletion_failures: list[ApiError | Unreachable] = []
        """Raised by the next calls of `delete`, the first first."""
        self.output: dict[tuple[str, str], list[bytes]] = {}
        """What containers wrote, by (pod, container)."""
        self.watched: Counter[str] = Counter()
        """How often each kind was asked to be watched."""
        self.roused = 0
        """How often all watches were to be resumed."""
        self.closed_logs: set[tuple[str, str]] = set()
        self.log_reads: list[tuple[str, str, bool]] = []
        self.log_failures: list[ApiError | Unreachable] = []
        """Raised by the next calls of `logs`, the first first."""
        self.short_reads = 0
        """So many of the next reads end in good order after the first thing that was written."""
        self.closed = False
        self._version = version
        self._uids = itertools.count(1)
        self._watchers: list[tuple[str, Mapping[str, str], asyncio.Queue[Any]]] = []
        self._wrote = asyncio.Event()
        self._breaks: list[ApiError | Unreachable | None] = []

    # What a test does

    def put(self, item: dict[str, Any]) -> dict[str, Any]:
        """Let an object be there as it is."""
        item = copy.deepcopy(item)
        metadata = item["metadata"]
        key = (item["kind"], metadata.get("namespace"), metadata["name"])
        before = self.objects.get(key)
        metadata["uid"] = (
            before["metadata"]["uid"] if before else metadata.get("uid", f"uid-{next(self._uids)}")
        )
        self.objects[key] = item
        self._tell(item, Changed(copy.deepcopy(item)))
        return item

    def pod(self, name: str) -> dict[str, Any]:
        """Return the pod with this name."""
        return next(item for (kind, _, each), item in self.objects.items() if (kind, each) == ("Pod", name))

    def update(self, name: str, **status: Any) -> None:
        """Let the pod have this status."""
        item = copy.deepcopy(self.pod(name))
        item["status"] = {**item.get("status", {}), **status}
        self.put(item)

    def leave(self, name: str, grace: int = 35) -> None:
        """Let somebody have asked for the pod's deletion."""
        item = copy.deepcopy(self.pod(name))
        item["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        item["metadata"]["deletionGracePeriodSeconds"] = grace
        self.put(item)

    def remove(self, kind: str, name: str) -> None:
        """Let the object be gone."""
        key = next(each for each in self.objects if (each[0], each[2]) == (kind, name))
        item = self.objects.pop(key)
        self._tell(item, Deleted(copy.deepcopy(item)))

    def relist(self, kind: str) -> None:
        """Let watches of this kind begin anew, as after a 410."""
        for watched, labels, queue in self._watchers:
            if watched == kind:
                queue.put_nowait(Synced(self._matching(kind, None, labels)))

    def send(self, kind: str, event: Any) -> None:
        """Let watches of this kind say something."""
        for watched, _, queue in self._watchers:
            if watched == kind:
                queue.put_nowait(event)

    def forget(self, kind: str, name: str) -> None:
        """Let the object be gone without a word on the watches."""
        del self.objects[next(each for each in self.objects if (each[0], each[2]) == (kind, name))]

    def write(self, pod: str, container: str, data: bytes, *, end: bool = False) -> None:
        """Let a container write, and end its log."""
        self.output.setdefault((pod, container), []).append(data)
        if end:
            self.closed_logs.add((pod, container))
        self._wrote.set()
        self._wrote = asyncio.Event()

    def break_logs(self, failure: ApiError | Unreachable | None = None) -> None:
        """Let each stream of a log break off; None: as if in good order, as it is when the kubelet goes."""
        self._breaks = [*self._breaks, failure]
        self._wrote.set()
        self._wrote = asyncio.Event()

    # What the runtime calls

    async def version(self) -> tuple[int, int]:
        return self._version

    async def get(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        return copy.deepcopy(self.objects.get((kind, namespace, name)))

    async def list(
        self, kind: str, namespace: str | None, labels: Mapping[str, str]
    ) -> tuple[list[dict[str, Any]], str]:
        return self._matching(kind, namespace, labels), "1"

    async def apply(self, manifest: dict[str, Any]) -> dict[str, Any]:
        if self.refusals:
            raise self.refusals.pop(0)
        item = self.put(manifest)
        if manifest["kind"] in self.unanswered:
            self.unanswered.remove(manifest["kind"])
            raise Unreachable("no answer")
        return copy.deepcopy(item)

    async def delete(
        self, kind: str, namespace: str | None, name: str, *, grace: int | None = None, uid: str | None = None
    ) -> bool:
        if self.deletion_failures:
            raise self.deletion_failures.pop(0)
        key = (kind, namespace, name)
        item = self.objects.get(key)
        if item is None or (uid is not None and item["metadata"]["uid"] != uid):
            return False
        self.deletions.append((key, grace))
        if kind == "Pod" and grace != 0 and item.get("status", {}).get("phase") == "Running":
            self.leave(name)
        else:
            self.remove(kind, name)
        return True

    async def logs(
        self,
        _namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool,
        timestamps: bool = False,
        since: str | None = None,
    ) -> AsyncIterator[bytes]:
        self.log_reads.append((pod, container, follow))
        if self.log_failures:
            raise self.log_failures.pop(0)
        told, breaks = 0, self._breaks
        short, self.short_reads = self.short_reads > 0, max(0, self.short_reads - 1)
        while True:
            wrote = self._wrote
            text = b"".join(self.output.get((pod, container), [])[: 1 if short else None])
            if timestamps:
                text = _stamped(text, since)
            if told < len(text):
                yield text[told:]
                told = len(text)
            if self._breaks is not breaks:
                if (failure := self._breaks[-1]) is not None:
                    raise failure
                return
            if short or not follow or (pod, container) in self.closed_logs:
                return
            await wrote.wait()

    async def watch(
        self, kind: str, labels: Mapping[str, str], namespace: str | None = None, *, report: Any = None
    ) -> AsyncIterator[Any]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        entry = (kind, labels, queue)
        self.reports[kind] = report
        self._watchers.append(entry)
        self.watched[kind] += 1
        try:
            yield Synced(self._matching(kind, namespace, labels))
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove(entry)

    def rouse(self) -> None:
        self.roused += 1

    async def close(self) -> None:
        self.closed = True

    def _matching(self, kind: str, namespace: str | None, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        return [
            copy.deepcopy(item)
            for (each, where, _), item in self.objects.items()
            if each == kind and namespace in (None, where) and _has(item, labels)
        ]

    def _tell(self, item: dict[str, Any], event: Any) -> None:
        for kind, labels, queue in self._watchers:
            if kind == item["kind"] and _has(item, labels):
                queue.put_nowait(event)


def _has(item: dict[str, Any], labels: Mapping[str, str]) -> bool:
    mine = item["metadata"].get("labels") or {}
    return all(mine.get(name) == value for name, value in labels.items())


def _stamped(text: bytes, since: str | None) -> bytes:
    """Return a log as the kubelet tells it: one line each second of 2026's first day."""
    lines = text.splitlines(keepends=True)
    times = [f"2026-01-01T{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}" for n in range(len(lines))]
    return b"".join(
        f"{time}.000000000Z ".encode() + line
        for time, line in zip(times, lines, strict=True)
        if since is None or f"{time}Z" >= since
    )
