"""`requiresAttributes` and `compatibilities`: what a task definition needs of the machine it runs on.

ECS derives both at registration. The names of the attributes are those of the container agent
(https://github.com/aws/amazon-ecs-agent, agent/app/agent_capability.go, and the Developer Guide's examples);
attributes that KECS cannot tell from the definition are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kecs.ecs import task_size

_ECR = re.compile(r"\d{12}\.dkr\.ecr(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/.*")
_AGENT = "com.amazonaws.ecs.capability"


def compatibilities(definition: Mapping[str, Any]) -> list[str]:
    """Return the launch types, of those that KECS has, that can run a filled definition."""
    result = ["EC2"]
    if definition["networkMode"] == "awsvpc" and task_size.is_fargate_pair(
        definition.get("cpu"), definition.get("memory")
    ):
        result.append("FARGATE")
    return result


def required_attributes(definition: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the API's Attributes, each once, in the order of their names."""
    found = set(_of_task(definition))
    for container in definition["containerDefinitions"]:
        found.update(_of_container(container, has_role="executionRoleArn" in definition))
    return [{"name": name} for name in sorted(found)]


def _of_task(definition: Mapping[str, Any]) -> Iterator[str]:
    yield f"{_AGENT}.docker-remote-api.1.18"
    if definition["networkMode"] == "awsvpc":
        yield "ecs.capability.task-eni"
    if "taskRoleArn" in definition:
        host = "-network-host" if definition["networkMode"] == "host" else ""
        yield f"{_AGENT}.task-iam-role{host}"
    if "cpu" in definition or "memory" in definition:
        yield f"{_AGENT}.task-cpu-mem-limit"
    if "pidMode" in definition or "ipcMode" in definition:
        yield "ecs.capability.pid-ipc-namespace-sharing"
    if any("efsVolumeConfiguration" in volume for volume in definition["volumes"]):
        yield "ecs.capability.efs"


def _of_container(container: Mapping[str, Any], *, has_role: bool) -> Iterator[str]:
    if driver := container.get("logConfiguration", {}).get("logDriver"):
        yield f"{_AGENT}.logging-driver.{driver}"
        yield f"{_AGENT}.docker-remote-api.1.19"
        if driver == "awslogs" and has_role:
            yield "ecs.capability.execution-role-awslogs"
    if _ECR.fullmatch(container["image"]):
        yield f"{_AGENT}.ecr-auth"
        yield f"{_AGENT}.docker-remote-api.1.19"
        if has_role:
            yield "ecs.capability.execution-role-ecr-pull"
    if container.get("privileged"):
        yield f"{_AGENT}.privileged-container"
    if container.get("dependsOn"):
        yield "ecs.capability.container-ordering"
    if "healthCheck" in container:
        yield "ecs.capability.container-health-check"
        yield f"{_AGENT}.docker-remote-api.1.24"
    if container.get("environmentFiles"):
        yield "ecs.capability.env-files.s3"
    if "firelensConfiguration" in container:
        yield f"ecs.capability.firelens.{container['firelensConfiguration']['type']}"
    for secret in container.get("secrets", ()):
        store = "asm" if ":secretsmanager:" in secret["valueFrom"] else "ssm"
        yield f"ecs.capability.secrets.{store}.environment-variables"
