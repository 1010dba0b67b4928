"""A team's file with the real command, daemons and tasks: `run`, `--watch`, `down`, `export`."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.process.harness import KECS, NETWORK, Home, until
from tests.process.network import own_network

SAMPLE = Path(__file__).parent / "files" / "port-forward.yaml"
"""As it is given to us: three forwards with fixed ports, to two services and one task by tags."""


def ask(port: int) -> str:
    """Return who answers on a new connection: the id of its task."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        return answer.read().decode().split()[-1]


def signs(home: Home, *arguments: str, file: Path = SAMPLE) -> dict[str, str]:
    """Run the file; return the sign of each forward."""
    plan = home.json("port-forward", "run", "--config", str(file), *arguments)
    return {step["name"]: step["sign"] for step in plan["steps"]}


def states(home: Home) -> dict[str, str]:
    return {row["name"]: row["state"] for row in home.forwards()}


@pytest.fixture
def apart():
    """A running instance in a network of its own."""
    with own_network():
        home = Home()
        try:
            home.start()
            yield home
        finally:
            home.close()


def worker(home: Home, **tags: str) -> str:
    """Run a task with these tags in `development`; return its id when it runs."""
    aws = home.aws()
    started = aws.run_task(
        cluster="development",
        taskDefinition="worker",
        networkConfiguration=NETWORK,
        tags=[{"key": key, "value": value} for key, value in tags.items()],
    )
    arn = started["tasks"][0]["taskArn"]
    until(
        lambda: aws.describe_tasks(cluster="development", tasks=[arn])["tasks"][0]["lastStatus"] == "RUNNING",
        "the task runs",
    )
    return str(arn).rpartition("/")[2]


def test_the_sample_file_works_unchanged(apart):
    names = ["web-service", "api-service", "debug-task"]

    # before anything of it exists, each says for what it waits
    first = apart.run("port-forward", "run", "--config", str(SAMPLE))
    assert [line.split()[1] for line in first.stdout.splitlines()] == names
    rows = {row["name"]: row for row in apart.forwards()}
    assert {row["state"] for row in rows.values()} == {"WAITING"}
    assert [rows[name]["localPort"] for name in names] == [8080, 3000, 9229]
    assert "production/webapp" in rows["web-service"]["reason"]
    assert "Environment=dev" in rows["debug-task"]["reason"]

    apart.register("webapp")
    apart.register("api", container={"portMappings": [{"containerPort": 3000, "name": "http"}]})
    apart.register("worker", container={"portMappings": [{"containerPort": 9229, "name": "debug"}]})
    for cluster in ("production", "development"):
        apart.aws().create_cluster(clusterName=cluster)
    apart.service("webapp", cluster="production", taskDefinition="webapp", count=2)
    apart.service("api", cluster="production", taskDefinition="api", count=1)
    worker(apart, Environment="prod", Component="worker")
    chosen = worker(apart, Environment="dev", Component="worker")

    # now all serve, and nothing is to be done
    assert signs(apart, "--wait", "20") == dict.fromkeys(names, "=")
    assert (len(ask(8080)), len(ask(3000)), ask(9229)) == (32, 32, chosen)

    # `autoReconnect: false`: it ends with its task though another one has the tags; run again, it starts anew
    other = worker(apart, Environment="dev", Component="worker")
    assert ask(9229) == chosen
    apart.aws().stop_task(cluster="development", task=chosen)
    until(lambda: states(apart)["debug-task"] == "ENDED", "the forward ends with its task")
    assert signs(apart, "--dry-run")["debug-task"] == "~"
    assert states(apart)["debug-task"] == "ENDED", "a dry run changes nothing"
    assert signs(apart, "--wait", "20") == dict.fromkeys(names, "=") | {"debug-task": "~"}
    assert ask(9229) == other

    # `down` stops what the file defines, and nothing else
    mine = apart.forward("service", "production/webapp", ":80", "--name", "mine")
    apart.run("port-forward", "down", "--config", str(SAMPLE))
    assert states(apart) == {"mine": "ACTIVE"}
    assert len(ask(mine["localPort"])) == 32


FILE = """\
version: "1"
forwards:
  - {name: one, type: service, service: web, targetPort: 80}
"""
TWO = "  - {name: two, type: task, tags: {part: web}, targetPort: 80}\n"


@pytest.fixture
def team(running):
    """A file for a service that runs."""
    running.register()
    running.service(count=1)
    running.stable()
    file = running.path / "team.yaml"
    file.write_text(FILE)
    return file


@contextlib.contextmanager
def watching(home: Home, said: Path) -> Iterator[subprocess.Popen[str]]:
    """Run `run --watch` on `team.yaml`; its standard error goes to `said`."""
    with said.open("w") as errors:
        process = subprocess.Popen(
            [str(KECS), "port-forward", "run", "--config", "team.yaml", "--watch", "--wait"],
            env=home.environment,
            cwd=home.path,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_a_file_is_followed_and_a_wrong_one_keeps_what_is_good(running, team, tmp_path):
    said = tmp_path / "said"
    with watching(running, said) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("+ one  http://127.0.0.1:")

        new = running.path / ".team.yaml.swp"
        new.write_text(FILE + TWO)
        new.rename(team)  # as editors do
        until(lambda: set(states(running)) == {"one", "two"}, "the new forward is there")

        team.write_text(FILE.replace("targetPort", "targetport"))
        until(lambda: "team.yaml:3:" in said.read_text(), "the wrong file is named with its line")
        until(lambda: "the forwards stay as they are" in said.read_text(), "and what becomes of it")
        assert set(states(running)) == {"one", "two"}

        team.write_text(FILE)
        assert any(line.startswith("- two  default/part=web:80") for line in process.stdout)
        assert set(states(running)) == {"one"}
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    assert states(running) == {"one": "ACTIVE"}, "Ctrl-C leaves the forwards"


def test_what_is_exported_starts_the_same_forwards_on_another_instance(running, team):
    running.run("port-forward", "run", "--config", str(team), "--wait", "20")
    running.run("port-forward", "export", "-o", str(running.path / "exported.yaml"))
    rows = running.forwards()
    running.run("port-forward", "stop", "--all")

    plan = running.json(
        "port-forward", "run", "--config", str(running.path / "exported.yaml"), "--wait", "20"
    )
    assert [step["sign"] for step in plan["steps"]] == ["+"] * len(rows)
    again = running.forwards()
    assert [(row["name"], row["localPort"]) for row in again] == [
        (row["name"], row["localPort"]) for row in rows
    ]
