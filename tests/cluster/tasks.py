"""Standalone ECS tasks on a cluster: run some, wait for their ends, and look at their pods.

Used by the tests of what task definitions and a task's life mean on pods.
"""

from __future__ import annotations

from typing import Any

from tests.cluster.harness.cluster import Kubectl
from tests.cluster.harness.images import BUSYBOX, SERVER
from tests.process.harness import NETWORK, Home, until

Container = dict[str, Any]
STOPPED_WITHIN = 90.0


def shell(script: str, name: str = "main", **members: Any) -> Container:
    """Return a container that runs a shell script."""
    return {"name": name, "image": BUSYBOX, "command": ["sh", "-c", script], **members}


def server(name: str = "web", *ports: int, **members: Any) -> Container:
    """Return a container of the test server; it listens on 8080, 9090, 9092 and 9093."""
    mapped = [{"containerPort": port} for port in ports or (8080,)]
    return {"name": name, "image": SERVER, "portMappings": mapped, **members}


def depends(**conditions: str) -> list[dict[str, str]]:
    """Return `dependsOn`: container to condition."""
    return [{"containerName": name, "condition": it} for name, it in conditions.items()]


def define(home: Home, *containers: Container, **members: Any) -> str:
    """Register a task definition of these containers; return its ARN.

    `members` are its others; None leaves one out that is there otherwise.
    """
    given = {"family": "one", "networkMode": "awsvpc", "cpu": "256", "memory": "512"} | members
    answer = home.aws().register_task_definition(
        containerDefinitions=list(containers),
        **{member: value for member, value in given.items() if value is not None},
    )
    return str(answer["taskDefinition"]["taskDefinitionArn"])


def run(home: Home, *containers: Container, network: Any = NETWORK, **members: Any) -> str:
    """Define and run one task; return its ARN."""
    definition = define(home, *containers, **members)
    where = {"networkConfiguration": network} if network else {}
    answer = home.aws().run_task(taskDefinition=definition, **where)
    assert answer["failures"] == []
    return str(answer["tasks"][0]["taskArn"])


def described(home: Home, arn: str) -> Any:
    """Return the task as DescribeTasks shows it."""
    return home.aws().describe_tasks(tasks=[arn])["tasks"][0]


def stopped(home: Home, arn: str) -> Any:
    """Wait until the task is STOPPED; return it."""
    return until(
        lambda: (task := described(home, arn))["lastStatus"] == "STOPPED" and task,
        f"task {arn} is STOPPED",
        STOPPED_WITHIN,
        every=0.1,
    )


def running(home: Home, arn: str) -> Any:
    """Wait until the task is RUNNING; return it."""
    return until(
        lambda: (task := described(home, arn))["lastStatus"] == "RUNNING" and task,
        f"task {arn} is RUNNING",
        STOPPED_WITHIN,
        every=0.1,
    )


def exits(task: Any) -> dict[str, int | None]:
    """Return the exit code of each container, by name."""
    return {one["name"]: one.get("exitCode") for one in task["containers"]}


def reasons(task: Any) -> dict[str, str | None]:
    """Return the reason of each container, by name."""
    return {one["name"]: one.get("reason") for one in task["containers"]}


def said(home: Home, arn: str, container: str = "main") -> list[str]:
    """Return the lines that a container of a task has written, by `kecs logs`."""
    shown = home.run("logs", arn, "--container", container).stdout.splitlines()
    return [line.partition("| ")[2] for line in shown]


def id_of(arn: str) -> str:
    """Return the id of a task."""
    return arn.rpartition("/")[2]


def objects(kubectl: Kubectl, kind: str, arn: str) -> list[Any]:
    """Return the Kubernetes objects of a kind that belong to a task."""
    label = f"kecs.dev/task-id={id_of(arn)}"
    return list(kubectl.json("get", kind, "--all-namespaces", "--selector", label)["items"])


def pod(kubectl: Kubectl, arn: str) -> Any:
    """Return the pod that a task is."""
    (found,) = objects(kubectl, "pods", arn)
    return found
