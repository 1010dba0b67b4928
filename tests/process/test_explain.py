"""`kecs explain forward`: each cause of a forward that does not serve, provoked, named, and answered."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator

import pytest
from tests.process.harness import NETWORK, PRIVATE, SERVERS, Home, until
from tests.sockets import free_ports


class Told:
    """What `kecs explain` printed, by its parts."""

    def __init__(self, home: Home, *what: str) -> None:
        document = home.json("explain", *what)
        self.title = document["title"]
        self.facts = "\n".join(document["facts"])
        self.happened = [f"{event['source']}  {event['text']}" for event in document["timeline"]]
        self.times = [event["time"] for event in document["timeline"]]
        self.advice = "\n".join(document["advice"])


def explained(home: Home, name: str = "default-web") -> Told:
    told = Told(home, "forward", name)
    assert told.times == sorted(told.times), "one timeline, oldest first"
    assert told.advice, "it ends in what to do"
    return told


def forward(home: Home, state: str, name: str = "default-web") -> dict:
    """Wait until the forward is in `state`; return its row."""

    def row():
        return next((row for row in home.forwards() if (row["name"], row["state"]) == (name, state)), None)

    return until(row, f"{name} is {state}", seconds=20)


def failing(**container) -> dict:
    """A container whose program ends by itself."""
    return {"command": [sys.executable, "-c", "import sys; sys.exit('no database')"], **container}


@contextlib.contextmanager
def taken(port: int) -> Iterator[None]:
    """Take the port of a forward whose agent is away."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", port)))]
        assert sockets
        yield


def test_a_forward_that_serves(running: Home):
    running.register()
    running.service(count=1)
    running.stable()
    port = running.forward("service", "default/web")["localPort"]
    told = explained(running)
    assert told.title.startswith(f"forward default-web: http://127.0.0.1:{port} -> default/web:80")
    assert told.facts.startswith("it is ACTIVE")
    assert f"connect to http://127.0.0.1:{port}" in told.advice
    assert f"forward default-web  started on port {port} for default/web" in told.happened
    assert any(text.endswith("is RUNNING") for text in told.happened)

    text = running.run("explain", "forward", "default-web").stdout
    assert text.index("What happened:") < text.index("What you can do:")
    by_service = Told(running, "service", "default/web")
    assert f"forward default-web (http://127.0.0.1:{port} -> default/web:80) is ACTIVE" in by_service.facts
    assert any(text.startswith("forward default-web  started") for text in by_service.happened)
    task = running.arns().pop().rpartition("/")[2]
    assert "forward default-web" in Told(running, "task", task).facts


def test_its_task_has_stopped_and_why(running: Home):
    running.register(container=failing())
    running.service(count=1)
    running.forward("service", "default/web")
    until(lambda: "exit code 1" in Told(running, "forward", "default-web").facts, "a task has stopped")
    told = explained(running)
    assert "it is WAITING, so new connections are held: no task of default/web is ready" in told.facts
    assert "has stopped: Essential container in task exited (web ended with exit code 1)" in told.facts
    assert any("has stopped: Essential container in task exited" in text for text in told.happened)
    assert "`kecs logs default/web` shows what the tasks wrote" in told.advice
    assert "no database" in running.run("logs", "default/web").stdout


def test_its_program_cannot_be_started(running: Home):
    running.register(container={"command": ["/nowhere/server"]})
    running.service(count=1)
    running.forward("service", "default/web")
    until(lambda: "CannotStart" in Told(running, "forward", "default-web").facts, "a start has failed")
    told = explained(running)
    assert "CannotStartContainerError" in told.facts
    assert "/nowhere/server" in told.facts
    assert "see that the program that `entryPoint` and `command` name exists" in told.advice


def test_nothing_listens_on_its_port_and_on_which_something_does(home: Home):
    home.run("start", "--port", "0", env={"KECS_READY_TIMEOUT": "1"})
    server = f"PORT=29124 exec {sys.executable} {SERVERS / 'web.py'}"
    home.register(container={"command": ["sh", "-c", server]})
    home.service(count=1)
    until(lambda: home.tasks() and home.tasks()[0]["lastStatus"] == "RUNNING", "RUNNING all the same")
    home.forward("service", "default/web")
    told = explained(home)
    assert "it is WAITING" in told.facts
    assert "container web does not listen on 80 (it listens on 29124)" in told.facts
    assert "let the process listen on the number in its variable PORT" in told.advice


def test_assign_public_ip_is_off(running: Home):
    running.register()
    running.service(count=1)
    running.stable()
    running.forward("service", "default/web")
    running.aws().update_service(service="web", networkConfiguration=PRIVATE)
    forward(running, "WAITING")
    told = explained(running)
    assert "assignPublicIp is off for service default/web" in told.facts
    assert "forward default-web  WAITING: assignPublicIp is off for service default/web" in told.happened
    assert "assignPublicIp=ENABLED" in told.advice


@pytest.mark.timeout(120)
def test_a_circuit_breaker_rolled_back(running: Home):
    breaker = {"enable": True, "rollback": True, "thresholdConfiguration": {"type": "COUNT", "value": 1}}
    running.register()
    running.service(count=1, deploymentConfiguration={"deploymentCircuitBreaker": breaker})
    running.stable()
    running.forward("service", "default/web")
    broken = running.register(container=failing())
    running.aws().update_service(service="web", taskDefinition=broken)
    until(
        lambda: "rolled back" in Told(running, "forward", "default-web").facts,
        "it was rolled back",
        seconds=60,
    )
    told = explained(running)
    assert "the circuit breaker gave up" in told.facts
    assert "rolled back to web:1" in told.facts
    assert any("rolling back to deployment" in text for text in told.happened)
    assert (
        "update-service --cluster default --service web --task-definition"
        in Told(running, "service", "default/web").advice
    )


