"""Starting daemons: ready, dead, late, and two that race. The daemons are `fake_daemon.py`."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest
from tests.client.fakes import at_once, until

from kecs.client import instance as instances
from kecs.client import launch
from kecs.client.agent import is_up
from kecs.errors import ExitCode, KecsError


def kill(home, daemon: str) -> None:
    file = home.paths.agent_pid if daemon == "agent" else home.paths.controlplane_pid
    os.kill(int(file.read_text()), signal.SIGKILL)
    until(lambda: not launch.is_locked(launch.lock_of(daemon, home.paths)), "the lock is free")


@pytest.mark.parametrize("daemon", ["agent", "controlplane"])
def test_launch_returns_when_the_daemon_is_ready(home, daemon):
    home.instance()
    launch.launch(daemon, home.paths)

    assert is_up(str(launch.socket_of(daemon, home.paths)))


def test_a_daemon_is_in_a_session_of_its_own_without_our_descriptors(home):
    home.instance()
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        launch.launch("agent", home.paths)
        pid = int(home.paths.agent_pid.read_text())
        open_files = {one.name: one.readlink() for one in Path(f"/proc/{pid}/fd").iterdir()}

        assert os.getsid(pid) == pid
        assert str(open_files["0"]) == "/dev/null"
        assert Path(f"/proc/self/fd/{write}").readlink() not in open_files.values()
    finally:
        os.close(read)
        os.close(write)


def test_the_logs_and_folders_of_a_daemon_are_private(home):
    home.instance()
    launch.launch("agent", home.paths)

    assert home.paths.agent_log.stat().st_mode & 0o777 == 0o600
    assert home.paths.forward_logs.stat().st_mode & 0o777 == 0o700


def test_a_daemon_that_logs_an_error_and_ends_has_its_words_hint_and_code_shown(home):
    home.instance()
    home.daemons_do(
        controlplane={"error": "port 5373 is taken by nginx (pid 12)", "hint": "take another", "code": 4}
    )
    with pytest.raises(KecsError) as caught:
        launch.launch("controlplane", home.paths)

    assert caught.value.message == "the control plane did not start: port 5373 is taken by nginx (pid 12)"
    assert caught.value.hint == "take another"
    assert caught.value.exit_code == ExitCode.CONFLICT


def test_a_daemon_that_breaks_has_the_last_line_of_its_traceback_shown(home):
    home.instance()
    home.paths.agent_log.write_text('{"level": "error", "message": "an older one"}\n')
    home.daemons_do(agent={"trace": "it broke"})
    with pytest.raises(KecsError, match="the agent did not start: RuntimeError: it broke") as caught:
        launch.launch("agent", home.paths)

    assert str(home.paths.agent_log) in caught.value.hint


def test_a_daemon_that_is_late_is_ended_and_named_with_its_log(home):
    home.instance()
    home.daemons_do(agent={"hang": True})
    with pytest.raises(KecsError, match=r"not ready after 0\.4 s") as caught:
        launch.launch("agent", home.paths, limit=0.4)

    assert caught.value.exit_code == ExitCode.UNREACHABLE
    assert str(home.paths.agent_log) in caught.value.hint
    assert home.alive() == []


def test_the_loser_of_two_launches_waits_for_the_winner(home):
    home.instance()
    assert at_once(lambda: launch.launch("agent", home.paths)) == []
    assert is_up(str(home.paths.agent_socket))
    until(lambda: len(home.alive()) == 1, "one agent is left")
    assert home.starts("agent") >= 3


def test_a_lock_whose_holder_never_becomes_ready_is_named(home):
    home.instance()
    with launch.files.locked(home.paths.agent_lock), pytest.raises(KecsError, match=r"agent\.lock") as caught:
        launch.launch("agent", home.paths, limit=0.6)
    assert caught.value.exit_code == ExitCode.UNREACHABLE


def test_a_daemon_that_leaves_because_the_instance_was_stopped_is_not_tried_for_ever(home):
    home.instance(desired="stopped")
    home.monkeypatch.setattr(launch, "command", lambda *_: ["true"])
    with pytest.raises(KecsError, match="is stopped"):
        launch.launch("agent", home.paths)


def test_ensure_controlplane_brings_a_crashed_one_back_and_says_so(home):
    home.instance()
    launch.launch("controlplane", home.paths)
    kill(home, "controlplane")
    notes: list[str] = []
    status = launch.ensure_controlplane(home.paths, notes.append).status()

    assert status.services == 2
    assert len(notes) == 1


def test_ensure_controlplane_does_not_touch_one_that_runs(home):
    home.instance()
    launch.launch("controlplane", home.paths)
    launch.ensure_controlplane(home.paths)
    assert home.starts("controlplane") == 1


@pytest.mark.parametrize("ensure", [launch.ensure_controlplane, launch.connect_agent])
def test_a_stopped_instance_is_not_started_by_the_way(home, ensure):
    home.instance(desired="stopped")
    with pytest.raises(KecsError, match="stopped") as caught:
        ensure(home.paths)

    assert caught.value.exit_code == ExitCode.UNREACHABLE
    assert "kecs start" in caught.value.hint
    assert home.alive() == []


@pytest.mark.parametrize("ensure", [launch.ensure_controlplane, launch.connect_agent])
def test_an_instance_that_does_not_exist_is_not_found(home, ensure):
    with pytest.raises(KecsError) as caught:
        ensure(home.paths)
    assert caught.value.exit_code == ExitCode.NOT_FOUND


def test_connect_agent_starts_both_daemons_of_a_crashed_instance(home):
    home.instance()
    with launch.connect_agent(home.paths) as agent:
        assert agent.hello().instance == "default"
    assert (home.starts("agent"), home.starts("controlplane")) == (1, 1)


def test_connect_agent_starts_an_agent_that_was_stopped_by_hand(home):
    home.instance(agent="stopped")
    launch.connect_agent(home.paths).close()
    assert instances.require(home.paths).agent == "running"


def test_an_agent_of_another_version_is_replaced_once_and_that_is_said(home):
    home.instance()
    home.daemons_do(agent={"version": "0.0.1"})
    launch.launch("agent", home.paths)
    home.daemons_do()
    notes: list[str] = []
    with launch.connect_agent(home.paths, notes.append) as agent:
        assert agent.hello().version != "0.0.1"

    assert len(notes) == 1
    assert "0.0.1" in notes[0]
    assert home.starts("agent") == 2


def test_stop_agent_waits_until_it_is_gone(home):
    home.instance()
    launch.launch("agent", home.paths)

    assert launch.stop_agent(home.paths) is True
    assert not launch.is_locked(home.paths.agent_lock)
    assert launch.stop_agent(home.paths) is False


def test_stop_agent_ends_one_that_has_the_lock_and_does_not_listen_yet(home):
    home.instance()
    home.daemons_do(agent={"listens_after": 0.5})
    starting = threading.Thread(target=launch.launch, args=("agent", home.paths))
    starting.start()
    until(lambda: launch.is_locked(home.paths.agent_lock), "it has the lock")

    assert launch.stop_agent(home.paths) is True
    starting.join()
    until(lambda: home.alive() == [], "it is gone")


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("", None, None),
        ("Traceback (most recent call last):\n  File x\nValueError: no\n", "ValueError: no", None),
        (json.dumps({"level": "info", "message": "only this"}), "only this", None),
        (
            "\n".join(
                json.dumps(one)
                for one in (
                    {"level": "error", "message": "why", "hint": "how"},
                    {"level": "info", "message": "leaving"},
                )
            ),
            "why",
            "how",
        ),
        (
            json.dumps({"level": "critical", "message": "failed", "error": "Trace\nOSError: x"}),
            "failed: OSError: x",
            None,
        ),
        ('{"level": "error", "message": "first"}\nFatal Python error: oh\n', "Fatal Python error: oh", None),
        ("[1, 2]\n", "[1, 2]", None),
    ],
)
def test_last_words(text, words, hint):
    assert launch.last_words(text) == (words, hint)
