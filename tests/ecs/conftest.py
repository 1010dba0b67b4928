"""An ECS in memory with what most tests of services and tasks need."""

from __future__ import annotations

from typing import Any

import pytest

from kecs.ecs import clusters, task_definitions

from .shapes import Ecs


def register(ecs: Ecs, family: str = "web", containers: list[dict[str, Any]] | None = None, **members: Any):
    """Register a task definition that Fargate can run."""
    container = {"name": "web", "image": "web:1", "portMappings": [{"containerPort": 80, "name": "http"}]}
    given = {"networkMode": "awsvpc", "cpu": "256", "memory": "512", **members}
    return ecs.call(
        task_definitions.register_task_definition,
        family=family,
        containerDefinitions=containers or [container],
        **{name: value for name, value in given.items() if value is not None},
    )["taskDefinition"]


def register_bridge(
    ecs: Ecs, family: str = "bridge", host_port: int = 0, mode: str = "bridge", **members: Any
):
    """Register a task definition that shares the machine's ports."""
    port = 8080 if mode == "host" else 80
    mapping = {"containerPort": port, "hostPort": host_port} if host_port else {"containerPort": port}
    container = {"name": "web", "image": "web:1", "memory": 64, "cpu": 10, "portMappings": [mapping]}
    return register(ecs, family, [container], networkMode=mode, cpu=None, memory=None, **members)


@pytest.fixture
def ecs() -> Ecs:
    """Cluster `default` (with both Fargate providers), definitions `web:1` (awsvpc) and `bridge:1`."""
    fresh = Ecs()
    fresh.call(clusters.create_cluster, capacityProviders=["FARGATE", "FARGATE_SPOT"])
    register(fresh, tags=[{"key": "from", "value": "definition"}])
    register_bridge(fresh)
    return fresh
