"""Waiting until forwards serve, for `--wait`. Used by the methods of the RPC that start some."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from kecs.agent.runner import Runner
from kecs.errors import KecsError
from kecs.forward import machine as m


async def wait_for_active(runners: Sequence[Runner], seconds: float) -> None:
    """Return when all are ACTIVE. Raises `KecsError` for one that ended, or is not after `seconds`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for runner in runners:
                while runner.state not in (m.State.ACTIVE, m.State.ENDED):
                    await runner.change()
    for runner in runners:
        if runner.state is not m.State.ACTIVE:
            why = f": {runner.reason}" if runner.reason else ""
            when = "" if runner.state is m.State.ENDED else f" after {seconds:g} s"
            name = runner.entry.name
            raise KecsError(
                f"the forward `{name}` is {runner.state.value}{when}{why}",
                f"it stays, on port {runner.entry.local_port}; end it by `kecs port-forward stop {name}`",
            )
