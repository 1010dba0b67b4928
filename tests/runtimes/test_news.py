"""Observations that wait: only the newest of a task, in the order of their coming."""

from __future__ import annotations

import asyncio

from kecs import aio
from kecs.runtimes.base import TaskObserved
from kecs.runtimes.news import News


def seen(task, *, ended=False):
    return TaskObserved(task_id=task, ended=ended)


async def fetched(news, count):
    heard = []
    async for one in news.observations():
        heard.append(one)
        if len(heard) == count:
            return heard
    return heard


def test_of_each_task_the_newest_comes_and_the_longest_untold_first():
    async def main():
        news = News()
        for one in (seen("a"), seen("b"), seen("a", ended=True), seen("c")):
            news.tell(one)
        news.drop("c")
        assert await fetched(news, 2) == [seen("b"), seen("a", ended=True)]

    asyncio.run(main())


def test_who_waits_hears_what_comes_later_and_that_it_is_closed():
    async def main():
        news = News()
        waiting = aio.create_task(fetched(news, 9), name="fetch")
        await asyncio.sleep(0)
        news.tell(seen("a"))
        await asyncio.sleep(0)
        news.tell(seen("b"))
        await asyncio.sleep(0)
        news.close()
        assert await asyncio.wait_for(waiting, 5) == [seen("a"), seen("b")]

    asyncio.run(main())
