"""What ends the agent: its relay loop's death, a task that fails."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import shutil
import threading

import pytest
from tests.agent.shapes import make_instance, short_home

from kecs.agent import daemon
from kecs.agent.relay import Relay, real_loop
from kecs.client import instance as instances
from kecs.client.agent import AgentClient
from kecs.net.messages import Died


@pytest.fixture
def paths():
    home = short_home()
    yield make_instance(home)
    shutil.rmtree(home)


class Mortal:
    """The real relay loop, whose death can be played."""

    def __init__(self, say, made):
        self.say = say
        self.loop = real_loop(say)
        self.start, self.send, self.join = self.loop.start, self.loop.send, self.loop.join
        made.append(self)


def serve(paths, when_ready):
    """Run an agent in this process; call `when_ready` on another thread; return the exit code."""
    read, ready = os.pipe()

    def wait():
        with os.fdopen(read, "rb") as pipe:
            assert pipe.read(6) == b"ready\n"
        when_ready()

    thread = threading.Thread(target=wait)
    thread.start()
    agent = daemon.Agent(paths, instances.require(paths), contextlib.ExitStack())
    code = asyncio.run(agent.run(paths.agent_socket, ready))
    thread.join()
    return code


@pytest.fixture
def unsupervised(monkeypatch):
    """Let nobody launch a real control plane."""

    class Supervisor:
        state = None

        def __init__(self, *_):
            pass

        async def lost(self):
            await asyncio.Event().wait()

    monkeypatch.setattr(daemon, "Supervisor", Supervisor)


def test_the_death_of_the_relay_loop_ends_the_process(paths, unsupervised, monkeypatch, caplog):
    made = []
    monkeypatch.setattr(daemon, "Relay", functools.partial(Relay, lambda say: Mortal(say, made)))

    code = serve(paths, lambda: made[0].say(Died("MemoryError: ")))

    assert code == 1
    assert "the relay loop ended: MemoryError: " in caplog.text
    assert not paths.agent_socket.exists()


def test_the_failure_of_a_task_that_must_not_end_ends_the_process(paths, unsupervised, monkeypatch, caplog):
    async def tell(self):
        raise ZeroDivisionError

    monkeypatch.setattr(daemon.Resolver, "tell", tell)

    assert serve(paths, lambda: None) == 1
    assert "answer the control plane failed" in caplog.text


def test_shutdown_in_one_piece(paths, unsupervised):
    def shut_down():
        with AgentClient(paths) as client:
            client.shutdown()

    assert serve(paths, shut_down) == 0
    assert sorted(file.name for file in paths.forwards.iterdir()) == ["logs"]


def test_a_mistake_at_the_start_is_logged_and_is_exit_1(paths, monkeypatch):
    monkeypatch.setattr(daemon, "_allow_many_descriptors", lambda: 1 / 0)
    handlers = logging.getLogger().handlers[:]
    try:
        code = daemon.main(["--home", str(paths.home), "--instance", "default"])
    finally:
        for handler in logging.getLogger().handlers[:]:
            handler.close()
        logging.getLogger().handlers[:] = handlers
        logging.captureWarnings(capture=False)
        logging.raiseExceptions = True

    assert code == 1
    assert "ZeroDivisionError" in json.loads(paths.agent_log.read_text().splitlines()[-1])["error"]
