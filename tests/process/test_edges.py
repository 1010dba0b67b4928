"""Each command with each kind of bad input: one clear error, a hint, the right code, nothing changed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys

import pytest
from tests.process.harness import KECS, PRIVATE, Home, until


def fails(home: Home, code: int, *arguments: str, says: str, hint: str | None = None, **options) -> str:
    """Run a command that must fail with `code`, one `error:` that says it, and a hint."""
    done = home.run(*arguments, code=code, **options)
    assert done.stdout == "", "stdout is for results"
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "hint: " in done.stderr, done.stderr
    if hint:
        assert hint in done.stderr.partition("hint: ")[2]
    return done.stderr


@pytest.fixture(scope="module")
def shared():
    """One running instance with a public and a private service, for errors that change nothing."""
    home = Home()
    try:
        home.start()
        home.register()
        home.register(
            "two",
            container={"portMappings": [{"containerPort": 80, "name": "http"}, {"containerPort": 81}]},
        )
        home.service(count=1)
        home.service("private", count=0, networkConfiguration=PRIVATE)
        home.service("two", count=0, taskDefinition="two")
        home.stable()
        yield home
        assert home.forwards() == []
    finally:
        home.close()


@pytest.mark.parametrize(
    ("arguments", "code", "says", "hint"),
    [
        (("service", "nowhere/web"), 3, "nowhere", None),
        (("service", "default/nothing"), 3, "nothing", "web"),
        (("service", "default/web/extra"), 2, "default/web/extra", "cluster/service"),
        (("service", ""), 2, "", None),
        (("service", "/web"), 2, "/web", None),
        (("task", "default/xyz"), 2, "xyz", None),
        (("task", "default/0123456789abcdef"), 3, "0123456789abcdef", None),
        (("service", "default/web", "--local-port", "70000"), 2, "70000", None),
        (("service", "default/web", "--local-port", "-1"), 2, "-1", None),
        (("service", "default/web", "70000:80"), 2, "70000", None),
        (("service", "default/web", "8080:80:90"), 2, "8080:80:90", None),
        (("service", "default/web", "--target-port", "81"), 3, "81", "80"),
        (("service", "default/web", "--target-port", "nope"), 3, "nope", "http"),
        (("service", "default/two"), 2, "80", "--target-port"),
        (("service", "default/web", "--name", "agent"), 2, "agent", None),
        (("service", "default/web", "--name", "no spaces"), 2, "no spaces", None),
        (("service", "default/web", "--address", "999.1.1.1"), 2, "999.1.1.1", None),
        (("service", "default/private"), 1, "assignPublicIp", "aws ecs update-service"),
    ],
)
def test_a_forward_that_cannot_be(shared: Home, arguments, code, says, hint):
    fails(shared, code, "port-forward", "start", *arguments, says=says, hint=hint)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("port-forward", "stop", "nothing"), 3, "nothing"),
        (("port-forward", "logs", "nothing"), 3, "nothing"),
        (("port-forward", "stop"), 2, ""),
        (("logs", "default/nothing"), 3, "nothing"),
        (("explain", "service", "default/nothing"), 3, "nothing"),
        (("explain", "task", "default/0123456789abcdef"), 3, "0123456789abcdef"),
        (("status", "--instance", "other"), 3, "other"),
        (("status", "--instance", "No_Good"), 2, "No_Good"),
        (("start", "--port", "99999"), 2, "99999"),
        (("start", "--runtime", "magic"), 2, "magic"),
        (("env", "--shell", "tcsh"), 2, "tcsh"),
        (("secrets", "rm", "nothing"), 3, "nothing"),
        (("completion", "tcsh"), 2, "tcsh"),
        (("nonsense",), 2, "nonsense"),
        (("start", "--region", "not a region"), 2, "not a region"),
    ],
)
def test_a_command_that_cannot_be(shared: Home, arguments, code, says):
    fails(shared, code, *arguments, says=says)


def test_other_settings_than_the_running_ones_are_a_conflict(shared: Home):
    fails(shared, 4, "start", "--port", "1999", says="1999")
    fails(shared, 4, "start", "--region", "eu-west-1", says="eu-west-1")
    shared.run("start")


def test_a_taken_port_is_named_with_its_holder(shared: Home):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = fails(
            shared, 4, "port-forward", "start", "service", "default/web", f"{port}:80", says=str(port)
        )
        assert f"pid {os.getpid()}" in text


def test_the_same_name_for_another_target_is_a_conflict(running: Home):
    running.register()
    running.service(count=1)
    running.service("second", count=1)
    running.stable()
    row = running.forward("service", "default/web", "--name", "mine")
    assert running.forward("service", "default/web", "--name", "mine")["id"] == row["id"]
    assert running.forward("service", "default/web")["id"] == row["id"], "same target and port"
    fails(
        running,
        4,
        "port-forward",
        "start",
        "service",
        "default/second",
        "--name",
        "mine",
        says="mine",
    )
    assert [one["id"] for one in running.forwards()] == [row["id"]]


def test_several_pairs_are_all_or_nothing(running: Home):
    running.register()
    running.service(count=1)
    running.stable()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        fails(
            running,
            4,
            "port-forward",
            "start",
            "service",
            "default/web",
            "28080:80",
            f"{port}:80",
            says=str(port),
        )
    assert running.forwards() == []
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", 28080), timeout=2)


def test_a_stopped_instance(home: Home):
    home.start()
    home.run("stop")
    assert home.run("stop").returncode == 0
    home.run("status", code=5)
    fails(home, 5, "port-forward", "start", "service", "default/web", says="stopped", hint="kecs start")
    assert "kecs start" in home.run("ps", code=None).stderr
    listed = home.run("port-forward", "list")
    assert "kecs start" in listed.stderr
    assert home.processes() == {}


def test_a_home_that_does_not_exist_yet(home: Home):
    fails(home, 3, "status", says="default", hint="kecs start")
    home.run("list")
    home.run("stop", code=3)


@pytest.mark.parametrize("content", ["{broken", "- a\n- list\n", "version: 1\nname: 7\n", ""])
def test_a_broken_instance_file_is_named_and_left_alone(home: Home, content):
    home.start()
    home.run("stop")
    file = home.path / "instances/default/instance.yaml"
    kept = file.read_bytes()
    file.write_text(content)
    fails(home, 1, "start", says=str(file))
    assert file.read_text() == content
    file.write_bytes(kept)
    home.run("start")


@pytest.mark.parametrize("name", ["instance.yaml", "port-forwards/config.yaml"])
def test_a_file_of_a_newer_version_is_refused_and_left_alone(home: Home, name):
    home.start()
    home.register()
    home.service(count=1)
    home.stable()
    home.forward("service", "default/web")
    home.run("stop")
    file = home.path / "instances/default" / name
    kept = file.read_bytes()
    newer = kept.replace(b"version: 1", b"version: 99", 1)
    assert newer != kept
    file.write_bytes(newer)
    done = home.run("start", code=None)
    if name == "instance.yaml":
        assert done.returncode == 4
        assert "newer" in done.stderr
    else:
        assert "newer" in done.stderr + home.run("port-forward", "list", code=None).stderr
    assert file.read_bytes() == newer
    file.write_bytes(kept)
    home.run("start")
    assert [row["state"] for row in home.forwards()] != []


def test_an_unreadable_forward_file_is_moved_aside_and_named(home: Home):
    home.start()
    home.register()
    home.service(count=1)
    home.stable()
    home.forward("service", "default/web")
    home.run("stop")
    file = home.path / "instances/default/port-forwards/config.yaml"
    file.write_text("{torn")
    home.run("start")
    home.forward("service", "default/web")
    aside = [child for child in file.parent.iterdir() if "unreadable" in child.name]
    assert [child.read_text() for child in aside] == ["{torn"]
    assert "unreadable" in home.run("port-forward", "list").stderr


def test_a_foreign_database_is_refused_and_left_alone(home: Home):
    home.start()
    home.run("stop")
    file = home.path / "instances/default/kecs.duckdb"
    file.write_bytes(b"this is no database")
    fails(home, 1, "start", says="kecs.duckdb")
    assert file.read_bytes() == b"this is no database"
    home.run("status", code=5)


def test_stop_and_destroy_do_their_work_without_a_readable_database(running: Home):
    running.register()
    running.service()
    running.stable()
    running.run("port-forward", "agent", "stop")
    running.kill("controlplane")
    (running.path / "instances/default/kecs.duckdb").write_bytes(b"this is no database")
    assert running.processes(), "tasks go on"
    running.run("stop")
    assert running.processes() == {}
    running.run("destroy", "--yes")
    assert not (running.path / "instances/default").exists()


def test_too_long_a_path(home: Home):
    deep = home.path / ("d" * 100)
    fails(home, 2, "start", env={"KECS_HOME": str(deep)}, says="103", hint="KECS_HOME")
    assert not deep.exists()


def test_a_home_that_is_a_file(home: Home):
    (home.path / "file").write_text("x")
    fails(home, 1, "start", env={"KECS_HOME": str(home.path / "file")}, says="file", hint="KECS_HOME")


@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")
def test_a_read_only_home_and_a_full_disk(home: Home):
    """In a mount namespace of its own: a tmpfs that is read-only, then one that is full."""
    script = """
