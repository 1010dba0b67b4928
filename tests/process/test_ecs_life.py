"""ECS's rules with real processes: health checks, dependsOn, the circuit breaker, stops, secrets."""

from __future__ import annotations

import sys
import threading
import time
import urllib.request

import pytest
from tests.process.harness import NETWORK, PRIVATE, SERVERS, Home, until

PY = sys.executable


def run(home: Home, containers: list[dict], **members):
    """Register and run one task of these containers; return its ARN."""
    for container in containers:
        container.setdefault("image", "none")
    definition = home.aws().register_task_definition(
        family="one", networkMode="awsvpc", cpu="256", memory="512", containerDefinitions=containers
    )["taskDefinition"]["taskDefinitionArn"]
    answer = home.aws().run_task(taskDefinition=definition, networkConfiguration=NETWORK, **members)
    assert answer["failures"] == []
    return answer["tasks"][0]["taskArn"]


def task(home: Home, arn: str):
    return home.aws().describe_tasks(tasks=[arn])["tasks"][0]


def stopped(home: Home, arn: str, seconds: float = 15):
    return until(lambda: (found := task(home, arn))["lastStatus"] == "STOPPED" and found, "STOPPED", seconds)


def test_a_task_runs_to_its_end(running: Home):
    arn = run(running, [{"name": "job", "command": ["sh", "-c", "echo hello; exit 7"]}])
    running.aws().get_waiter("tasks_stopped").wait(tasks=[arn], WaiterConfig={"Delay": 1})
    end = task(running, arn)
    assert (end["stopCode"], end["stoppedReason"]) == (
        "EssentialContainerExited",
        "Essential container in task exited",
    )
    assert end["containers"][0]["exitCode"] == 7
    assert end["createdAt"] <= end["startedAt"] <= end["stoppedAt"]
    assert "hello" in running.run("logs", arn).stdout


def test_stop_task_ends_it_by_its_signal_and_says_who(running: Home):
    arn = run(running, [{"name": "job", "command": ["sleep", "600"]}])
    until(lambda: task(running, arn)["lastStatus"] == "RUNNING", "RUNNING")
    running.aws().stop_task(task=arn, reason="because")
    end = stopped(running, arn)
    assert (end["stopCode"], end["stoppedReason"]) == ("UserInitiated", "because")
    assert end["containers"][0]["exitCode"] == 143


def test_stop_timeout_is_kept(running: Home):
    code = "import signal,time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    arn = run(running, [{"name": "deaf", "command": [PY, "-c", code], "stopTimeout": 2}])
    until(lambda: "deaf" in running.run("logs", arn, code=None).stdout, "it is deaf to SIGTERM")
    began = time.monotonic()
    running.aws().stop_task(task=arn)
    assert stopped(running, arn)["containers"][0]["exitCode"] == 137
    assert 1.9 <= time.monotonic() - began < 8


def test_depends_on_keeps_the_order(running: Home):
    arn = run(
        running,
        [
            {
                "name": "init",
                "essential": False,
                "command": ["sh", "-c", "sleep 0.5; date +%s%N > /dev/null"],
            },
            {
                "name": "main",
                "command": ["sleep", "600"],
                "dependsOn": [{"containerName": "init", "condition": "SUCCESS"}],
            },
        ],
    )
    seen = []

    def state():
        found = {c["name"]: c["lastStatus"] for c in task(running, arn)["containers"]}
        if found not in seen:
            seen.append(found)
        return found["main"] == "RUNNING"

    until(state, "main runs")
    assert seen[-1] == {"init": "STOPPED", "main": "RUNNING"}
    assert not any(found["main"] == "RUNNING" and found["init"] != "STOPPED" for found in seen)


def test_a_failed_dependency_stops_the_task(running: Home):
    arn = run(
        running,
        [
            {"name": "init", "essential": False, "command": ["sh", "-c", "exit 3"]},
            {
                "name": "main",
                "command": ["sleep", "600"],
                "dependsOn": [{"containerName": "init", "condition": "SUCCESS"}],
            },
        ],
    )
    end = stopped(running, arn)
    assert end["stopCode"] == "TaskFailedToStart"
    assert {c["name"]: c.get("exitCode") for c in end["containers"]} == {"init": 3, "main": None}


def test_a_container_without_a_command_names_the_runtimes_that_run_images(running: Home):
    end = stopped(running, run(running, [{"name": "web", "image": "nginx"}]))
    assert end["stopCode"] == "TaskFailedToStart"
    assert "CannotStartContainerError" in end["containers"][0]["reason"]
    assert "kubernetes" in end["containers"][0]["reason"]


def test_health_checks_replace_an_unhealthy_task(home: Home):
    """An essential container's check that begins to fail has its task replaced by the service."""
    home.run("start", "--port", "0", env={"KECS_TIME_SCALE": "0.05"})
    mark = home.path / "sick"
    home.register(
        container={
            "healthCheck": {"command": ["CMD-SHELL", f"test ! -e {mark}"], "interval": 5, "retries": 2}
        }
    )
    home.service(count=1)
    home.stable()
    (first,) = home.tasks()
    assert first["healthStatus"] == "HEALTHY"
    mark.write_text("")
    until(
        lambda: home.aws().describe_tasks(tasks=[first["taskArn"]])["tasks"][0]["lastStatus"] == "STOPPED",
        "the unhealthy task is stopped",
    )
    mark.unlink()
    end = task(home, first["taskArn"])
    assert end["stoppedReason"].startswith("Task failed container health checks")
    home.stable()
    until(lambda: [t["healthStatus"] for t in home.tasks()] == ["HEALTHY"], "a healthy task again")


