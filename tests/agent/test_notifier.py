"""Who is told, in which order, and that nobody waits for it."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path

import pytest
from tests.agent.shapes import entry
from tests.sockets import free_port

from kecs.agent import channels, notify
from kecs.agent import notifier as module
from kecs.agent.channels import Outcome
from kecs.agent.desktop import Desktop
from kecs.agent.notifier import Notifier, deliver
from kecs.agent.notify import Notice, event_of
from kecs.forward.machine import State
from kecs.forward.spec import Notify

STARTING, ACTIVE, WAITING, FAILED = State.STARTING, State.ACTIVE, State.WAITING, State.FAILED
TOLD = entry(notify=Notify(command=["tell"]))


class Stage:
    """A notifier whose notices arrive here."""

    def __init__(self):
        self.got = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = self.most = 0
        self.shown = []
        self.notifier = Notifier("default", send=self.send, desktop=Desktop(self.show))

    async def show(self, title, _text):
        self.shown.append(title)
        return Outcome(None)

    async def send(self, wanted, event, folder):
        assert wanted
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.gate.wait()
        self.under_way -= 1
        self.got.append((event.forward, event.event, folder))

    @property
    def brief(self):
        return [(forward, kind) for forward, kind, _ in self.got]

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.002)


@pytest.fixture
def play(monkeypatch):
    monkeypatch.setattr(notify, "PATIENCE", 0.02)

    def run(scene):
        async def act():
            stage = Stage()
            try:
                await scene(stage, stage.notifier)
            finally:
                stage.gate.set()
                await stage.notifier.close()

        asyncio.run(act())

    return run


def test_nobody_is_told_who_did_not_ask(play):
    async def scene(stage, notifier):
        for silent in (entry(), entry(notify=Notify())):
            notifier.changed(silent, STARTING, ACTIVE, None)
            notifier.changed(silent, ACTIVE, FAILED, "port taken")
        await asyncio.sleep(0)
        assert stage.got == []

    play(scene)


def test_an_interruption_is_told_when_its_time_has_come_and_so_is_its_end(play):
    async def scene(stage, notifier):
        notifier.changed(TOLD, STARTING, ACTIVE, None)
        notifier.changed(TOLD, ACTIVE, WAITING, "no task")
        await stage.until(lambda: stage.brief == [("prod-web", "reconnecting")])
        notifier.changed(TOLD, WAITING, ACTIVE, None)
        await stage.until(lambda: stage.brief[1:] == [("prod-web", "reconnected")])

    play(scene)


def test_who_asks_later_hears_of_the_next_interruption(play):
    async def scene(stage, notifier):
        notifier.changed(entry(), STARTING, ACTIVE, None)
        notifier.changed(TOLD, ACTIVE, WAITING, "no task")
        await stage.until(lambda: stage.brief == [("prod-web", "reconnecting")])

    play(scene)


def test_one_that_a_person_stopped_is_told_of_no_more(play):
    async def scene(stage, notifier):
        notifier.changed(TOLD, STARTING, ACTIVE, None)
        notifier.changed(TOLD, ACTIVE, WAITING, "no task")
        notifier.forget(TOLD.id)
        other = entry(id="pf-00000002", name="other", notify=Notify(command=["tell"]))
        notifier.changed(other, STARTING, ACTIVE, None)
        notifier.changed(other, ACTIVE, WAITING, "no task")
        await stage.until(lambda: stage.got)
        assert stage.brief == [("other", "reconnecting")]

    play(scene)


def test_nothing_is_kept_of_one_that_ended_and_nothing_told_once_the_agent_leaves(play):
    async def scene(stage, notifier):
        notifier.changed(TOLD, STARTING, ACTIVE, None)
        notifier.changed(TOLD, ACTIVE, State.ENDED, "task aaaaaaaa is gone")
        await stage.until(lambda: stage.brief == [("prod-web", "failed")])
        assert not notifier._told
        await notifier.close()
        notifier.changed(TOLD, STARTING, FAILED, "port 20001 is taken")
        assert not notifier._told
        assert not notifier._tasks

    play(scene)


def test_a_few_are_on_their_way_at_once_and_those_of_one_forward_one_after_the_other(play):
    async def scene(stage, notifier):
        stage.gate.clear()
        many = [entry(id=f"pf-{n:08x}", name=f"f{n}", notify=Notify(command=["tell"])) for n in range(10)]
        for one in many:
            notifier.changed(one, STARTING, FAILED, "port taken")
            notifier.changed(one, FAILED, ACTIVE, None)
        await stage.until(lambda: stage.under_way == module.AT_ONCE)
        stage.gate.set()
        await stage.until(lambda: len(stage.got) == 20)
        assert stage.most == module.AT_ONCE
        for one in many:
            assert [kind for name, kind in stage.brief if name == one.name] == ["failed", "reconnected"]

    play(scene)


def test_what_does_not_fit_is_dropped_with_a_line_in_the_log(play, monkeypatch, caplog):
    monkeypatch.setattr(module, "QUEUE", 3)

    async def scene(stage, notifier):
        stage.gate.clear()
        for n in range(20):
            one = entry(id=f"pf-{n:08x}", name=f"f{n}", notify=Notify(command=["tell"]))
            notifier.changed(one, STARTING, FAILED, "port taken")
        stage.gate.set()
        await stage.until(lambda: len(stage.got) == 3)
        assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
            "notifications are dropped: 3 wait already"
        ]

    play(scene)


def test_the_desktop_hears_of_what_asked_for_it_and_programs_do_not(play):
    async def scene(stage, notifier):
        both = entry(notify=Notify(desktop=True, command=["tell"]))
        only = entry(id="pf-00000002", name="only", notify=Notify(desktop=True))
        for one in (both, only, entry(id="pf-00000003", name="none", notify=Notify(command=["tell"]))):
            notifier.changed(one, STARTING, FAILED, "port taken")
        await stage.until(lambda: len(stage.got) == 2 and len(stage.shown) == 2)
        assert [name for name, _ in stage.brief] == ["prod-web", "none"]
        assert stage.shown == ["KECS: prod-web failed", "KECS: only failed"]

    play(scene)


def test_a_command_runs_beside_its_file_or_at_home(play):
    async def scene(stage, notifier):
        notifier.changed(TOLD, STARTING, FAILED, "port taken")
        of_a_file = entry(
            id="pf-00000002",
            name="of-a-file",
            owner="/srv/team/port-forward.yaml",
            notify=Notify(command=["tell"]),
        )
        notifier.changed(of_a_file, STARTING, FAILED, "port taken")
        await stage.until(lambda: len(stage.got) == 2)
        assert {name: folder for name, _, folder in stage.got} == {
            "prod-web": Path.home(),
            "of-a-file": Path("/srv/team"),
        }

    play(scene)


def test_one_that_is_on_its_way_while_the_agent_leaves_has_a_moment(monkeypatch):
    monkeypatch.setattr(module, "GOODBYE", 0.02)

    async def act():
        stage = Stage()
        stage.notifier.changed(TOLD, STARTING, FAILED, "port taken")
        await stage.notifier.close()
        assert stage.brief == [("prod-web", "failed")]

        stuck = Stage()
        stuck.gate.clear()
        stuck.notifier.changed(TOLD, STARTING, FAILED, "port taken")
        await stuck.notifier.close()
        assert stuck.got == []
        assert [one for one in asyncio.all_tasks() if "notify" in one.get_name()] == []

    asyncio.run(act())


def test_all_channels_are_used_and_what_fails_is_in_the_log(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(channels, "TRIES", (0.0,))
    caplog.set_level(logging.INFO)
    nobody = f"http://127.0.0.1:{free_port()}/"
    code = "import sys, json; print('heard of', json.load(sys.stdin)['forward'])"
    wanted = Notify(command=[sys.executable, "-c", code], webhook=nobody)
    event = event_of(Notice("failed", FAILED, "port taken"), entry(), instance="default", time=0.0)

    asyncio.run(deliver(wanted, event, tmp_path))

    said = [record.getMessage() for record in caplog.records if record.name == "kecs.agent.notifier"]
    assert f"prod-web: `{sys.executable}` says: heard of prod-web" in said
    assert any(text.startswith(f"prod-web: cannot notify by `{nobody}`: ") for text in said)


def test_the_event_is_plain_json(tmp_path):
    code = "import sys; open('event', 'w').write(sys.stdin.read())"
    event = event_of(Notice("failed", FAILED, "„taken“"), entry(), instance="default", time=0.0)

    asyncio.run(deliver(Notify(command=[sys.executable, "-c", code]), event, tmp_path))

    assert json.loads((tmp_path / "event").read_text(encoding="utf-8"))["reason"] == "„taken“"
