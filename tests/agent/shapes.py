"""Short ways to write endpoints, entries and instances."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from kecs import files
from kecs.agent.state import Entry
from kecs.client import instance as instances
from kecs.client.endpoints import EndpointPort, EndpointsLine, EndpointTask, Route, Target
from kecs.forward.spec import ForwardSpec, parse_target
from kecs.paths import InstancePaths

REGION = "us-east-1"
A = "a" * 32
B = "b" * 32


def port(
    container_port=80, host_port=0, *, name="http", ready=None, draining=False, protocol="tcp", routes=None
):
    """A port of a task; with a `host_port` it is ready."""
    if routes is None:
        routes = [Route(kind="direct", host="127.0.0.1", port=host_port)] if host_port else []
    return EndpointPort(
        name=name,
        container="web",
        container_port=container_port,
        protocol=protocol,
        ready=bool(host_port) if ready is None else ready,
        draining=draining,
        routes=routes,
    )


def task(task_id=A, *ports, status="RUNNING", reason=None, created_at=1.0, **tags):
    return EndpointTask(
        task_id=task_id,
        created_at=created_at,
        tags=tags,
        last_status=status,
        stopped_reason=reason,
        ports=list(ports),
    )


def service(*tasks, name="web", cluster="prod", region=REGION, public=True, ports=None, **members):
    return Target(
        region=region,
        cluster=cluster,
        service=name,
        task_id=None,
        public=public,
        tasks=list(tasks),
        ports=[port()] if ports is None else ports,
        **members,
    )


def lone(one, *, cluster="prod", region=REGION, public=True, ports=None):
    """A standalone task as a target."""
    return Target(
        region=region,
        cluster=cluster,
        service=None,
        task_id=one.task_id,
        public=public,
        tasks=[one],
        ports=[port()] if ports is None else ports,
    )


def snapshot(version, *targets):
    return EndpointsLine(type="snapshot", version=version, targets=list(targets))


def change(version, *targets, removed=()):
    return EndpointsLine(type="change", version=version, targets=list(targets), removed=list(removed))


def wanted(text="prod/web", kind="service", **members):
    region = members.pop("region", None)
    return ForwardSpec(target=parse_target(text, kind, region=region), **members)


def entry(**members):
    given = {
        "id": "pf-00000001",
        "name": "prod-web",
        "type": "service",
        "region": REGION,
        "cluster": "prod",
        "service": "web",
        "local_port": 20001,
        "target_port": 80,
        "created_at": 1.0,
    }
    if members.get("type") == "task":
        given |= {"service": None, "task_id": A, "name": "task-aaaaaaaa"}
    if "tags" in members:
        given |= {"type": "task", "service": None, "task_id": None, "name": "tagged"}
    return Entry(**(given | members))


def short_home():
    """A folder whose path leaves room for a socket's name."""
    return Path(tempfile.mkdtemp(dir="/tmp", prefix="kecs-"))


def make_instance(home, name="default", **members):
    """Write the instance.yaml of an instance that should be running; return its paths."""
    paths = InstancePaths(home, name)
    files.make_private_folder(paths.forward_logs)
    given = {
        "name": name,
        "id": "0a1b2c3d",
        "region": REGION,
        "api_port": 5373,
        "desired": "running",
        "access_key_id": "AKIA",
        "directory": "/",
        "created_at": time.time(),
    }
    instances.write(paths, instances.Instance(**(given | members)))
    return paths
