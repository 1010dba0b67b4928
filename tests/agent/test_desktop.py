"""What a person sees on the desktop: a few notices one by one, many as one line."""

from __future__ import annotations

import asyncio
import os
import stat
import sys

import msgspec
import pytest
from tests.agent.test_channels import EVENT

from kecs.agent import desktop as module
from kecs.agent.channels import Outcome
from kecs.agent.desktop import Desktop, command_for, digest, show_one


def events(number, kind="reconnecting"):
    return [msgspec.structs.replace(EVENT, forward=f"f{n}", event=kind) for n in range(number)]


def test_a_few_are_shown_one_by_one():
    assert digest(events(2)) == [("KECS: f0 reconnecting", EVENT.text), ("KECS: f1 reconnecting", EVENT.text)]


def test_many_are_one_line_for_each_kind():
    assert digest([*events(200), *events(1, "failed")]) == [
        ("KECS: 200 forwards reconnecting", "f0, f1, f2, f3, f4 and 195 more"),
        ("KECS: 1 forward failed", "f0"),
    ]


def test_what_comes_together_is_shown_together_and_nothing_is_lost(monkeypatch):
    monkeypatch.setattr(module, "GATHER", 0.01)

    async def act():
        shown = []
        seen = asyncio.Event()

        async def show(title, _text):
            shown.append(title)
            if len(shown) == 1:
                for one in events(5, "reconnected"):
                    desktop.take(one)  # while the first is being shown
            seen.set()
            return Outcome(None)

        desktop = Desktop(show)
        for one in events(10):
            desktop.take(one)
        async with asyncio.timeout(10):
            while len(shown) < 2:
                await seen.wait()
                seen.clear()
        desktop.take(EVENT)  # and begins anew after all was shown
        async with asyncio.timeout(10):
            while len(shown) < 3:
                await seen.wait()
                seen.clear()
        await desktop.close()
        return shown

    assert asyncio.run(act()) == [
        "KECS: 10 forwards reconnecting",
        "KECS: 5 forwards reconnected",
        "KECS: prod-web reconnecting",
    ]


def test_what_cannot_be_shown_is_in_the_log(monkeypatch, caplog):
    monkeypatch.setattr(module, "GATHER", 0.0)
    monkeypatch.setattr(module.shutil, "which", lambda _name: None)

    async def act():
        desktop = Desktop()
        desktop.take(EVENT)
        async with asyncio.timeout(10):
            while not caplog.records:
                await asyncio.sleep(0.001)
        await desktop.close()

    asyncio.run(act())
    assert [record.getMessage() for record in caplog.records] == [
        "cannot notify on the desktop: neither notify-send nor osascript is there"
    ]


@pytest.fixture
def notify_send(tmp_path, monkeypatch):
    """A program of this name that keeps its arguments; return where."""
    program = tmp_path / "notify-send"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/shown\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path / "shown"


def test_notify_send_gets_plain_text_as_such(notify_send):
    assert asyncio.run(show_one("KECS: web failed", "exit <b>1</b> & out")) == Outcome(None)
    assert notify_send.read_text().splitlines() == [
        "--app-name=kecs",
        "--",
        "KECS: web failed",
        "exit &lt;b&gt;1&lt;/b&gt; &amp; out",
    ]


def test_on_macos_nothing_of_the_text_is_taken_as_a_script(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(module.shutil, "which", lambda name: name == "osascript")
    text = '"; do shell script "rm -rf /'

    command = command_for("KECS", text)

    assert command is not None
    assert command[-2:] == ["KECS", text]
    assert text not in command[2]
