"""ECS's rules on real pods: ends and reasons, health checks, the circuit breaker, logs, standalone tasks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.cluster import service, target, tasks
from tests.cluster.tasks import exits, reasons, server, shell
from tests.process.harness import KECS, PRIVATE, until

LASTS = "trap exit TERM; sleep 600 & wait"
REGISTRY_PORT = 5055
ABSENT = f"127.0.0.1:{REGISTRY_PORT}/absent:1"
ESSENTIAL = ("EssentialContainerExited", "Essential container in task exited")
LOOKS_AGAIN = timedelta(seconds=10)
"""The kubelet's first back-off after a pull that failed."""


@pytest.fixture(scope="module")
def home(cluster):
    """A home with an instance whose time goes five times as fast."""
    with target.visiting(cluster, KECS_TIME_SCALE="0.2") as one:
        target.start(one, cluster)
        yield one


@pytest.fixture(scope="module")
def registry(home):
    """A server on each node's own loopback, which answers as a registry that has no image."""
    ports = {
        "PORT": str(REGISTRY_PORT),
        "ECHO_PORT": "0",
        "HALF_PORT": "0",
        "COUNT_PORT": "0",
        "UDP_PORT": "0",
    }
    one = server(
        "registry", REGISTRY_PORT, environment=[{"name": name, "value": at} for name, at in ports.items()]
    )
    arn = tasks.run(home, one, network=None, networkMode="host", family="registry")
    tasks.running(home, arn)
    yield ABSENT
    home.aws().stop_task(task=arn)


@pytest.fixture(scope="module")
def ends(home, registry):
    """Tasks that end by themselves, all started at once: what they are to show, and their ARNs."""
    definitions = {
        "an exit code": [shell("echo hello; exit 7")],
        "a container that is not essential": [
            shell("exit 3", "side", essential=False),
            shell("sleep 2; exit 0"),
        ],
        "one of two essential containers": [
            shell("sleep 1; exit 4", "first"),
            shell("trap 'exit 9' TERM; sleep 600 & wait", "second"),
        ],
        # Not at once: containerd's shim watches for it from a moment after the start only.
        "memory": [shell("sleep 1; exec dd if=/dev/zero of=/dev/null bs=200M", memory=32)],
        "an image that is not there": [{"name": "main", "image": registry}],
        "one image that is not there": [
            shell(LASTS, "other"),
            {"name": "main", "image": registry},
        ],
        "a program that is not there": [shell("", entryPoint=["/not/there"])],
    }
    return {what: tasks.run(home, *containers) for what, containers in definitions.items()}


def ended(task):
    return task["stopCode"], task["stoppedReason"]


def test_a_task_runs_to_its_end_and_keeps_what_it_wrote(home, ends, kubectl):
    arn = ends["an exit code"]
    home.aws().get_waiter("tasks_stopped").wait(tasks=[arn], WaiterConfig={"Delay": 1})
    end = tasks.described(home, arn)
    assert (*ended(end), exits(end)) == (*ESSENTIAL, {"main": 7})
    assert end["createdAt"] <= end["startedAt"] <= end["executionStoppedAt"] <= end["stoppedAt"]
    # STOPPED is when its containers have ended; the kubelet takes a moment more to let the pod go.
    until(lambda: not tasks.objects(kubectl, "pods", arn), "the pod is gone", tasks.STOPPED_WITHIN)
    assert tasks.said(home, arn) == ["hello"]


def test_only_the_end_of_an_essential_container_ends_the_task(home, ends):
    end = tasks.stopped(home, ends["a container that is not essential"])
    assert (*ended(end), exits(end)) == (*ESSENTIAL, {"side": 3, "main": 0})
    end = tasks.stopped(home, ends["one of two essential containers"])
    assert (*ended(end), exits(end)) == (*ESSENTIAL, {"first": 4, "second": 9})


def test_a_container_over_its_memory_is_out_of_memory(home, ends):
    end = tasks.stopped(home, ends["memory"])
    assert (*ended(end), exits(end)) == (*ESSENTIAL, {"main": 137})
    assert reasons(end)["main"].startswith("OutOfMemoryError: ")


