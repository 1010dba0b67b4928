"""A control plane ends when it is told to, or when a part of it has died: it never only looks alive."""

from __future__ import annotations

import asyncio

import pytest

from kecs import aio
from kecs.controlplane.daemon import first_of


def ends(*, dies, leaves):
    """What becomes of the wait for the end."""

    async def last():
        await asyncio.sleep(0 if dies else 60)
        raise OSError("no more of this")

    async def scene():
        leaving = asyncio.Event()
        tasks = [aio.create_task(asyncio.sleep(60), name="lives on"), aio.create_task(last(), name="dies")]
        if leaves:
            leaving.set()
        try:
            async with asyncio.timeout(5):
                await first_of(tasks, leaving)
        finally:
            await aio.cancel(*tasks)

    asyncio.run(scene())


def test_any_of_its_tasks_that_dies_ends_it_with_what_it_died_of():
    with pytest.raises(OSError, match="no more of this"):
        ends(dies=True, leaves=False)


def test_the_word_to_leave_ends_it():
    ends(dies=False, leaves=True)
