"""Kept ports: listened on while their service is there, had back from strangers, and given to nobody else."""

from __future__ import annotations

import asyncio

import pytest
from tests.agent.scripted import refuses, until, who
from tests.agent.shapes import REGION, A, B, change, port, service, snapshot, task, wanted
from tests.sockets import free_port

from kecs.agent import kept as module
from kecs.agent.kept import KeptPorts
from kecs.agent.picture import Picture
from kecs.forward.backoff import Backoff
from kecs.net import listener
from kecs.net.messages import Close, Listen, Snapshot

WEB = (REGION, "prod", "web", None)
ID = f"kept/{REGION}/prod/web"


class Stage:
    """Kept ports with a picture, and a relay that closes what it is given to listen on."""

    def __init__(self):
        self.sent = []
        self.picture = Picture()
        self.kept = KeptPorts(self, self.picture)

    def send(self, message):
        self.sent.append(message)
        if isinstance(message, Listen):
            for sock in message.sockets:
                sock.close()

    def learn(self, line):
        self.sent.clear()
        self.kept.follow(self.picture.apply(line))
        return [_short(message) for message in self.sent]


def _short(message):
    if isinstance(message, Snapshot):
        return (message.forward, [one.id for one in message.endpoints])
    return (type(message).__name__, message.forward)


@pytest.fixture
def play():
    def play(scene):
        async def run():
            stage = Stage()
            try:
                await scene(stage)
            finally:
                stage.kept.leave()

        asyncio.run(run())

    return play


def test_a_kept_port_follows_its_service_and_goes_with_it(play):
    async def scene(stage):
        one, other = free_port(), free_port()
        first = service(task(A, port(80, 29001)), kept_port=one)
        assert stage.learn(snapshot(1, first, service(name="api"))) == [("Listen", ID), (ID, [A])]
        hidden = service(task(A, port(80, 29001)), kept_port=one, public=False)
        assert stage.learn(change(1, hidden)) == [], "other tasks find it all the same"
        assert list(stage.kept.named) == [ID]
        assert stage.learn(change(2, service(task(B, port(80, 29002)), kept_port=one))) == [(ID, [B])]
        assert stage.learn(change(3, service(name="api", public=False))) == []
        again = service(task(A, port(80, 29001)), kept_port=other)
        assert stage.learn(change(4, again)) == [("Close", ID), ("Listen", ID), (ID, [A])]
        assert stage.learn(change(5, removed=[WEB])) == [("Close", ID)]

    play(scene)


def test_a_port_that_a_stranger_has_is_had_back(play, monkeypatch):
    monkeypatch.setattr(module, "AGAIN", Backoff(first=0.01, cap=0.01))

    async def scene(stage):
        (stranger,) = listener.bind(["127.0.0.1"], 0)
        with stranger:
            target = service(task(A, port(80, 29001)), kept_port=stranger.getsockname()[1])
            assert stage.learn(snapshot(1, target)) == []
        async with asyncio.timeout(5):
            while not stage.kept.named:
                await asyncio.sleep(0.005)
        assert [type(message) for message in stage.sent] == [Listen, Snapshot]

    play(scene)


def test_a_service_that_goes_while_its_port_is_taken_is_forgotten(play, monkeypatch):
    monkeypatch.setattr(module, "AGAIN", Backoff(first=0.01, cap=0.01))

    async def scene(stage):
        (stranger,) = listener.bind(["127.0.0.1"], 0)
        with stranger:
            stage.learn(snapshot(1, service(kept_port=stranger.getsockname()[1])))
            assert stage.learn(change(2, removed=[WEB])) == []
            async with asyncio.timeout(5):
                while stage.kept._timer is not None:
                    await asyncio.sleep(0.005)
        assert not any(isinstance(message, Listen | Close) for message in stage.sent)

    play(scene)


def test_an_agent_listens_on_a_kept_port_and_no_forward_gets_it(running):
    kept = 20000 + free_port() % 100
    while not refuses(kept):
        kept += 1
    running.controlplane.publish(service(task(A, port(80, running.task(A))), kept_port=kept))
    until(lambda: not refuses(kept), "the agent listens")
    assert who(kept) == A
    assert running.rows() == []
    ports = {running.start(wanted(name=f"f{number}"))[0].local_port for number in range(3)}
    assert kept not in ports
