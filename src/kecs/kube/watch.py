"""Watching objects: first all of them, then each change, over every lost connection, without polling.

Used by `kecs.kube.client.KubeClient.watch`. One request lists, one stays open. A stream that broke is
resumed at the last resource version seen, which bookmarks keep fresh; where the server cannot resume (410
Gone, any other ERROR), everything is listed again, and what is not in that list is gone. Source:
https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from kecs.forward.backoff import Backoff
from kecs.kube import kinds
from kecs.kube.errors import ApiError, Unreachable, refusal
from kecs.kube.http import Http

_log = logging.getLogger(__name__)

DURATION = 240
"""Seconds after which the server ends a watch in good order (`timeoutSeconds`)."""
SILENCE = 90.0
"""Seconds without a line after which a stream counts as half-open: bookmarks come about every minute
(apiserver, pkg/storage/cacher). Resuming for nothing costs one request, so a server that sends none is no
worse off than with a shorter watch."""
PAGE = 500
"""Objects in one answer to a list, as client-go's."""
MAX_LINE = 64 * 1024 * 1024
"""Bytes of one line; etcd's limit for one object is 1.5 MB."""
BACKOFF = Backoff(first=0.2, cap=5.0)
STEADY = 5.0
"""Seconds for which a stream must have lived, or one line it must have brought, to be no failure."""

_RESTARTS = 3
"""How often a list is begun again whose `continue` token expired, before it is asked for in one piece."""


@dataclass(frozen=True, slots=True)
class Synced:
    """All objects as they are now; what is not among them is gone. First, and after each gap."""

    objects: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Changed:
    """An object was added or changed."""

    object: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Deleted:
    """An object was deleted, or no longer has the labels; its last state."""

    object: dict[str, Any]


Event = Synced | Changed | Deleted
Report = Callable[[ApiError | Unreachable | None], None]
"""Called with the error when the watch cannot go on for now, with None when it goes on again."""


async def list_all(
    http: Http, kind: str, namespace: str | None, labels: Mapping[str, str]
) -> tuple[list[dict[str, Any]], str]:
    """Return all objects and the resource version at which they were so. Raises `ApiError`, `Unreachable`.

    In pages; when the server forgot the moment of the first before the last was asked for, from the start.
    """
    path = kinds.collection(kind, namespace)
    for attempt in range(_RESTARTS + 1):
        params = {"limit": str(PAGE)} if attempt < _RESTARTS else {}
        if labels:
            params["labelSelector"] = kinds.selector(labels)
        objects: list[dict[str, Any]] = []
        try:
            while True:
                page = await http.request("GET", path, params=params)
                objects += [tidy(item, kind) for item in page.get("items") or []]
                metadata = page.get("metadata") or {}
                if not (token := metadata.get("continue")):
                    return objects, str(metadata.get("resourceVersion", ""))
                params["continue"] = token
        except ApiError as error:
            if error.status != HTTPStatus.GONE or attempt == _RESTARTS:
                raise
    raise AssertionError("the last attempt returned or raised")


