"""An ECS service of the test server on a cluster: made, forwarded to, and looked at from Kubernetes' side.

Used by the tests of load and faults. The service is `web` in cluster `default`, where nothing else is said.
"""

from __future__ import annotations

import datetime
import json
import socket
import time
import urllib.request
from typing import Any

import yaml
from tests.cluster.harness.images import SERVER
from tests.cluster.target import Target
from tests.process.harness import Home, until
from tests.process.load import Load

HTTP, ECHO = 8080, 9090
LINES = 100
"""So many lines of what happened are shown when a test fails."""
CONTAINER = {
    "image": SERVER,
    "command": [],
    "portMappings": [{"containerPort": HTTP, "name": "http"}, {"containerPort": ECHO, "name": "echo"}],
    "stopTimeout": 5,
}


def register(home: Home, version: str = "1", *, instance: str = "default") -> str:
    """Register the next revision of `web`, whose answers name this version; return its ARN."""
    return home.register(version=version, instance=instance, container=CONTAINER)


def create(home: Home, *, count: int, version: str = "1", instance: str = "default") -> None:
    """Create the service and wait until it is stable."""
    register(home, version, instance=instance)
    home.service(count=count, instance=instance)
    home.stable(instance=instance)


def forward(
    home: Home, *, route: str = "auto", port: int = HTTP, name: str | None = None, instance: str = "default"
) -> int:
    """Start a forward to the service and wait until it is ACTIVE; return its local port."""
    options = ("--name", name) if name else ()
    target = ("service", "default/web", f":{port}", "--route", route, "--wait", "30")
    return int(home.forward(*target, *options, instance=instance)["localPort"])


def row(home: Home, local_port: int, *, instance: str = "default") -> Any:
    """Return the forward's row as `list` shows it."""
    return next(row for row in home.forwards(instance=instance) if row["localPort"] == local_port)


def answer(port: int, host: str = "127.0.0.1", seconds: float = 5) -> str:
    """Ask who answers: `VERSION TASK`."""
    with urllib.request.urlopen(f"http://{host}:{port}/", timeout=seconds) as reply:
        return str(reply.read().decode())


def echoed(port: int, said: bytes) -> bytes:
    """Say this to an `ECHO` port, end, and return all that comes back before the other end ends too."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        heard = b""
        while part := connection.recv(1 << 16):
            heard += part
    return heard


def instance_id(home: Home, instance: str = "default") -> str:
    """Return the id by which the objects of an instance are known."""
    text = (home.path / "instances" / instance / "instance.yaml").read_text()
    return str(yaml.safe_load(text)["id"])


def objects(target: Target, home: Home, kind: str, *, instance: str = "default") -> list[Any]:
    """Return the instance's objects of a kind, such as `pods`."""
    label = f"kecs.dev/instance-id={instance_id(home, instance)}"
    return list(target.kubectl.json("get", kind, "--all-namespaces", "--selector", label)["items"])


def node_ports(target: Target, home: Home, *, instance: str = "default") -> dict[int, int | None]:
    """Return the node port of each container port of the service; None while it has none."""
    (service,) = objects(target, home, "services", instance=instance)
    return {port["port"]: port.get("nodePort") for port in service["spec"]["ports"]}


def comes_and_goes(home: Home, *, seconds: float = 60, instance: str = "default") -> None:
    """Check that a task can be started and one be stopped: all that takes part in it works."""
    aws, count = home.aws(instance), home.describe(instance=instance)["desiredCount"]
    before = home.arns(instance=instance)
    aws.update_service(service="web", desiredCount=count + 1)
    until(lambda: home.describe(instance=instance)["runningCount"] == count + 1, "a task more runs", seconds)
    aws.update_service(service="web", desiredCount=count)
    until(lambda: is_down_to(home, before, count, instance), "a task less is there", seconds)


def is_down_to(home: Home, before: set[str], count: int, instance: str) -> bool:
    """Tell whether no more than `count` tasks are left of all that were there, and none is ending."""
    described = home.describe(instance=instance)
    arns = {*before, *home.arns(instance=instance), *(t["taskArn"] for t in home.tasks("STOPPED"))}
    alive = [
        task["taskArn"]
        for task in home.aws(instance).describe_tasks(tasks=sorted(arns))["tasks"]
        if task["lastStatus"] != "STOPPED"
    ]
    return described["runningCount"] == count == len(alive)


def agent_log(home: Home, instance: str = "default") -> list[dict[str, Any]]:
    """Return what the agent wrote to its log, a record a line."""
    file = home.path / "instances" / instance / "port-forwards/logs/agent.log"
    return [json.loads(line) for line in file.read_text().splitlines()]


def story(home: Home, load: Load, instance: str = "default") -> str:
    """Tell what failed and when, beside what the agent and the service say of that time."""
    tally, clock = load.tally, time.time() - time.monotonic()
    lines = [f"{len(tally.failed)} of {tally.total} failed; the load was late by {load.late:.1f} s at most"]
    for (began, ended), why in list(zip(tally.spans, tally.failed, strict=True))[:LINES]:
        at = datetime.datetime.fromtimestamp(clock + began, tz=datetime.UTC)
        lines.append(f"{at:%H:%M:%S.%f} {why} after {ended - began:.3f} s")
    for file in sorted((home.path / "instances" / instance / "port-forwards/logs").glob("*.log")):
        lines += [f"{file.name}: {line}" for line in file.read_text().splitlines()[-LINES:]]
    for event in home.describe(instance=instance)["events"]:
        lines.append(f"{event['createdAt']:%H:%M:%S.%f} {event['message']}")
    return "\n".join(lines)


def more(load: Load, requests: int, seconds: float = 60) -> None:
    """Wait until so many more requests have ended."""
    went = load.tally.total
    until(lambda: load.tally.total >= went + requests, f"{requests} more requests", seconds)


def span(before: float, after: float = 0.2) -> tuple[float, float]:
    """Return the time from `before` until now and a moment more."""
    return before, time.monotonic() + after