def test_an_image_that_is_not_there_is_said_at_once_and_nothing_is_made_up(home, ends, kubectl):
    """The kubelet would try again, and makes up an exit code when the pod goes."""
    for what, others in (("an image that is not there", {}), ("one image that is not there", {"other": 143})):
        end = tasks.stopped(home, ends[what])
        assert end["stopCode"] == "TaskFailedToStart"
        assert end["stoppedReason"].startswith("CannotPullContainerError: ")
        assert "not found" in end["stoppedReason"]
        assert reasons(end)["main"] == end["stoppedReason"]
        assert exits(end) == {"main": None, **others}
        assert "startedAt" not in end
    end = tasks.described(home, ends["an image that is not there"])
    assert end["stoppingAt"] - failed_pull(kubectl, end["taskArn"]) < LOOKS_AGAIN


def failed_pull(kubectl, arn):
    """Return when the kubelet failed to pull the image of a task, in whole seconds."""
    (at,) = (
        event["firstTimestamp"]
        for event in kubectl.json("get", "events", "--all-namespaces")["items"]
        if tasks.id_of(arn) in event["involvedObject"]["name"] and "Failed to pull" in event["message"]
    )
    return datetime.fromisoformat(at)


def test_a_program_that_is_not_there_cannot_start(home, ends):
    end = tasks.stopped(home, ends["a program that is not there"])
    assert end["stopCode"] == "TaskFailedToStart"
    assert end["stoppedReason"].startswith("CannotStartContainerError: ")
    assert exits(end) == {"main": None}


def test_stop_task_asks_first_and_kills_after_stop_timeout(home):
    """`stopTimeout` is 10 s of this instance's fast time: 2 s."""
    polite = tasks.run(home, shell("trap 'echo asked; exit 9' TERM; echo up; sleep 600 & wait"))
    deaf = tasks.run(home, shell("trap '' TERM; echo up; while :; do sleep 1; done", stopTimeout=10))
    for arn in (polite, deaf):
        tasks.running(home, arn)
        until(lambda arn=arn: tasks.said(home, arn) == ["up"], "the shell has set its trap")
        home.aws().stop_task(task=arn, reason="because")
    end = tasks.stopped(home, polite)
    assert (*ended(end), exits(end)) == ("UserInitiated", "because", {"main": 9})
    assert tasks.said(home, polite) == ["up", "asked"]
    end = tasks.stopped(home, deaf)
    assert (*ended(end), exits(end)) == ("UserInitiated", "because", {"main": 137})
    assert (end["executionStoppedAt"] - end["stoppingAt"]).total_seconds() >= 1.5


def test_a_task_that_no_node_can_take_waits_and_says_why(home):
    """The service and `kecs explain` say it; stopped, it never ran."""
    tasks.define(home, shell(LASTS, cpu=1_000_000), cpu=None, family="huge")
    home.service("huge", taskDefinition="huge", count=1)
    (task,) = until(lambda: home.tasks(serviceName="huge"), "a task is made")
    arn = task["taskArn"]
    text = until(
        lambda: "Insufficient cpu" in (said := home.run("explain", "task", arn).stdout) and said,
        "it says why",
    )
    assert "has no place to run yet" in text
    assert tasks.described(home, arn)["lastStatus"] == "PENDING"
    assert "Insufficient cpu" in home.run("explain", "service", "default/huge").stdout
    until(
        lambda: any("Insufficient cpu" in event["message"] for event in home.describe("huge")["events"]),
        "the service says it in an event",
    )
    home.aws().delete_service(service="huge", force=True)
    end = tasks.stopped(home, arn)
    assert exits(end) == {"main": None}
    assert "startedAt" not in end


