"""`kecs port-forward list --watch` with a scripted agent that leaves as a person stops the instance."""

from __future__ import annotations

import io
import json
import threading
import time

import pytest
from tests.client.fakes import row

from kecs.cli import forward_changes, forward_live
from kecs.cli.session import Session
from kecs.client import launch

WEB = row()
HELD = row(state="WAITING", reason="no task of the service runs")
API = row(id="pf-00000001", name="api", localPort=20001)


@pytest.fixture
def watched(home):
    home.instance()

    def told(*changes: object, **does: object) -> None:
        home.daemons_do(agent={"forwards": [WEB], "changes": list(changes)} | does)
        launch.launch("agent", home.paths)

    return told


def test_without_a_terminal_each_change_is_a_line(kecs, watched):
    busy = HELD | {"connections": {"open": 5, "total": 9, "held": 1}}
    watched({"forwards": [HELD]}, {"forwards": [busy]}, {"forwards": [API], "removed": [WEB["id"]]})
    ran = kecs("port-forward", "list", "--watch")

    assert [line.split("  ", 1)[1] for line in ran.out.splitlines()] == [
        "prod-web  http://127.0.0.1:20000 -> prod/web:80  ACTIVE",
        "prod-web  http://127.0.0.1:20000 -> prod/web:80  WAITING (no task of the service runs)",
        "api  http://127.0.0.1:20001 -> prod/web:80  ACTIVE",
        "prod-web  stopped",
    ]
    assert ran.code == 5
    assert "`kecs start`" in ran.err


def test_as_json_each_change_is_an_object_in_a_line_and_the_first_has_all(kecs, watched):
    watched({"forwards": [API]}, {"removed": [WEB["id"]]})
    lines = [json.loads(line) for line in kecs("pf", "list", "--watch", "-o", "json").out.splitlines()]

    assert [([one["name"] for one in line["forwards"]], line["removed"]) for line in lines] == [
        (["prod-web"], []),
        (["api"], []),
        ([], [WEB["id"]]),
    ]


def test_as_yaml_each_change_is_a_document(kecs, watched):
    import yaml

    watched({"forwards": [API]})
    documents = list(yaml.safe_load_all(kecs("pf", "list", "--watch", "-o", "yaml").out))
    assert [one["forwards"][0]["name"] for one in documents] == ["prod-web", "api"]


def test_an_agent_that_was_stopped_by_hand_is_not_started(fails, home):
    home.instance(agent="stopped")
    fails(5, "port-forward", "list", "--watch", says="the agent is stopped", hint="agent restart")
    assert home.alive() == []


def test_on_a_stopped_instance_nothing_is_started(fails, home):
    home.instance(desired="stopped")
    fails(5, "port-forward", "list", "--watch", hint="kecs start")
    assert home.alive() == []


def test_an_agent_that_comes_back_tells_only_what_is_other_than_before(home, monkeypatch):
    from kecs.client.agent import AgentClient, WentAway

    told = iter([([WEB, API], []), ([HELD, API], []), ([API], [])])

    def subscribe(self, end):
        yield next(told)
        raise WentAway("the agent")

    home.instance()
    monkeypatch.setattr(AgentClient, "subscribe", subscribe)
    found = forward_changes.changes(Session())

    assert next(found) == ([WEB, API], [])
    assert next(found) == ([HELD], [])
    assert next(found) == ([], [WEB["id"]])


def test_another_thread_can_end_a_watch_and_no_agent_is_brought_back_after_that(home):
    home.instance()
    home.daemons_do(agent={"forwards": [WEB]})
    launch.launch("agent", home.paths)
    listener = forward_changes.Listener()
    found = forward_changes.changes(Session(), listener=listener)
    assert next(found) == ([WEB], [])
    threading.Timer(0.05, listener.leave).start()
    assert list(found) == []


def test_a_watch_with_an_end_ends(home):
    home.instance()
    home.daemons_do(agent={"forwards": [WEB]})
    launch.launch("agent", home.paths)
    found = forward_changes.changes(Session(), time.monotonic() + 0.2)
    assert list(found) == [([WEB], [])]


def test_a_terminal_has_a_table_that_is_drawn_anew(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with forward_live.screen(None) as screen:
        screen.show({}, [], [])
        screen.show({WEB["id"]: WEB}, [WEB], [])
        screen.show({WEB["id"]: HELD}, [HELD], [])

    text = terminal.getvalue()
    assert "there is no port forward" in text
    assert "prod/web:80" in text
    assert text.index("ACTIVE") < text.index("no task of the service runs")


def test_a_narrow_terminal_cuts_neither_states_nor_ports(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    tags = {"Environment": "development", "Component": "worker"}
    held = HELD | {"name": "development-worker", "service": None, "tags": tags}
    with forward_live.screen(None) as screen:
        screen.show({WEB["id"]: held}, [held], [])
    text = capsys.readouterr().out
    assert "WAITING" in text
    assert "127.0.0.1:20000" in text
    assert "REASON" in text


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    with forward_live.screen(None) as screen:
        assert isinstance(screen, forward_live.Lines)