class Watch:
    """One watch; `events` yields until it is closed."""

    def __init__(
        self,
        http: Http,
        kind: str,
        namespace: str | None,
        labels: Mapping[str, str],
        report: Report | None = None,
        silence: float = SILENCE,
    ) -> None:
        self._http = http
        self._kind = kind
        self._namespace = namespace
        self._labels = labels
        self._report = report
        self._silence = silence
        self._version = ""
        self._opened = False
        """Whether the last request to watch was answered with a stream."""
        self._failures = 0
        self._lost = False

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yield `Synced`, then changes, for ever. Close it (`contextlib.aclosing`) to leave."""
        while True:
            yield Synced(await self._list())
            async with aclosing(self._changes()) as changes:
                async for change in changes:
                    yield change

    async def _list(self) -> list[dict[str, Any]]:
        while True:
            try:
                objects, self._version = await list_all(self._http, self._kind, self._namespace, self._labels)
            except (ApiError, Unreachable) as error:
                await self._pause(error)
            else:
                self._going_on()
                return objects

    async def _changes(self) -> AsyncGenerator[Changed | Deleted, None]:
        """Yield changes over any number of streams; return when only a new list can help."""
        while True:
            began = time.monotonic()
            failure: ApiError | Unreachable | _MustListError | None = None
            try:
                async with aclosing(self._lines()) as lines:
                    async for line in lines:
                        change = self._understand(line)
                        self._failures = 0
                        if change is not None:
                            yield change
            except (ApiError, Unreachable, _MustListError) as error:
                failure = error
            if time.monotonic() - began >= STEADY:
                self._failures = 0
            if isinstance(failure, ApiError) and failure.status == HTTPStatus.GONE:
                failure = _MustListError(failure.message)
            if isinstance(failure, _MustListError):
                _log.info("watch of %s: everything is listed again: %s", self._kind, failure)
                await self._pause(None)
                return
            # A stream that broke is no news yet: whether it can be resumed is.
            await self._pause(None if self._opened else failure)

    async def _lines(self) -> AsyncGenerator[bytes, None]:
        """Yield the lines of one watch request until it ends. A torn last one is dropped: it comes again."""
        self._opened = False
        params = {
            "watch": "true",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(DURATION),
        }
        if self._labels:
            params["labelSelector"] = kinds.selector(self._labels)
        path = kinds.collection(self._kind, self._namespace)
        async with self._http.stream("GET", path, params=params, silence=self._silence) as answer:
            self._opened = True
            self._going_on()
            unread = bytearray()
            async with aclosing(self._http.chunks(answer, resumable=True)) as chunks:
                async for chunk in chunks:
                    searched = len(unread)
                    unread += chunk
                    while (end := unread.find(b"\n", searched)) >= 0:
                        line = bytes(unread[:end])
                        del unread[: end + 1]
                        searched = 0
                        yield line
                    if len(unread) > MAX_LINE:
                        raise _MustListError(f"a line has over {MAX_LINE} bytes")

    def _understand(self, line: bytes) -> Changed | Deleted | None:
        """Return the change that a line tells; None for a bookmark. Keeps the version to resume at."""
        try:
            event = msgspec.json.decode(line, type=_Line)
            version = str(event.object["metadata"]["resourceVersion"]) if event.type != "ERROR" else ""
        except (msgspec.MsgspecError, KeyError, TypeError) as error:
            raise _MustListError("a line is not understood") from error
        if event.type == "ERROR":
            status = refusal(0, msgspec.json.encode(event.object))
            raise _MustListError(str(status))
        self._version = version
        if event.type == "BOOKMARK":
            return None
        tidied = tidy(event.object, self._kind)
        return Deleted(tidied) if event.type == "DELETED" else Changed(tidied)

    async def _pause(self, error: ApiError | Unreachable | None) -> None:
        """Wait before the next request: not at all after the first failure, then longer and longer."""
        if self._http.closed:
            raise error or Unreachable("the client was closed")
        if error is not None:
            self._tell(error)
        delay = BACKOFF.delay(self._failures - 1, random.random) if self._failures else 0.0
        if isinstance(error, ApiError) and error.retry_after is not None:
            delay = max(delay, error.retry_after)
        self._failures += 1
        await asyncio.sleep(delay)

    def _tell(self, error: ApiError | Unreachable) -> None:
        if not self._lost:
            _log.warning("watch of %s cannot go on: %s", self._kind, error)
            self._lost = True
        if self._report is not None:
            self._report(error)

    def _going_on(self) -> None:
        if self._lost:
            _log.info("watch of %s goes on", self._kind)
            self._lost = False
            if self._report is not None:
                self._report(None)


class _MustListError(Exception):
    """The watch cannot be resumed."""


class _Line(msgspec.Struct):
    type: str
    object: dict[str, Any]


def tidy(item: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return `item` with its kind, which lists leave out, and without the bookkeeping of server-side apply.

    Nobody here reads that, and it is half of an object's size.
    """
    item["kind"] = kind
    item["apiVersion"] = kinds.API_VERSION
    metadata = item.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("managedFields", None)
    return item