def test_what_ends_a_task_is_named_and_its_service_replaces_it(home, kubectl):
    """One crashes, one's pod is deleted and one evicted by others; none is started again in its place."""
    service.create(home, count=3)
    port = service.forward(home)
    before = arns(home)
    crashed, deleted, evicted = sorted(before)
    pods = {arn: tasks.pod(kubectl, arn)["metadata"] for arn in before}

    crash = home.forward("task", crashed, ":8080", "--wait", "10")["localPort"]
    with pytest.raises(OSError, match=r"reset|closed"):
        urllib.request.urlopen(f"http://127.0.0.1:{crash}/exit?code=5", timeout=10)
    where = pods[deleted]
    kubectl("delete", "pod", where["name"], "--namespace", where["namespace"], "--wait=false")
    evict(kubectl, pods[evicted])

    found = {arn: tasks.stopped(home, arn) for arn in before}
    assert (*ended(found[crashed]), exits(found[crashed])) == (*ESSENTIAL, {"web": 5})
    assert ended(found[deleted]) == ("InfrastructureHealth", "Task was stopped: its pod was deleted")
    assert ended(found[evicted]) == (
        "InfrastructureHealth",
        "Task was stopped: its pod was evicted from its node, which is being drained",
    )
    # They were told to end, and did.
    assert (exits(found[deleted]), exits(found[evicted])) == ({"web": 0}, {"web": 0})
    for arn in (deleted, evicted):
        assert any(line.endswith("ended") for line in tasks.said(home, arn, "web")), "its log is kept whole"
    assert any("listening 8080" in line for line in tasks.said(home, crashed, "web"))

    home.stable()
    assert service.answer(port).split()[1] in {tasks.id_of(arn) for arn in arns(home)}
    new = {arn: tasks.pod(kubectl, arn) for arn in arns(home)}
    assert len(new) == 3
    assert new.keys().isdisjoint(before)
    restarts = [one["restartCount"] for pod in new.values() for one in pod["status"]["containerStatuses"]]
    assert restarts == [0, 0, 0]
    row = next(row for row in home.forwards() if row["localPort"] == crash)
    assert row["state"] == "ENDED", "the forward to the task ended with it"
    home.run("port-forward", "stop", "--all")
    home.aws().delete_service(service="web", force=True)


def arns(home) -> set[str]:
    """Return the tasks of service `web` that are to run."""
    return {task["taskArn"] for task in home.tasks(serviceName="web")}


def evict(kubectl, pod) -> None:
    """Ask for a pod's eviction as `kubectl drain` does."""
    path = f"/api/v1/namespaces/{pod['namespace']}/pods/{pod['name']}/eviction"
    wish = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod["name"], "namespace": pod["namespace"]},
    }
    kubectl("create", "--raw", path, "-f", "-", text=json.dumps(wish))


def test_an_unhealthy_task_is_replaced(home):
    """Its check passes until it is told to fail: HEALTHY, UNHEALTHY, gone."""
    check = {
        "command": ["CMD-SHELL", "wget -q -O - http://127.0.0.1:8080/health"],
        "interval": 5,
        "retries": 2,
    }
    tasks.define(home, server(healthCheck=check), family="checked")
    home.service("checked", taskDefinition="checked", count=1)
    (first,) = until(
        lambda: [task for task in home.tasks(serviceName="checked") if task["healthStatus"] == "HEALTHY"],
        "its check has passed",
        seconds=60,
    )
    port = home.forward("service", "default/checked", ":8080", "--wait", "10")["localPort"]
    assert fetch(port, "/health?set=bad") == "ok\n"
    end = tasks.stopped(home, first["taskArn"])
    assert ended(end)[1].startswith("Task failed container health checks")
    assert end["healthStatus"] == "UNHEALTHY"
    (second,) = until(
        lambda: [task for task in home.tasks(serviceName="checked") if task["healthStatus"] == "HEALTHY"],
        "another one is healthy",
        seconds=60,
    )
    assert second["taskArn"] != first["taskArn"]
    assert fetch(port, "/").split()[1] == tasks.id_of(second["taskArn"])
    home.run("port-forward", "stop", "--all")
    home.aws().delete_service(service="checked", force=True)


