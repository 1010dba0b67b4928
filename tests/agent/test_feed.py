"""Who subscribed hears of what changed, once and together; nobody costs nothing."""

from __future__ import annotations

import asyncio

import pytest
from tests.agent.shapes import entry

from kecs.agent import feed as module
from kecs.agent.feed import Feed, difference
from kecs.agent.resolution import Resolution
from kecs.agent.rows import row_of
from kecs.errors import KecsError
from kecs.forward import machine as m
from kecs.net.messages import Counters


def row(identity="pf-00000001", **counted):
    return row_of(
        entry(id=identity),
        m.State.ACTIVE,
        None,
        Resolution((), (), m.EndpointsReady()),
        Counters(**counted),
        addresses=["127.0.0.1"],
        last_error=None,
        error_of=lambda endpoint: None,
    )


class Stage:
    """A feed over rows that the test changes."""

    def __init__(self):
        self.rows = [row()]
        self.asked = 0
        self.error = None
        self.heard = asyncio.Queue()
        self.feed = Feed(self.ask)

    async def ask(self):
        self.asked += 1
        if self.error is not None:
            raise self.error
        return list(self.rows)

    async def hear(self):
        async with asyncio.timeout(5):
            return await self.heard.get()


@pytest.fixture
def play(monkeypatch):
    monkeypatch.setattr(module, "GATHER", 0.01)

    def play(scene):
        async def run():
            stage = Stage()
            try:
                await scene(stage, stage.feed)
            finally:
                await stage.feed.close()

        asyncio.run(run())

    return play


def test_the_difference_is_what_is_new_other_or_gone():
    same, moved, gone, new = (row(f"pf-0000000{n}") for n in range(4))
    now = row(moved.id, open=1)
    news = difference({one.id: one for one in (same, moved, gone)}, {one.id: one for one in (same, now, new)})
    assert (news.forwards, news.removed) == ([now, new], [gone.id])


def test_changes_are_told_together_to_all_and_not_after_they_left(play):
    async def scene(stage, feed):
        first, leave = await feed.subscribe(stage.heard.put_nowait)
        assert first == [row()]
        stage.rows = [row(open=1), row("pf-00000002")]
        feed.touch()
        feed.touch()
        assert (await stage.hear()).forwards == stage.rows
        stage.rows = []
        leave()
        other = asyncio.Queue()
        await feed.subscribe(other.put_nowait)
        stage.rows = [row()]
        feed.touch()
        async with asyncio.timeout(5):
            assert (await other.get()).forwards == [row()]
        assert stage.heard.empty()

    play(scene)


def test_counters_are_looked_at_while_somebody_listens_and_only_then(play, monkeypatch):
    monkeypatch.setattr(module, "COUNTERS", 0.01)

    async def scene(stage, feed):
        feed.touch()
        assert stage.asked == 0
        _, leave = await feed.subscribe(stage.heard.put_nowait)
        stage.rows = [row(total=7)]  # nobody touches: traffic is no change of a forward
        assert (await stage.hear()).forwards[0].connections.total == 7
        pump = feed._pump
        leave()
        await asyncio.wait([pump])
        assert feed._pump is None

    play(scene)


def test_a_relay_loop_that_does_not_answer_is_asked_again(play, monkeypatch):
    monkeypatch.setattr(module, "COUNTERS", 0.01)

    async def scene(stage, feed):
        await feed.subscribe(stage.heard.put_nowait)
        asked, stage.error = stage.asked, KecsError("it does not answer")
        async with asyncio.timeout(5):
            while stage.asked == asked:
                await asyncio.sleep(0)
        stage.error, stage.rows = None, []
        assert (await stage.hear()).removed == [row().id]

    play(scene)
