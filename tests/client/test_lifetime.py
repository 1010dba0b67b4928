"""The life of an instance with scripted daemons: what is written, started, ended and put back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.client.fakes import at_once, until

from kecs.client import instance as instances
from kecs.client import launch, lifetime
from kecs.client.agent import is_up
from kecs.client.lifetime import Wishes
from kecs.errors import ExitCode, KecsError
from kecs.files import Unreadable
from kecs.paths import InstancePaths


def quiet(_text: str) -> None:
    """Ignore notes."""


def start(home, **wishes):
    known = {"environment": {"PATH": "/bin", "AWS_REGION": "eu-north-1"}, "directory": "/tmp"}
    given = known | {"default_runtime": "local"} | wishes
    return lifetime.start(home.paths, Wishes(**given), quiet)


def test_the_first_start_writes_down_what_is_kept_and_starts_the_control_plane_alone(home):
    outcome = start(home, environment={"PATH": "/bin", "LC_ALL": "C", "SECRET": "x"}, knobs={"drain": 1.0})

    made = instances.require(home.paths)
    assert made == outcome.instance
    assert (made.desired, made.agent, made.region, made.runtime) == (
        "running",
        "running",
        "us-east-1",
        "local",
    )
    assert made.environment == {"PATH": "/bin", "LC_ALL": "C"}
    assert (made.directory, made.knobs) == ("/tmp", {"drain": 1.0})
    assert made.api_port == 5373, "the control plane chose and wrote it"
    assert (outcome.already, outcome.agent) == (False, False)
    assert (home.starts("controlplane"), home.starts("agent")) == (1, 0)
    for folder in (home.path / "instances", home.paths.root):
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("environment", "option", "region"),
    [
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}, None, "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-2"}, None, "eu-west-2"),
        ({"AWS_REGION": "eu-west-1"}, "ap-south-1", "ap-south-1"),
        ({}, None, "us-east-1"),
    ],
)
def test_the_region_of_a_new_instance(home, environment, option, region):
    assert start(home, environment=environment, region=option).instance.region == region


def test_ids_and_keys_are_random(home):
    start(home)
    first = instances.require(home.paths)
    lifetime.destroy(home.paths, quiet)
    start(home)
    second = instances.require(home.paths)

    assert first.id != second.id
    assert first.access_key_id != second.access_key_id
    assert len(first.access_key_id) == 20


def test_a_start_of_a_running_instance_says_so_and_starts_nothing(home):
    start(home)
    assert start(home, port=0).already is True
    assert home.starts("controlplane") == 1


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"port": 1999}, "1999"),
        ({"region": "eu-west-1"}, "eu-west-1"),
        ({"runtime": "k3d"}, "k3d"),
        ({"require_key": True}, "require-key on"),
    ],
)
def test_other_settings_than_the_running_ones_are_a_conflict(home, wishes, says):
    start(home)
    before = home.paths.instance_file.read_bytes()
    with pytest.raises(KecsError) as caught:
        start(home, **wishes)

    assert caught.value.exit_code == ExitCode.CONFLICT
    if "require_key" not in wishes:
        assert says in caught.value.message
    assert home.paths.instance_file.read_bytes() == before


def test_a_stopped_instance_may_have_another_port_but_never_another_region(home):
    start(home)
    lifetime.stop(home.paths, quiet)
    with pytest.raises(KecsError) as caught:
        start(home, region="eu-west-1")
    assert caught.value.exit_code == ExitCode.CONFLICT
    assert instances.require(home.paths).desired == "stopped"

    assert start(home, port=1999, require_key=True).instance.api_port == 1999
    assert instances.require(home.paths).require_key is True


def test_a_later_start_takes_the_environment_and_folder_of_its_caller(home):
    start(home)
    lifetime.stop(home.paths, quiet)
    start(home, environment={"PATH": "/other"}, directory="/")

    now = instances.require(home.paths)
    assert (now.environment, now.directory, now.api_port) == ({"PATH": "/other"}, "/", 5373)


def test_a_crashed_instance_is_started_again(home):
    start(home)
    os.kill(int(home.paths.controlplane_pid.read_text()), signal.SIGKILL)
    until(lambda: not is_up(str(home.paths.controlplane_socket)), "it is dead")
    assert start(home).already is False
    assert home.starts("controlplane") == 2


def test_start_starts_the_agent_when_there_are_forwards(home):
    home.instance(desired="stopped", agent="stopped")
    home.forwards({"name": "a", "localPort": 20000})

    assert start(home).agent is True
    assert instances.require(home.paths).agent == "running"
    assert is_up(str(home.paths.agent_socket))


@pytest.mark.parametrize(
    ("document", "wanted"),
    [
        ("version: 1\nforwards: []\n", False),
        ("version: 1\nforwards: []\nnames: {localPort: 20000}\n", False),
        ("version: 1\nforwards: []\nnames: {localPort: 20000, owners: ['']}\n", True),
        ("version: 1\nforwards: []\nautos: [{owner: /x, spec: {clusters: [a]}}]\n", True),
    ],
)
def test_an_agent_has_work_when_somebody_wants_names_or_auto(home, document, wanted):
    home.instance()
    home.paths.forwards_config.write_text(document)

    assert lifetime.has_forwards(home.paths) is wanted


def test_a_forward_file_of_a_newer_version_stops_the_start_before_it_begins(home):
    home.instance(desired="stopped")
    home.paths.forwards_config.write_text("version: 99\nforwards: []\n")
    with pytest.raises(KecsError, match="newer") as caught:
        start(home)
    assert caught.value.exit_code == ExitCode.CONFLICT
    assert home.starts("controlplane") == 0
    assert instances.require(home.paths).desired == "stopped"


def test_a_broken_forward_file_is_left_to_the_agent(home):
    home.instance(desired="stopped")
    home.paths.forwards_config.write_text("{torn")
    assert start(home).agent is True


def test_a_first_start_that_fails_leaves_no_instance_and_keeps_the_log_elsewhere(home):
    home.daemons_do(controlplane={"trace": "it broke"})
    with pytest.raises(KecsError, match="it broke") as caught:
        start(home)

    assert list((home.path / "instances").iterdir()) == []
    log = Path(caught.value.hint.split("`")[1])
    assert "it broke" in log.read_text()
    log.unlink()


def test_a_later_start_that_fails_puts_the_wish_back(home):
    start(home)
    lifetime.stop(home.paths, quiet)
    before = home.paths.instance_file.read_bytes()
    home.daemons_do(controlplane={"error": "no", "code": 4})
    with pytest.raises(KecsError):
        start(home, port=1999)
    assert home.paths.instance_file.read_bytes() == before


def test_a_folder_with_things_in_it_is_not_removed_by_a_start_that_fails(home):
    home.make_folders()
    home.paths.database.write_text("kept")
    home.daemons_do(controlplane={"error": "no"})
    with pytest.raises(KecsError):
        start(home)
    assert home.paths.database.read_text() == "kept"
    assert not home.paths.instance_file.exists()


def test_a_broken_instance_file_is_named_and_left_alone(home):
    home.instance()
    home.paths.instance_file.write_text("{broken")
    with pytest.raises(Unreadable, match=r"instance\.yaml"):
        start(home)
    assert home.paths.instance_file.read_text() == "{broken"


def test_too_long_a_path_creates_no_folder(home):
    deep = home.path / ("d" * 100)
    with pytest.raises(KecsError, match="103") as caught:
        lifetime.start(InstancePaths(deep, "default"), Wishes(environment={}, directory="/"), quiet)
    assert caught.value.exit_code == ExitCode.USAGE
    assert not deep.exists()


def test_several_starts_at_once_make_one_instance(home):
    assert at_once(lambda: start(home)) == []
    until(lambda: len(home.alive()) == 1, "one control plane is left")


def test_stop_ends_everything_in_order_and_can_be_repeated(home):
    home.instance(desired="stopped")
    home.forwards({"name": "a", "localPort": 20000})
    start(home)
    notes: list[str] = []

    assert lifetime.stop(home.paths, notes.append) is True
    assert "ending 3 tasks" in notes
    assert home.alive() == []
    now = instances.require(home.paths)
    assert (now.desired, now.ended) == ("stopped", True)
    assert "agent.shutdown" in home.asked("agent")
    assert not (home.paths.root / "tasks-ended").exists(), "the control plane ended the tasks itself"
    assert lifetime.stop(home.paths, notes.append) is False


def test_stop_without_a_control_plane_ends_the_tasks_all_the_same(home):
    home.instance()
    home.paths.database.touch()
    assert lifetime.stop(home.paths, quiet) is True
    assert (home.paths.root / "tasks-ended").exists()


def test_a_stop_that_could_not_end_the_tasks_is_not_taken_for_done(home):
    home.instance()
    home.paths.database.touch()
    home.daemons_do(controlplane={"stop": 1})
    with pytest.raises(KecsError, match="could not be ended"):
        lifetime.stop(home.paths, quiet)
    assert instances.require(home.paths).ended is False

    home.daemons_do()
    assert lifetime.stop(home.paths, quiet) is True


def test_stop_kills_a_daemon_that_hangs_and_says_so(home):
    home.instance()
    home.monkeypatch.setattr(lifetime.launching, "LIMIT", 0.3)
    home.monkeypatch.setattr("kecs.client.agent.AgentClient.__init__.__defaults__", (0.3,))
    home.monkeypatch.setattr(launch, "command", real_looking(home))
    home.daemons_do(agent={"silent": True})
    launch.launch("agent", home.paths, limit=15)
    notes: list[str] = []
    lifetime.stop(home.paths, notes.append)

    assert [note for note in notes if "killing it" in note]
    assert home.alive() == []


def real_looking(home):
    """A command line that carries the words by which a daemon is known before it is killed."""
    return lambda daemon, paths, extra=(): [*home.command(daemon, paths, extra), f"kecs.{daemon}"]


def test_stop_never_kills_a_process_that_is_not_surely_the_daemon(home):
    home.instance()
    home.monkeypatch.setattr("kecs.client.agent.AgentClient.__init__.__defaults__", (0.3,))
    home.daemons_do(agent={"silent": True})
    launch.launch("agent", home.paths)
    with pytest.raises(KecsError, match="does not answer"):
        lifetime.stop(home.paths, quiet)
    assert is_up(str(home.paths.agent_socket))


def test_destroy_removes_the_folder_and_all_processes(home):
    start(home)
    lifetime.destroy(home.paths, quiet)
    assert not home.paths.root.exists()
    assert home.alive() == []


def test_destroy_of_nothing_is_not_found(home):
    with pytest.raises(KecsError) as caught:
        lifetime.destroy(home.paths, quiet)
    assert caught.value.exit_code == ExitCode.NOT_FOUND


def test_stop_waits_for_a_daemon_that_has_no_lock_yet(home):
    """One that was being launched when both were told to leave must not outlive the command."""
    home.instance()
    beginner = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(0.5)", "kecs.controlplane", str(home.path), "default"]
    )
    try:
        until(lambda: beginner.pid in home.alive(), "it has its own command line")
        lifetime.stop(home.paths, quiet)

        assert beginner.pid not in home.alive()
    finally:
        beginner.wait()
