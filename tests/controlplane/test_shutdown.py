"""Ending the tasks at a stop: what is told, and that a cluster that is silent is not waited for."""

from __future__ import annotations

import asyncio

import pytest

from kecs.controlplane import shutdown
from kecs.controlplane.shutdown import SILENT, Shutdown, stop_tasks_of
from kecs.errors import KecsError


class Controller:
    """Ends two tasks; the second one when it may."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.reason = None

    async def stop_all_tasks(self, reason):
        self.reason = reason
        yield 0, 2
        yield 1, 2
        await self.may_end.wait()
        yield 2, 2


class Cluster:
    silence = 0.0

    def silent_for(self) -> float:
        return self.silence


def known():
    event = asyncio.Event()
    event.set()
    return event


def play(story):
    async def within():
        async with asyncio.timeout(10):
            await story()

    asyncio.run(within())


def test_tasks_of_a_cluster_that_answers_are_waited_for():
    async def story():
        controller = Controller()
        texts = stop_tasks_of(Cluster(), known(), controller)
        told = [await anext(texts), await anext(texts)]
        controller.may_end.set()
        told += [text async for text in texts]
        assert told == ["stopped 0 of 2 tasks", "stopped 1 of 2 tasks", "stopped 2 of 2 tasks"]
        assert controller.reason == "Task stopped by kecs stop"

    play(story)


@pytest.mark.parametrize("silent", ["before", "meanwhile", "never known"])
def test_a_cluster_that_is_silent_is_not_waited_for(monkeypatch, silent):
    monkeypatch.setattr(shutdown, "LOOK_EVERY", 0.01)

    async def story():
        cluster, controller, taken_up = Cluster(), Controller(), known()
        if silent != "meanwhile":
            cluster.silence = 1000.0
        if silent == "never known":
            taken_up.clear()
        told = []
        async for text in stop_tasks_of(cluster, taken_up, controller):
            told.append(text)
            if text == "stopped 1 of 2 tasks":
                cluster.silence = shutdown.SILENT_FOR + 1
        assert told[-1] == SILENT
        assert not [each for each in asyncio.all_tasks() if each.get_name() == "end of all tasks"]

    play(story)


def test_a_short_silence_is_waited_for(monkeypatch):
    monkeypatch.setattr(shutdown, "LOOK_EVERY", 0.01)

    async def story():
        cluster, controller = Cluster(), Controller()
        cluster.silence = shutdown.SILENT_FOR - 1
        texts = stop_tasks_of(cluster, known(), controller)
        assert "stopped 1 of 2 tasks" in [await anext(texts), await anext(texts)]
        last = asyncio.ensure_future(anext(texts))  # noqa: TID251 - a test's own
        await asyncio.sleep(0.1)
        assert not last.done()
        controller.may_end.set()
        assert await last == "stopped 2 of 2 tasks"

    play(story)


def test_what_cannot_be_ended_is_told_and_can_be_begun_again():
    async def story():
        full, left = [True], []

        async def end():
            yield "ending"
            if full[0]:
                raise KecsError("no space left", "free some")

        stop = Shutdown(end, lambda: left.append(True))
        told = [line.text async for line in stop.lines()]
        assert told == ["ending", "no space left: free some"]
        assert not stop.is_begun
        assert left == []

        full[0] = False
        lines = [line async for line in stop.lines()]
        assert [(line.text, line.done) for line in lines] == [("ending", False), ("", True)]
        assert left == [True]
        assert [line async for line in stop.lines()] == lines, "who asks again hears the same"

    play(story)