def test_what_it_leads_to_does_not_exist(running: Home):
    running.register()
    running.service(count=1)
    running.stable()
    running.forward("service", "default/web")
    running.aws().delete_service(service="web", force=True)
    forward(running, "WAITING")
    told = explained(running)
    assert "the service is INACTIVE (it was deleted)" in told.facts or "does not exist" in told.facts
    assert "aws ecs create-service" in told.advice
    assert "kecs port-forward stop default-web" in told.advice


FILE = """\
version: "1"
forwards:
- {{name: later, type: service, service: nowhere, localPort: {}, targetPort: 80}}
- {{name: by-tags, type: task, tags: {{app: api}}, localPort: {}, targetPort: 80}}
"""


def test_what_a_file_leads_to_does_not_exist_yet(running: Home):
    (running.path / "port-forward.yaml").write_text(FILE.format(*free_ports(2)))
    running.run("port-forward", "run")
    told = explained(running, "later")
    assert "there is no service `default/nowhere`" in told.facts
    assert "aws ecs create-service --cluster default --service-name nowhere" in told.advice
    told = explained(running, "by-tags")
    assert "no task in the cluster default has the tags app=api" in told.facts
    assert (
        "aws ecs run-task --cluster default --task-definition FAMILY --tags key=app,value=api" in told.advice
    )

    running.register()
    tags = [{"key": "app", "value": "api"}]
    running.aws().run_task(taskDefinition="web", networkConfiguration=NETWORK, tags=tags)
    forward(running, "ACTIVE", "by-tags")
    assert "one task matches its tags; new connections go to" in explained(running, "by-tags").facts


def test_its_task_is_gone(running: Home):
    running.register()
    arn = running.aws().run_task(taskDefinition="web", networkConfiguration=NETWORK)["tasks"][0]["taskArn"]
    task = arn.rpartition("/")[2]
    until(lambda: running.tasks() and running.tasks()[0]["lastStatus"] == "RUNNING", "RUNNING")
    running.run("port-forward", "start", "task", f"default/{task}", "--name", "one")
    running.aws().stop_task(task=arn, reason="out of the way")
    forward(running, "ENDED", "one")
    told = explained(running, "one")
    assert "it is ENDED and does not listen any more" in told.facts
    assert "out of the way" in told.facts
    assert "a task does not come back" in told.advice


@pytest.mark.timeout(90)
def test_its_port_was_taken_while_it_was_away(running: Home):
    running.register()
    running.service(count=1)
    running.stable()
    port = running.forward("service", "default/web")["localPort"]
    running.run("port-forward", "agent", "stop")
    told = explained(running)
    assert "it does not listen, since the agent does not run" in told.facts
    assert "kecs port-forward agent restart" in told.advice

    with taken(port):
        running.run("port-forward", "agent", "restart")
        forward(running, "FAILED")
        told = explained(running)
        assert f"it is FAILED, so nothing listens for it on port {port}" in told.facts
        assert f"(pid {os.getpid()})" in told.facts
        assert f"stop what holds port {port}" in told.advice
        assert "kecs port-forward start service default/web PORT:80" in told.advice
    forward(running, "ACTIVE")
    told = explained(running)
    assert any(text.startswith("forward default-web  FAILED") for text in told.happened)
    assert any(text.startswith("forward default-web  restored on port") for text in told.happened)


@pytest.mark.timeout(90)
def test_the_control_plane_is_lost(running: Home):
    running.register()
    running.service(count=1)
    running.stable()
    running.forward("service", "default/web")
    database = running.path / "instances/default/kecs.duckdb"
    pid = running.pid("controlplane")
    os.kill(pid, signal.SIGSTOP)  # it can neither answer nor be started again
    database.replace(database.with_suffix(".kept"))
    database.mkdir()
    os.kill(pid, signal.SIGKILL)
    os.kill(pid, signal.SIGCONT)
    until(
        lambda: "control plane" in (forward(running, "ACTIVE")["reason"] or ""),
        "the agent has noticed",
        seconds=30,
    )
    told = explained(running)
    assert told.facts.startswith("it is ACTIVE: control plane not reachable since")
    assert "the control plane does not tell where it leads: " in told.facts
    assert any("control plane not reachable since" in text for text in told.happened)
    assert "kecs.duckdb" in told.advice + told.facts

    database.rmdir()
    database.with_suffix(".kept").replace(database)
    until(lambda: forward(running, "ACTIVE")["reason"] is None, "all is well again", seconds=40)
    told = explained(running)
    assert "it serves" in told.advice


def test_wrong_input(running: Home):
    for arguments, code, says in (
        (("forward", "nothing"), 3, "there is no forward `nothing`"),
        (("forward", "nothing", "--region", "eu-west-1"), 2, "--region"),
        (("service", "web", "-n", "-1"), 2, "-1"),
    ):
        done = running.run("explain", *arguments, code=code)
        assert says in done.stderr
        assert "hint: " in done.stderr
        assert done.stdout == ""
