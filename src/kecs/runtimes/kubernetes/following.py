"""Following a watch for as long as the runtime is open, whatever happens to it on the way.

`kecs.kube.watch` gets over all that a cluster and a network do. This gets over the rest, an object that is
not understood for example: without one of its watches a runtime would only look alive.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from kecs.forward.backoff import Backoff
from kecs.kube.errors import ApiError, Unreachable
from kecs.kube.watch import Event, Report

AGAIN = Backoff(first=0.5, cap=30.0)
"""Before a watch that failed unexpectedly begins anew, which asks for all objects."""

_log = logging.getLogger(__name__)


async def follow(
    watch: Callable[[], AsyncGenerator[Event, None]],
    take: Callable[[Event], None],
    what: str,
    report: Report,
) -> None:
    """Give each event of `watch()` to `take`, for ever; cancelled by the owner.

    Whatever either raises is logged, and told to `report` until an event was taken again. Raises
    `Unreachable` when the client is closed.
    """
    failures = 0
    while True:
        try:
            async with aclosing(watch()) as events:
                async for event in events:
                    take(event)
                    if failures:
                        failures = 0
                        report(None)
        except (ApiError, Unreachable):
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours, or an object as nobody expects it
            if failures == 0:
                _log.exception("the watch of %s failed and begins anew", what)
            failures += 1
            report(Unreachable(f"what the cluster says of its {what} is not understood: {error!r}"))
        await asyncio.sleep(AGAIN.delay(max(failures - 1, 0), random.random))