mount -t tmpfs -o size=64k none "$KECS_HOME" || exit
head -c 65536 /dev/zero > "$KECS_HOME/fill" 2>/dev/null
"$KECS" start --port 0 2>"$OUT/full"; echo $? >"$OUT/full.code"
rm "$KECS_HOME/fill"
ls -A "$KECS_HOME/instances" 2>/dev/null >"$OUT/full.left"
mount -o remount,ro "$KECS_HOME"
"$KECS" start --port 0 2>"$OUT/ro"; echo $? >"$OUT/ro.code"
"""
    out = home.path / "out"
    out.mkdir()
    inner = home.path / "home"
    inner.mkdir()
    subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        env=home.environment | {"KECS_HOME": str(inner), "KECS": str(KECS), "OUT": str(out)},
        check=False,
        timeout=60,
    )
    full, read_only = (out / "full").read_text(), (out / "ro").read_text()
    assert "error: " in full
    assert "space" in full
    assert "hint: " in full
    assert "error: " in read_only
    assert "Read-only" in read_only
    assert [(out / f"{name}.code").read_text().strip() for name in ("full", "ro")] == ["1", "1"]
    assert (out / "full.left").read_text().split() == []


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root")
def test_another_user_is_refused_by_api_and_agent(running: Home):
    running.register()
    running.service(count=1)
    running.stable()
    running.forward("service", "default/web")
    url = running.aws().meta.endpoint_url
    for folder in (running.path, running.path / "instances", running.path / "instances/default"):
        folder.chmod(0o755)
    agent = running.path / "instances/default/port-forwards/agent.sock"
    agent.parent.chmod(0o755)
    agent.chmod(0o666)
    code = f"""
