"""The agent as a process: wrong requests, taken ports, broken files, a full disk, a second agent."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tests.agent.scripted import refuses, until, who
from tests.agent.shapes import A, make_instance, port, service, task, wanted
from tests.sockets import free_port

from kecs.client.agent import NotRunning
from kecs.errors import ExitCode, KecsError
from kecs.net import listener


@pytest.fixture
def web(running):
    """An agent that knows a service with two ports, whose task listens on both."""
    listening = running.task(A)
    ports = [port(80, listening), port(81, listening, name="admin")]
    running.controlplane.publish(service(task(A, *ports), ports=[port(80), port(81, name="admin")]))
    return running


def fails(home, *specs):
    with pytest.raises(KecsError) as caught:
        home.start(*specs)
    assert caught.value.hint
    return caught.value


def config(home):
    return yaml.safe_load(home.paths.forwards_config.read_bytes())["forwards"]


def test_a_wrong_start_changes_nothing(web):
    for spec, code, message in (
        (wanted("nowhere/web"), 3, "nowhere"),
        (wanted("prod/nope"), 3, "nope"),
        (wanted("prod/0123456789", "task"), 3, "0123456789"),
        (wanted(region="eu-west-1"), 3, "it is in `us-east-1`"),
        (wanted(), 2, "several ports"),
        (wanted(target_port=82), 3, "no port `82`"),
        (wanted(target_port=80, name="agent"), 2, "cannot name a forward"),
        (wanted(target_port=80, address=["192.0.2.1"]), 2, "`192.0.2.1` is no address of this machine"),
    ):
        error = fails(web, spec)
        assert (error.exit_code, message in error.message) == (code, True), error.message
    with pytest.raises(KecsError, match="no forward was asked for"):
        web.start()
    assert web.rows() == []
    assert not web.paths.forwards_config.exists()


def test_a_taken_port_is_refused_with_its_holder(web):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        error = fails(web, wanted(target_port=80, local_port=number))

    assert error.exit_code == ExitCode.CONFLICT
    assert str(number) in error.message
    assert f"(pid {os.getpid()})" in error.message


def test_several_are_all_or_none(web):
    number = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        specs = [
            wanted(target_port=80, local_port=number),
            wanted(target_port=81, local_port=taken.getsockname()[1]),
        ]
        assert fails(web, *specs).exit_code == ExitCode.CONFLICT
        assert (web.rows(), refuses(number)) == ([], True)

    rows = web.start(*specs)
    assert [(row.name, who(row.local_port)) for row in rows] == [("prod-web", A), ("prod-web-2", A)]
    web.client.ask("forward.stop", {"all": True})


def test_the_same_again_is_the_same_forward_and_other_things_are_conflicts(web):
    (row,) = web.start(wanted(target_port=80, name="mine"))
    for same in (
        wanted(target_port=80, name="mine"),
        wanted(target_port="http"),
        wanted(target_port=80, local_port=row.local_port),
    ):
        assert [one.id for one in web.start(same)] == [row.id]
    for other, says in (
        (wanted(target_port=81, name="mine"), "the name `mine` is taken"),
        (wanted(target_port=81, local_port=row.local_port), "belongs to the forward `mine`"),
    ):
        error = fails(web, other)
        assert (error.exit_code, says in error.message) == (4, True), error.message
    assert [one.id for one in web.rows()] == [row.id]


def test_a_reply_comes_after_the_file(web):
    (row,) = web.start(wanted(target_port=80, name="mine"))

    assert [(one["id"], one["localPort"]) for one in config(web)] == [(row.id, row.local_port)]
    assert web.paths.forwards_config.stat().st_mode & 0o777 == 0o600


def test_the_target_port_is_taken_when_it_is_free_and_unprivileged(running):
    number = free_port()
    listening = running.task(A)
    running.controlplane.publish(service(task(A, port(number, listening)), ports=[port(number)]))

    first, second = running.start(wanted(), wanted(name="second"))

    assert first.local_port == number
    assert second.local_port != number
    assert second.local_port in listener.FORWARD_PORTS


def test_a_chosen_port_is_none_that_another_instance_names(web):
    (row,) = web.start(wanted(target_port=80))
    web.client.ask("forward.stop", {"all": True})
    other = web.path / "instances/other/port-forwards"
    other.mkdir(parents=True)
    other.joinpath("config.yaml").write_text(f"version: 1\nforwards:\n- localPort: {row.local_port}\n")

    (again,) = web.start(wanted(target_port=80))

    assert again.local_port != row.local_port


def test_a_port_is_free_when_the_stop_is_answered(web):
    number = free_port()
    for _ in range(3):
        (row,) = web.start(wanted(target_port=80, local_port=number))
        stopped = web.client.ask("forward.stop", {"forwards": [row.name]})["forwards"]
        assert [one["id"] for one in stopped] == [row.id]
        with socket.create_server(("127.0.0.1", number)):
            pass
    assert config(web) == []


def test_stopping_what_is_not_there_stops_nothing(web):
    (row,) = web.start(wanted(target_port=80))
    with pytest.raises(KecsError, match="there is no forward `nope`") as caught:
        web.client.ask("forward.stop", {"forwards": [row.id, "nope"]})
    assert (caught.value.exit_code, caught.value.hint) == (3, "there are `prod-web`")
    with pytest.raises(KecsError, match="no forward was named"):
        web.client.ask("forward.stop", {})
    with pytest.raises(KecsError, match="there is no forward `nope`"):
        web.client.get("nope")

    assert who(row.local_port) == A


def test_a_port_that_a_stranger_took_is_failed_and_never_moved(web):
    (row,) = web.start(wanted(target_port=80, local_port=free_port()))
    web.kill()
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", row.local_port))
        stranger.listen()
        web.launch()
        failed = web.row()
        assert (failed.state, failed.local_port) == ("FAILED", row.local_port)
        assert f"(pid {os.getpid()})" in failed.reason
        assert failed.last_error.message == failed.reason
        error = fails(web, wanted(target_port=80))
        assert (error.exit_code, "is FAILED: port" in error.message) == (4, True)
    until(lambda: web.state() == "ACTIVE", "it has its port back by itself")
    assert who(row.local_port) == A


def test_starting_a_failed_forward_again_tries_at_once(web):
    (row,) = web.start(wanted(target_port=80, local_port=free_port()))
    web.kill()
    with socket.create_server(("127.0.0.1", row.local_port)):
        web.launch()
    assert [one.state for one in web.start(wanted(target_port=80))] == ["ACTIVE"]


def test_an_unreadable_config_is_moved_aside_and_named(home):
    content = b"{torn"
    home.paths.forwards_config.write_bytes(content)
    home.launch()

    (aside,) = [file for file in home.paths.forwards.iterdir() if "unreadable" in file.name]
    assert aside.read_bytes() == content
    for warnings in (home.client.status().warnings, home.client.call("forward.list").warnings):
        assert len(warnings) == 1
        assert str(aside) in warnings[0]
    assert str(aside) in home.log()
    assert home.rows() == []


def test_a_newer_config_is_refused_and_left_alone(home):
    content = b"version: 99\nforwards: []\n"
    home.paths.forwards_config.write_bytes(content)
    home.launch(ready=False)

    assert home.wait_for_exit() == ExitCode.CONFLICT
    last = [json.loads(line) for line in home.log().splitlines() if '"error"' in line][-1]
    assert "newer KECS" in last["message"]
    assert "update KECS" in last["hint"]
    assert home.paths.forwards_config.read_bytes() == content
    assert not home.paths.agent_socket.exists()


def test_a_full_disk_starts_and_stops_nothing(web):
    (row,) = web.start(wanted(target_port=80, local_port=free_port()))
    before = home_files(web)
    number = free_port()
    _, hard = resource.prlimit(web.agent.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(web.agent.pid, resource.RLIMIT_FSIZE, (0, hard))

    assert "config.yaml" in fails(web, wanted(target_port=81, local_port=number)).message
    with pytest.raises(KecsError, match=r"config\.yaml"):
        web.client.ask("forward.stop", {"all": True})
    assert [one.id for one in web.rows()] == [row.id]
    assert (who(row.local_port), refuses(number)) == (A, True)
    assert home_files(web) == before
    resource.prlimit(web.agent.pid, resource.RLIMIT_FSIZE, (hard, hard))
    web.start(wanted(target_port=81, local_port=number))
    assert who(number) == A


def home_files(home):
    return {path.name for path in home.paths.forwards.iterdir()} - {"state.yaml"}


def test_a_second_agent_ends_quietly(running):
    first = running.agent
    running.launch(ready=False)
    assert running.wait_for_exit() == 0
    running.agent = first

    assert running.client.hello().pid == first.pid
    assert running.paths.agent_pid.read_text() == f"{first.pid}\n"


def test_a_stale_socket_is_replaced(running):
    running.kill()
    assert running.paths.agent_socket.exists()
    running.launch()

    assert running.client.hello().pid == running.agent.pid
    assert running.paths.agent_socket.stat().st_mode & 0o777 == 0o600


def test_after_the_answer_to_shutdown_another_can_start_at_once(web):
    (row,) = web.start(wanted(target_port=80, local_port=free_port()))
    old = web.agent
    client = web.client
    assert client.ask("agent.shutdown") == {}
    assert not web.paths.agent_socket.exists()
    assert refuses(row.local_port)

    web.launch()
    assert who(row.local_port) == A
    assert old.wait(10) == 0


def test_shutdown_does_not_wait_for_other_clients(web):
    watcher = web.client.watch(web.start(wanted(target_port=80))[0].id)
    next(watcher)
    idle = web.client
    idle.hello()
    web.client.shutdown()

    assert web.wait_for_exit() == 0
    with pytest.raises(NotRunning):
        web.client.hello()


@pytest.mark.parametrize(("member", "code"), [("desired", 0), ("agent", int(ExitCode.UNREACHABLE))])
def test_a_stopped_instance_has_no_agent(home, member, code):
    make_instance(home.path, **{member: "stopped"})
    home.launch(ready=False)

    assert home.wait_for_exit() == code
    assert not home.paths.agent_socket.exists()


def test_an_instance_that_does_not_exist(home):
    home.paths.instance_file.unlink()
    home.launch(ready=False)

    assert home.wait_for_exit() == ExitCode.NOT_FOUND


def test_no_log_can_be_written(home):
    """What it cannot log it says on standard error, where its starter looks."""
    home.paths.agent_log.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "kecs.agent", "--home", str(home.path), "--instance", "default"],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )

    assert done.returncode == ExitCode.FAILED
    assert "agent.log" in json.loads(done.stderr)["message"]


def test_it_is_light(web):
    """45 MB with one forward (design, 6), and nothing heavy is imported."""
    web.start(wanted(target_port=80))
    memory = web.client.status().memory

    assert 5_000_000 < memory < 45_000_000
    code = (
        "import sys, kecs.agent.__main__;"
        "heavy = {'ssl', 'lightkube', 'duckdb', 'botocore', 'click', 'rich', 'uvicorn'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_an_idle_agent_sleeps(web):
    """No polling at all: no thread of it wakes while nothing happens."""
    web.start(wanted(target_port=80))
    until(lambda: web.paths.forwards_state.exists(), "the state is written")

    def switches():
        total = 0
        for file in Path(f"/proc/{web.agent.pid}/task").glob("*/status"):
            lines = file.read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary"))
        return total

    def still():
        before = switches()
        time.sleep(0.3)
        return switches() == before

    until(still, "it sleeps for 0.3 s")
