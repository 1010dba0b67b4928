"""`start`, `stop`, `destroy`, `status`, `list`, `env`, `secrets`, `completion` with scripted daemons."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.client.fakes import row

from kecs.cli import env
from kecs.client import instance as instances
from kecs.client import launch, secrets


def test_start_status_stop_and_again(kecs, home):
    ran = kecs("start")
    assert (ran.code, ran.out) == (0, "default  http://127.0.0.1:5373\n")
    assert 'eval "$(kecs env)"' in ran.err

    ran = kecs("start", "-o", "json")
    assert "running already" in ran.err
    assert json.loads(ran.out)["apiPort"] == 5373

    ran = kecs("status")
    assert ran.code == 0
    assert "tasks 3 running" in ran.out

    assert kecs("stop").code == 0
    assert home.alive() == []
    assert kecs("stop").err == "the instance `default` was stopped already\n"
    ran = kecs("status")
    assert (ran.code, ran.out) == (5, "default  stopped\n")
    assert "`kecs start`" in ran.err


def test_a_start_elsewhere_says_where_tasks_run(kecs, tmp_path, monkeypatch):
    kecs("start")
    assert "tasks run in" not in kecs("start").err
    here = Path.cwd()
    monkeypatch.chdir(tmp_path)
    assert f"its tasks run in `{here}`" in kecs("start").err


def test_status_as_json_has_instance_and_daemons(kecs, home):
    home.instance()
    launch.launch("agent", home.paths)
    document = json.loads(kecs("status", "-o", "json").out)
    assert (document["state"], document["tasksRunning"], document["agentStatus"]["forwards"]) == (
        "running",
        3,
        0,
    )


def test_status_brings_a_crashed_instance_back(kecs, home):
    home.instance()
    ran = kecs("status")
    assert ran.code == 0
    assert "started again" in ran.err


def test_list_shows_each_instance_and_starts_nothing(kecs, home):
    home.instance()
    home.instance("two", desired="stopped", api_port=0)
    home.instance("broken")
    (home.path / "instances/broken/instance.yaml").write_text("{")

    ran = kecs("list")
    assert [line.split()[:2] for line in ran.out.splitlines()[1:]] == [
        ["default", "crashed"],
        ["two", "stopped"],
    ]
    assert "warning: " in ran.err
    assert [one["name"] for one in json.loads(kecs("list", "-o", "json").out)] == ["default", "two"]
    assert home.alive() == []


def test_list_of_nothing_is_no_error(kecs):
    ran = kecs("list")
    assert (ran.code, ran.out) == (0, "")
    assert "kecs start" in ran.err
    assert kecs("list", "-o", "json").out == "[]\n"


def test_destroy_deletes_the_folder(kecs, home):
    kecs("start")
    assert kecs("destroy", "--yes").code == 0
    assert not home.paths.root.exists()
    assert home.alive() == []


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, False), ("n\n", 130, True), ("", 130, True)])
def test_destroy_asks_on_a_terminal(kecs, home, monkeypatch, answer, code, left):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    home.instance(desired="stopped", ended=True)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert kecs("destroy").code == code
    assert home.paths.root.exists() is left


def test_ps_joins_the_forwards_that_reach_things(kecs, home):
    task_id = "0123456789abcdef0123456789abcdef"
    port = {
        "container": "web",
        "containerPort": 80,
        "protocol": "tcp",
        "name": "http",
        "hostPort": 29999,
        "ready": True,
    }
    place = {
        "region": "us-east-1",
        "cluster": "prod",
        "service": "web",
        "taskDefinition": "web:1",
        "public": True,
    }
    service = place | {
        "status": "ACTIVE",
        "desired": 1,
        "running": 1,
        "pending": 0,
        "rolloutState": "COMPLETED",
        "deployments": 1,
    }
    task = place | {
        "taskId": task_id,
        "lastStatus": "RUNNING",
        "desiredStatus": "RUNNING",
        "healthStatus": "HEALTHY",
        "createdAt": 1.0,
        "stoppedReason": None,
        "ports": [port, port | {"containerPort": 81, "ready": False}],
    }
    home.instance()
    forwards = [row(), row(name="dead", localPort=1, state="FAILED")]
    home.daemons_do(
        controlplane={"ps": {"services": [service], "tasks": [task]}}, agent={"forwards": forwards}
    )
    launch.launch("agent", home.paths)
    ran = kecs("ps")

    assert "prod/web" in ran.out
    assert "80 on 29999 <- 127.0.0.1:20000, 81 on 29999 (not ready)" in ran.out
    document = json.loads(kecs("ps", "-o", "json").out)
    assert document["services"][0]["forwards"] == ["127.0.0.1:20000"]
    assert [one["forward"] for one in document["tasks"][0]["ports"]] == ["127.0.0.1:20000", None]
    assert task_id in kecs("ps", "-o", "wide").out


def test_ps_starts_no_agent(kecs, home):
    home.instance()
    home.forwards({"name": "x"})
    assert kecs("ps").err.splitlines()[-1] == "there is no service and no task"
    assert home.starts("agent") == 0


def test_explain_prints_facts_effects_and_advice(kecs, home):
    home.instance()
    assert kecs("explain", "service", "prod/web").out == (
        "t\n  f\n\nWithout effect here:\n  w\n\nWhat you can do:\n  a\n"
    )
    asked = [line for line in home.asked("controlplane").splitlines() if "explain" in line]
    assert asked[0].split()[1] == "/_kecs/explain?type=service&cluster=prod&name=web"


def test_logs_of_tasks_name_task_and_container(kecs, home):
    home.instance()
    line = {"taskId": "0123456789abcdef0123456789abcdef", "container": "web", "text": "hello"}
    home.daemons_do(controlplane={"logs": [line]})
    assert kecs("logs", "prod/web", "--container", "web").out == "01234567 web | hello\n"
    asked = home.asked("controlplane").splitlines()[-1]
    assert asked.split()[1] == "/_kecs/logs?cluster=prod&name=web&container=web"


ERROR = {"message": "the log of web cannot be read: 403", "hint": "see status", "exitCode": 5}


def log_line(task, text="", error=None):
    return {"taskId": task * 32, "container": "web", "text": text, "error": error}


def test_a_log_that_cannot_be_read_is_said_while_others_are_read(kecs, home):
    home.instance()
    lines = [log_line("0", "one"), log_line("0", error=ERROR), log_line("1", "two")]
    home.daemons_do(controlplane={"logs": lines})
    ran = kecs("logs", "-f", "prod/web")
    assert (ran.code, ran.out) == (0, "00000000 web | one\n11111111 web | two\n")
    assert "warning: 00000000 web: the log of web cannot be read: 403\n" in ran.err


def test_logs_of_which_none_can_be_read_are_an_error(kecs, home):
    home.instance()
    home.daemons_do(controlplane={"logs": [log_line("0", "one"), log_line("0", error=ERROR)]})
    ran = kecs("logs", "-f", "prod/web")
    assert (ran.code, ran.out) == (5, "00000000 web | one\n")
    assert ran.err.endswith(
        "warning: 00000000 web: the log of web cannot be read: 403\n"
        "error: no log of these containers could be read to its end\n\nhint: see status\n"
    )


def test_logs_of_a_daemon_are_read_without_it(kecs, home):
    home.instance(desired="stopped")
    home.paths.controlplane_log.write_text("new\n")
    home.paths.controlplane_log.with_name("controlplane.log.1").write_text("old\n")
    assert kecs("logs", "--daemon", "controlplane").out == "old\nnew\n"


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "fish", "pwsh"])
def test_env_is_understood_by_each_shell(kecs, home, shell):
    home.instance(region="eu-west-1")
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    syntax = {"fish": "fish", "pwsh": "powershell"}.get(shell, "sh")
    script = kecs("env", "--shell", syntax).out
    unset = kecs("env", "--shell", syntax, "--unset").out
    show = "Get-ChildItem env:" if shell == "pwsh" else "env"
    clean = {"PATH": os.environ["PATH"], "HOME": str(home.path)}

    def variables(text: str) -> str:
        return subprocess.run(
            [program, "-c", text], env=clean, capture_output=True, text=True, check=True
        ).stdout

    assert "AWS_ENDPOINT_URL_ECS=http://127.0.0.1:5373" in variables(script + show)
    assert "AWS_REGION=eu-west-1" in variables(script + show)
    assert "AWS_" not in variables(script + unset + show)


@pytest.mark.parametrize(
    ("shell", "lines"),
    [
        ("sh", ("export AWS_REGION='us-east-1'", "unset AWS_REGION")),
        ("fish", ("set -gx AWS_REGION 'us-east-1'", "set -e AWS_REGION")),
        (
            "powershell",
            ("$Env:AWS_REGION = 'us-east-1'", "Remove-Item Env:AWS_REGION -ErrorAction SilentlyContinue"),
        ),
    ],
)
def test_env_in_the_syntax_of_each_shell(kecs, home, shell, lines):
    home.instance()
    assert lines[0] in kecs("env", "--shell", shell).out.splitlines()
    assert lines[1] in kecs("env", "--shell", shell, "--unset").out.splitlines()


@pytest.mark.parametrize(
    ("path", "shell"),
    [("/bin/zsh", "sh"), ("/usr/bin/fish", "fish"), ("/usr/bin/pwsh", "powershell"), ("", "sh")],
)
def test_env_follows_the_persons_shell(kecs, home, monkeypatch, path, shell):
    monkeypatch.setenv("SHELL", path)
    assert kecs("env", "--unset").out == kecs("env", "--unset", "--shell", shell).out


def test_env_says_what_it_overrides_without_showing_secrets(kecs, home, monkeypatch):
    home.instance()
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "topsecret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    ran = kecs("env", "--shell", "sh")

    assert "overrides AWS_REGION (was `eu-north-1`)" in ran.err
    assert "overrides AWS_SECRET_ACCESS_KEY\n" in ran.err
    assert "AWS_DEFAULT_REGION" not in ran.err
    assert "topsecret" not in ran.err + ran.out
    assert "unset AWS_SESSION_TOKEN" in ran.out
    assert "--endpoint-url http://127.0.0.1:5373" in ran.err


def test_env_quotes_what_a_shell_would_read():
    assert env._set("A", "it's", "sh") == "export A='it'\\''s'"
    assert env._set("A", "it's\\", "fish") == "set -gx A 'it\\'s\\\\'"
    assert env._set("A", "it's", "powershell") == "$Env:A = 'it''s'"


def test_secrets_are_set_listed_and_removed_without_being_printed(kecs, home, monkeypatch):
    home.instance(desired="stopped")
    (home.path / "file").write_text("S3CRET-file\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("S3CRET-stdin\n"))
    shown = [kecs("secrets", "set", "a", "S3CRET-argument"), kecs("secrets", "set", "c")]
    shown.append(kecs("secrets", "set", "b", "--from-file", str(home.path / "file")))

    assert [one.code for one in shown] == [0, 0, 0]
    kept = {"a": "S3CRET-argument", "b": "S3CRET-file\n", "c": "S3CRET-stdin"}
    assert secrets.load(home.paths) == kept
    assert kecs("secrets", "list").out == "a\nb\nc\n"
    assert json.loads(kecs("secrets", "list", "-o", "json").out) == ["a", "b", "c"]
    shown += [kecs("secrets", "rm", "a", "c"), kecs("secrets", "list")]
    assert not [one for one in shown if "S3CRET" in one.out + one.err]
    assert list(secrets.load(home.paths)) == ["b"]


def test_a_secret_that_is_not_there_and_a_file_that_is_not(fails, home):
    home.instance()
    fails(3, "secrets", "rm", "nothing", says="`nothing`")
    fails(2, "secrets", "set", "a", "--from-file", "/nowhere/x", says="`/nowhere/x`")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_accepted_by_its_shell(kecs, shell):
    script = kecs("completion", shell).out
    assert "_KECS_COMPLETE" in script
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([program, "-n"], input=script, text=True, check=True)


def complete(*words: str) -> list[str]:
    from click.shell_completion import BashComplete

    from kecs.cli.main import cli

    *before, last = words
    found = BashComplete(cli, {}, "kecs", "_KECS_COMPLETE").get_completions(list(before), last)
    return [one.value for one in found]


def test_completion_knows_commands_options_instances_forwards_and_targets(home):
    home.instance()
    home.instance("two")
    services = [
        {
            "region": "us-east-1",
            "cluster": "prod",
            "service": "web",
            "status": "ACTIVE",
            "taskDefinition": "web:1",
            "desired": 0,
            "running": 0,
            "pending": 0,
            "public": True,
            "rolloutState": "COMPLETED",
            "deployments": 1,
        }
    ]
    home.daemons_do(controlplane={"ps": {"services": services, "tasks": []}}, agent={"forwards": [row()]})
    launch.launch("agent", home.paths)
    launch.launch("controlplane", home.paths)

    assert complete("st") == ["start", "stop", "status"]
    assert "service" in complete("port-forward", "start", "")
    assert complete("status", "--instance", "t") == ["two"]
    assert complete("port-forward", "stop", "") == ["prod-web"]
    assert complete("port-forward", "stop", "pf-") == ["pf-0123abcd"]
    assert complete("port-forward", "start", "service", "p") == ["prod/web"]
    assert complete("port-forward", "start", "task", "p") == []
    assert complete("port-forward", "start", "task", "--tag", "a=b", "p") == ["prod"]
    assert complete("port-forward", "run", "--config", "p") == ["p"], "left to the shell, which knows files"
    assert complete("explain", "forward", "") == ["prod-web"]
    assert complete("explain", "service", "p") == ["prod/web"]
    assert complete("explain", "task", "p") == []
    assert complete("env", "--shell", "f") == ["fish"]


def test_completion_starts_nothing_and_says_nothing(home, capsys):
    home.instance()
    home.forwards({"name": "x"})
    assert complete("port-forward", "stop", "") == []
    assert complete("logs", "") == []
    assert home.alive() == []
    assert capsys.readouterr().err == ""
    assert instances.require(home.paths).desired == "running"


POD = {
    "region": "us-east-1", "cluster": "prod", "taskId": "0123456789abcdef0123456789abcdef", "service": "web",
    "taskDefinition": "web:1", "lastStatus": "PENDING", "desiredStatus": "RUNNING", "healthStatus": "UNKNOWN",
    "public": True, "createdAt": 1.0, "stoppedReason": None, "namespace": "kecs-dev", "pod": "web-0123",
    "waiting": "0/1 nodes are available",
    "ports": [
        {
            "container": "web", "containerPort": 80, "protocol": "tcp", "name": None, "hostPort": 0,
            "ready": False, "nodePort": 30080,
        }
    ],
}  # fmt: skip


def test_ps_shows_node_ports_pods_and_why_a_task_waits(kecs, home):
    home.instance()
    home.daemons_do(controlplane={"ps": {"services": [], "tasks": [POD]}})
    ran = kecs("ps")
    assert "80 on node port 30080 (not ready)" in ran.out
    assert "0/1 nodes are available" in ran.out
    assert "kecs-dev/web-0123" not in ran.out
    assert "kecs-dev/web-0123" in kecs("ps", "-o", "wide").out


@pytest.mark.parametrize(
    ("cluster", "says"),
    [
        ({"connected": True, "nodes": 3, "nodesReady": 2}, "connected  2 of 3 nodes ready"),
        ({"connected": False, "lostAt": 1.0, "detail": "no route"}, "no route"),
        ({"connected": False}, "connecting"),
    ],
)
def test_status_shows_the_cluster(kecs, home, cluster, says):
    chosen = instances.Kubernetes(kubeconfig="/k", context="kind", cluster_uid="u")
    home.instance(runtime="kubernetes", kubernetes=chosen)
    told = {"context": "kind", "server": "https://k:6443"} | cluster
    home.daemons_do(controlplane={"status": {"cluster": told}})
    [line] = [line for line in kecs("status").out.splitlines() if line.startswith("cluster")]
    assert "kind  https://k:6443" in line
    assert says in line
    document = json.loads(kecs("status", "-o", "json").out)
    assert document["kubernetes"] == {"kubeconfig": "/k", "context": "kind", "clusterUid": "u"}
    assert document["cluster"]["connected"] is cluster["connected"]