def fetch(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as reply:
        return str(reply.read().decode())


def test_the_circuit_breaker_rolls_an_absent_image_back(home, registry):
    good = tasks.define(home, server(), family="breaker")
    breaker = {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}
    home.service("breaker", taskDefinition=good, count=1, deploymentConfiguration=breaker)
    home.stable("breaker")
    bad = tasks.define(home, {**server(), "image": registry}, family="breaker")
    home.aws().update_service(service="breaker", taskDefinition=bad)

    def rolled_back():
        primary = home.describe("breaker")["deployments"][0]
        return primary["taskDefinition"] == good and primary["rolloutState"] == "COMPLETED"

    until(rolled_back, "the rollback is complete", seconds=90)
    found = home.describe("breaker")
    assert (found["taskDefinition"], len(found["deployments"])) == (good, 1)
    messages = [event["message"] for event in found["events"]]
    assert any("deployment failed: tasks failed to start" in message for message in messages)
    assert any("rolling back to deployment" in message for message in messages)
    assert [one["taskDefinitionArn"] for one in home.tasks(serviceName="breaker")] == [good]
    failed = [
        task["stoppedReason"]
        for task in home.tasks("STOPPED", family="breaker")
        if task["taskDefinitionArn"] == bad and task["stopCode"] == "TaskFailedToStart"
    ]
    assert len(failed) >= 3
    assert all(why.startswith("CannotPullContainerError") for why in failed)
    said = home.run("explain", "service", "breaker").stdout
    for words in ("CannotPullContainerError", "rolling back to deployment", "docker pull IMAGE"):
        assert words in said, said
    home.aws().delete_service(service="breaker", force=True)


def test_a_standalone_task_has_a_node_port_and_a_forward_while_it_lives(home, cluster, kubectl):
    arn = tasks.run(home, server("web", 8080, 9090))
    hidden = tasks.run(home, server(), network=PRIVATE)
    tasks.running(home, arn)
    (exposed,) = tasks.objects(kubectl, "services", arn)
    assert exposed["spec"]["type"] == "NodePort"
    assert exposed["metadata"]["name"] == f"task-{tasks.id_of(arn)}"
    (number,) = [port["nodePort"] for port in exposed["spec"]["ports"] if port["port"] == 8080]
    for address in target.node_addresses(cluster):
        who = until(lambda address=address: service.answer(number, host=address), "the node port answers")
        assert who.split()[1] == tasks.id_of(arn)

    row = home.forward("task", f"default/{tasks.id_of(arn)[:12]}", ":8080", "--wait", "10")
    assert row["taskId"] == tasks.id_of(arn)
    assert service.answer(row["localPort"]).split()[1] == tasks.id_of(arn)
    tasks.running(home, hidden)
    refused = home.run("port-forward", "start", "task", hidden, ":8080", code=None)
    assert refused.returncode
    assert "assignPublicIp" in refused.stderr

    home.aws().stop_task(task=arn)
    home.aws().stop_task(task=hidden)
    until(lambda: home.forwards()[0]["state"] == "ENDED", "the forward ends with its task", seconds=30)
    tasks.stopped(home, arn)
    until(lambda: tasks.objects(kubectl, "services", arn) == [], "its Service goes, too")


def test_logs_are_followed_while_they_are_written_and_kept_while_they_can_be_asked_for(home, kubectl):
    """One of a task that nobody can describe any more is deleted."""
    arn = tasks.run(home, server())
    tasks.running(home, arn)
    port = home.forward("task", arn, ":8080", "--wait", "10")["localPort"]
    with following(home, arn) as follower:
        assert "listening" in follower.stdout.readline(), "what was there is shown first"
        for line in ("one", "two"):
            fetch(port, f"/log?line={line}")
            assert follower.stdout.readline().endswith(f"| {line}\n")
        home.aws().stop_task(task=arn)
        assert follower.stdout.read().splitlines()[-1].endswith(" ended")
        assert follower.wait(10) == 0
    tasks.stopped(home, arn)
    written = tasks.said(home, arn, "web")
    assert written[-1].endswith(" ended")

    kept: Path = home.path / "instances/default/tasks"
    forgotten = kept / ("0" * 32)
    forgotten.mkdir()
    (forgotten / "web.log").write_text("of a task that was forgotten\n")
    os.kill(home.pid("controlplane"), signal.SIGKILL)
    until(lambda: not forgotten.exists(), "what nobody can ask for is deleted", seconds=30)
    assert tasks.said(home, arn, "web") == written


@contextmanager
def following(home, arn):
    """Give a running `kecs logs -f` of a task."""
    command = [str(KECS), "logs", "-f", arn]
    with subprocess.Popen(command, env=home.environment, stdout=subprocess.PIPE, text=True) as follower:
        try:
            yield follower
        finally:
            follower.kill()
