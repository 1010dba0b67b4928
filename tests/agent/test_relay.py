"""The relay loop as asyncio sees it: messages arrive on asyncio's thread, questions are answered."""

from __future__ import annotations

import asyncio
import threading

import pytest

from kecs.agent import relay as module
from kecs.agent.relay import Relay
from kecs.errors import ExitCode, KecsError
from kecs.net.messages import Barrier, Counters, Died, Query, Seen, Stats, Stop, Waiting


class FakeLoop:
    """A thread that answers as the relay loop does."""

    def __init__(self, say, *, deaf=False):
        self.say, self.deaf = say, deaf
        self.started = False
        self.joined = 0.0

    def start(self):
        self.started = True

    def send(self, message):
        threading.Thread(target=self._handle, args=(message,)).start()

    def join(self, timeout):
        self.joined = timeout

    def _handle(self, message):
        match message:
            case Query(token) if not self.deaf:
                self.say(Stats(token, {"pf-1": Counters(total=token)}))
            case Barrier(version):
                self.say(Seen(version))


def run(scene):
    asyncio.run(scene())


def test_a_question_is_answered_by_its_own_answer():
    async def scene():
        relay = Relay(FakeLoop)
        both = await asyncio.gather(relay.stats(), relay.stats())
        assert [stats["pf-1"].total for stats in both] == [1, 2]

    run(scene)


def test_a_loop_that_hangs_is_reported(monkeypatch):
    monkeypatch.setattr(module, "ANSWER", 0.05)

    async def scene():
        relay = Relay(lambda say: FakeLoop(say, deaf=True))
        with pytest.raises(KecsError, match="did not answer") as caught:
            await relay.stats()
        assert caught.value.exit_code == ExitCode.UNREACHABLE
        relay._receive(Stats(1, {}))  # late: nobody asks any more
        await asyncio.sleep(0.01)

    run(scene)


def test_messages_arrive_on_the_thread_of_asyncio_and_strangers_are_ignored():
    async def scene():
        heard = []
        relay = Relay(FakeLoop)
        relay.on(Seen, lambda message: heard.append((message, threading.current_thread())))
        relay.start()
        relay._receive(Waiting("pf-1", 1))
        relay.send(Barrier(3))
        async with asyncio.timeout(5):
            while not heard:
                await asyncio.sleep(0.001)
        assert heard == [(Seen(3), threading.current_thread())]
        assert not relay.died.done()

    run(scene)


def test_the_death_of_the_loop_is_known():
    async def scene():
        relay = Relay(FakeLoop)
        relay._receive(Died("a mistake"))
        relay._receive(Died("once more"))
        assert await asyncio.wait_for(relay.died, 5) == "a mistake"

    run(scene)


def test_a_message_after_the_end_of_asyncio_is_lost_quietly():
    kept = []

    async def scene():
        kept.append(Relay(FakeLoop))

    run(scene)
    kept[0]._receive(Seen(1))


def test_the_real_loop_answers_and_ends():
    async def scene():
        relay = Relay()
        relay.start()
        assert await relay.stats() == {}
        relay.send(Stop())
        relay.join()
        assert not any(thread.name == "relay-loop" for thread in threading.enumerate())

    run(scene)
