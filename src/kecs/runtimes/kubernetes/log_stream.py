"""One container's log, followed over every break: of a connection, an API server, a kubelet.

A log's stream ends in good order when the container has ended, and just so when the kubelet went while it was
read: the API server ends it as if all were well. So the end is believed only of a container that is known to
have ended, and only of a read that was begun after that and brought nothing new. Used by `pod_logs`;
`stamped_lines` knows where to go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from enum import Enum, auto
from http import HTTPStatus
from typing import Protocol

from kecs.ecs.names import kubernetes_name
from kecs.forward.backoff import Backoff
from kecs.kube.client import KubeClient
from kecs.kube.errors import ApiError, Unreachable
from kecs.runtimes.kubernetes.stamped_lines import StampedLines

BACKOFF = Backoff(first=0.2, cap=5.0)
LONGEST_WAIT = 30.0
"""Seconds at most that a server's Retry-After is waited for."""
STEADY = 5.0
"""Seconds for which a stream must have lived, or one line it must have brought, to be no failure."""
REFUSALS = 4
"""Refusals in a row that are believed: an API server that has just started may not know its own rules yet,
nor a kubelet its containers."""
_PASSING = frozenset(
    {HTTPStatus.NOT_FOUND, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
)
"""Statuses below 500 that asking again can mend: a kubelet that starts knows no pods yet, and says 404."""


class Life(Enum):
    """What is known of a container that may write."""

    GOES_ON = auto()
    """As far as is known: it runs, or will."""
    HAS_ENDED = auto()
    """It writes no more, or never will; what it wrote can be read."""
    IS_GONE = auto()
    """With its pod: nothing can be read any more."""


class Writer(Protocol):
    """A pod whose containers write: `tracked.TrackedPod`."""

    task_id: str
    changed: asyncio.Event
    """Set, and replaced, when something may have changed with it: what failed is tried again at once."""

    @property
    def place(self) -> tuple[str, str] | None:
        """(namespace, pod) once the pod was seen."""

    def life(self, container: str) -> Life:
        """Say what is known of a container by now."""


async def follow(
    client: KubeClient, writer: Writer, container: str, lines: StampedLines
) -> AsyncGenerator[bytes, None]:
    """Yield what a container wrote and writes, until it has ended or its pod is gone.

    `lines` knows what of it was told already, and then what was told here. Raises `ApiError` when the API
    server refuses for good, `Unreachable` when the client was closed.
    """
    tries = _Tries(client, writer)
    while True:
        changed, life = writer.changed, writer.life(container)
        if life is Life.IS_GONE:
            return
        began, failure, news = time.monotonic(), None, False
        try:
            async with aclosing(_read(client, writer, container, lines, life)) as parts:
                async for part in parts:
                    news = True
                    yield part
        except (ApiError, Unreachable) as error:
            failure = error
        if failure is None and not news and life is Life.HAS_ENDED:
            return
        if news and lines.mark.latest is None:  # it gives no times: where to go on is not known
            if failure is not None:
                raise failure
            return
        if tries.are_over(failure, life):
            return
        if news or time.monotonic() - began >= STEADY:
            tries.begin_anew()
        await tries.pause(failure, changed)


async def _read(
    client: KubeClient, writer: Writer, container: str, lines: StampedLines, life: Life
) -> AsyncGenerator[bytes, None]:
    """Yield what is new in one stream. Raises `ApiError`, `Unreachable` when it broke off."""
    assert writer.place is not None
    namespace, pod = writer.place
    lines.begin()
    # What has ended is read to its end, not followed: that costs the node no watch of the file.
    reading = client.logs(
        namespace,
        pod,
        kubernetes_name(container),
        follow=life is not Life.HAS_ENDED,
        timestamps=True,
        since=lines.mark.since,
    )
    async with aclosing(reading) as chunks:
        async for chunk in chunks:
            if part := lines.take(chunk):
                yield part
    if words := lines.rest():
        raise Unreachable(f"the kubelet broke the log of {pod}/{container} off: {words[:200]!r}")


class _Tries:
    """How often a log is asked for, and how soon again."""

    def __init__(self, client: KubeClient, writer: Writer) -> None:
        self._client = client
        self._writer = writer
        self._failures = 0
        self._refusals = 0

    def begin_anew(self) -> None:
        """Take that reading went well."""
        self._failures = 0

    def are_over(self, failure: ApiError | Unreachable | None, life: Life) -> bool:
        """Tell whether there is nothing to be had: the container never started, or was removed.

        Raises `ApiError` when it is this program that is refused.
        """
        if (
            not isinstance(failure, ApiError)
            or failure.status in _PASSING
            or failure.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        ):
            self._refusals = 0
            return False
        about_it = failure.status == HTTPStatus.BAD_REQUEST
        if about_it and life is Life.GOES_ON:
            return False  # its runtime starts anew, or it begins only now
        self._refusals += 1
        if self._refusals < REFUSALS:
            return False
        if not about_it:
            raise failure
        return True

    async def pause(self, failure: ApiError | Unreachable | None, changed: asyncio.Event) -> None:
        """Wait before the next try: not at all after the first failure, then longer; `changed` ends it."""
        if self._client.closed:
            raise failure or Unreachable("the client was closed")
        delay = BACKOFF.delay(self._failures - 1, random.random) if self._failures else 0.0
        if isinstance(failure, ApiError) and failure.retry_after is not None:
            delay = max(delay, min(failure.retry_after, LONGEST_WAIT))
        self._failures += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await changed.wait()