@pytest.mark.timeout(120)
def test_the_circuit_breaker_rolls_back(running: Home):
    breaker = {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}
    good = running.register(version="good")
    running.service(deploymentConfiguration=breaker)
    running.stable()
    port = running.forward("service", "default/web")["localPort"]
    bad = running.register(version="bad", environment=[{"name": "FAIL", "value": "exit"}])
    running.aws().update_service(service="web", taskDefinition=bad)

    def rolled_back():
        primary = running.describe()["deployments"][0]
        return primary["taskDefinition"] == good and primary["rolloutState"] == "COMPLETED"

    until(rolled_back, "the rollback is complete", seconds=60)
    service = running.describe()
    assert service["taskDefinition"] == good
    assert len(service["deployments"]) == 1
    messages = [event["message"] for event in service["events"]]
    assert any("deployment failed: tasks failed to start" in message for message in messages)
    assert any("rolling back to deployment" in message for message in messages)
    assert running.forwards()[0]["localPort"] == port
    assert running.forwards()[0]["state"] == "ACTIVE"


def test_secrets_and_environment_files_reach_the_process(running: Home):
    running.run("secrets", "set", "db/password", "hunter2")
    running.run("secrets", "set", "config", '{"user": "amy"}')
    listed = running.run("secrets", "list").stdout
    assert "db/password" in listed
    assert "hunter2" not in listed
    folder = running.path / "instances/default/s3/bucket"
    folder.mkdir(parents=True)
    (folder / "my.env").write_text("# a comment\nFROM_FILE=yes\nDIRECT=loses\n")
    arn = run(
        running,
        [
            {
                "name": "job",
                "command": ["sh", "-c", "echo $PASSWORD $DBUSER $FROM_FILE $DIRECT"],
                "environment": [{"name": "DIRECT", "value": "wins"}],
                "environmentFiles": [{"type": "s3", "value": "arn:aws:s3:::bucket/my.env"}],
                "secrets": [
                    {
                        "name": "PASSWORD",
                        "valueFrom": "arn:aws:ssm:us-east-1:123456789012:parameter/db/password",
                    },
                    {
                        "name": "DBUSER",
                        "valueFrom": "arn:aws:secretsmanager:us-east-1:123456789012:secret:"
                        "config-a1b2c3:user::",
                    },
                ],
            }
        ],
    )
    stopped(running, arn)
    assert "hunter2 amy yes wins" in running.run("logs", arn).stdout


def test_a_missing_secret_is_a_resource_initialization_error(running: Home):
    arn = run(
        running,
        [
            {
                "name": "job",
                "command": ["true"],
                "secrets": [{"name": "X", "valueFrom": "arn:aws:ssm:us-east-1:123456789012:parameter/none"}],
            }
        ],
    )
    end = stopped(running, arn)
    assert end["stopCode"] == "TaskFailedToStart"
    assert end["stoppedReason"].startswith("ResourceInitializationError")
    assert "kecs secrets set" in running.run("explain", "task", arn).stdout


def test_explain_names_what_listens_instead(home: Home):
    home.run("start", "--port", "0", env={"KECS_READY_TIMEOUT": "1"})
    home.register(container={"command": ["sh", "-c", f"PORT=29123 exec {PY} " + str(SERVERS / "web.py")]})
    home.service(
        count=1, loadBalancers=[{"targetGroupArn": "arn:x", "containerName": "web", "containerPort": 80}]
    )
    until(lambda: home.tasks() and home.tasks()[0]["lastStatus"] == "RUNNING", "RUNNING all the same")
    text = home.run("explain", "service", "default/web").stdout
    assert "does not listen on 80 (it listens on 29123)" in text
    assert "loadBalancers" in text
    row = home.forward("service", "default/web")
    assert row["state"] == "WAITING"


def test_a_forward_of_a_task_ends_with_its_task(running: Home):
    running.register()
    arn = running.aws().run_task(taskDefinition="web", networkConfiguration=NETWORK)["tasks"][0]["taskArn"]
    until(lambda: task(running, arn)["lastStatus"] == "RUNNING", "RUNNING")
    started = running.json("port-forward", "start", "task", f"default/{arn.rpartition('/')[2][:12]}")
    row = (started if isinstance(started, list) else started["forwards"])[0]
    assert row["taskId"] == arn.rpartition("/")[2]
    running.aws().stop_task(task=arn)
    until(lambda: running.forwards()[0]["state"] == "ENDED", "ENDED")
    assert "STOPPED" in running.forwards()[0]["reason"] or "stopped" in running.forwards()[0]["reason"]


def test_a_forward_waits_while_nothing_is_ready_and_serves_what_it_held(running: Home):
    running.register()
    running.service(count=0)
    row = running.forward("service", "default/web")
    assert row["state"] == "WAITING"
    got = []

    def ask():
        with urllib.request.urlopen(f"http://127.0.0.1:{row['localPort']}/", timeout=25) as answer:
            got.append(answer.read())

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: running.forwards()[0]["connections"]["held"] == 1, "the connection is held")
    running.aws().update_service(service="web", desiredCount=1)
    thread.join(25)
    assert len(got) == 1
    assert running.forwards()[0]["state"] == "ACTIVE"


def test_switching_the_flag_off_and_on(running: Home):
    running.register()
    running.service(count=1)
    running.stable()
    running.forward("service", "default/web")
    running.aws().update_service(service="web", networkConfiguration=PRIVATE)
    until(lambda: running.forwards()[0]["state"] == "WAITING", "it waits")
    assert "assignPublicIp" in running.forwards()[0]["reason"]
    running.aws().update_service(service="web", networkConfiguration=NETWORK)
    running.stable()
    until(lambda: running.forwards()[0]["state"] == "ACTIVE", "it serves again")