import json, os, socket, urllib.request, urllib.error
'x'.encode('idna')
os.setgid(65534); os.setuid(65534)
try:
    urllib.request.urlopen(urllib.request.Request({url!r}, data=b'{{}}', headers={{
        'X-Amz-Target': 'AmazonEC2ContainerServiceV20141113.ListClusters',
        'Content-Type': 'application/x-amz-json-1.1'}}), timeout=5)
    print('api let in')
except (urllib.error.HTTPError, OSError) as error:
    print('api refused', getattr(error, 'code', ''))
s = socket.socket(socket.AF_UNIX)
s.settimeout(5)
try:
    s.connect({str(agent)!r})
    s.sendall(b'{{"jsonrpc":"2.0","id":1,"method":"forward.list"}}\\n')
    data = s.recv(4096)
except OSError as error:
    data = b''
print('agent let in' if b'result' in data else 'agent refused')
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "api refused" in done.stdout, done.stdout + done.stderr
    assert "agent refused" in done.stdout


def test_a_second_agent_and_a_second_control_plane_end_quietly(running: Home):
    running.register()
    running.service(count=1)
    running.stable()
    running.forward("service", "default/web")
    for daemon in ("agent", "controlplane"):
        pid = running.pid(daemon)
        done = subprocess.run(
            [sys.executable, "-m", f"kecs.{daemon}", "--home", str(running.path), "--instance", "default"],
            env=running.environment,
            timeout=20,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert running.pid(daemon) == pid
    assert running.forwards()[0]["state"] == "ACTIVE"


def test_two_starts_at_once_make_one_instance(home: Home):
    starts = [
        subprocess.Popen(
            [str(KECS), "start", "--port", "0"],
            env=home.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    ended = [process.communicate(timeout=60) for process in starts]
    assert [process.returncode for process in starts] == [0, 0, 0], ended
    daemons = [command for command in home.processes().values() if "kecs.controlplane" in command]
    assert len(daemons) == 1
    assert home.aws().list_clusters()["clusterArns"] == []


def test_two_instances_are_wholly_apart(home: Home):
    home.start(instance="one")
    home.start(instance="two")
    for name in ("one", "two"):
        home.register(instance=name)
        home.service(instance=name, count=1)
    for name in ("one", "two"):
        home.stable(instance=name)
    first = home.forward("service", "default/web", instance="one")
    second = home.forward("service", "default/web", instance="two")
    assert first["localPort"] != second["localPort"]
    home.run("destroy", "--yes", "--instance", "one")
    assert home.describe(instance="two")["runningCount"] == 1
    assert [row["state"] for row in home.forwards("two")] == ["ACTIVE"]
    assert [row["name"] for row in home.json("list")] == ["two"]


def test_destroy_asks_first_and_leaves_nothing(running: Home):
    fails(running, 2, "destroy", says="", hint="--yes")
    running.aws().list_clusters()
    running.run("destroy", "--yes")
    assert not (running.path / "instances/default").exists()
    assert running.processes() == {}


def test_a_daemon_that_dies_at_start_has_its_last_words_shown(home: Home):
    home.start()
    home.run("stop")
    port = home.json("list")[0]["apiPort"]
    with socket.create_server(("127.0.0.1", port)):
        text = fails(home, 4, "start", says=str(port))
        assert f"pid {os.getpid()}" in text
    home.run("start")


def test_agent_stop_keeps_the_agent_away_until_it_is_wanted(running: Home):
    running.register()
    running.service(count=1)
    running.stable()
    port = running.forward("service", "default/web")["localPort"]
    running.run("port-forward", "agent", "stop")
    running.run("port-forward", "agent", "status", code=5)
    assert not [c for c in running.processes().values() if "kecs.agent" in c]
    running.kill("controlplane")
    running.run("ps")
    assert not [c for c in running.processes().values() if "kecs.agent" in c]
    running.run("port-forward", "agent", "restart")
    until(lambda: running.forwards()[0]["state"] == "ACTIVE", "the forward is back")
    assert running.forwards()[0]["localPort"] == port


def test_help_needs_no_home(home: Home):
    shutil.rmtree(home.path)
    home.path.mkdir()
    for arguments in (("--help",), ("port-forward", "--help"), ("pf", "start", "--help"), ("--version",)):
        assert home.run(*arguments).stdout
    assert list(home.path.iterdir()) == []
