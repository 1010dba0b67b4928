"""The overrides of a task: checked against its definition, and filled to what ECS shows.

Source: API reference, TaskOverride and ContainerOverride. `filled` always has one item a container.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kecs.ecs import task_size
from kecs.ecs.errors import ClientException, InvalidParameterException
from kecs.ecs.model import TaskDefinition

LARGEST = 8192
"""Characters of the overrides of a request, as JSON (API reference, RunTask)."""
EPHEMERAL_STORAGE = (20, 200)
"""Smallest and largest `ephemeralStorage.sizeInGiB` of an override."""


def filled(given: Mapping[str, Any], definition: TaskDefinition) -> dict[str, Any]:
    """Return the overrides of a task; raises InvalidParameterException."""
    if len(json.dumps(given, separators=(",", ":"), ensure_ascii=False)) > LARGEST:
        raise InvalidParameterException(f"Container Overrides length must be at most {LARGEST}")
    by_name: dict[str, dict[str, Any]] = {}
    known = [container["name"] for container in definition.definition["containerDefinitions"]]
    for override in given.get("containerOverrides", ()):
        if not override:
            continue  # "An empty container override can be passed in"
        name = override.get("name")
        if not name:
            raise InvalidParameterException("Override argument cannot be null: name")
        if name not in known:
            raise InvalidParameterException(
                f"Override for container named {name} is not a container in the TaskDefinition."
            )
        if name in by_name:
            raise InvalidParameterException(f"Container '{name}' is overridden more than once.")
        by_name[name] = override
    result: dict[str, Any] = {
        "containerOverrides": [{"name": name, **by_name.get(name, {})} for name in known],
        "inferenceAcceleratorOverrides": given.get("inferenceAcceleratorOverrides", []),
    }
    for member in ("executionRoleArn", "taskRoleArn", "ephemeralStorage"):
        if member in given:
            result[member] = given[member]
    return result | _size(given)


def _size(given: Mapping[str, Any]) -> dict[str, Any]:
    size: dict[str, Any] = {}
    try:
        if "cpu" in given:
            size["cpu"] = task_size.cpu_units(given["cpu"])
        if "memory" in given:
            size["memory"] = task_size.memory_mib(given["memory"])
    except ClientException as err:
        raise InvalidParameterException(err.message) from err
    if "ephemeralStorage" in given:
        smallest, largest = EPHEMERAL_STORAGE
        if not smallest <= given["ephemeralStorage"]["sizeInGiB"] <= largest:
            raise InvalidParameterException(
                f"The ephemeral storage of a task must be between {smallest} and {largest} GiB."
            )
    return size


def check_fargate(overrides: Mapping[str, Any], definition: TaskDefinition) -> None:
    """Raise InvalidParameterException when Fargate has no tasks of the overridden size."""
    if "cpu" not in overrides and "memory" not in overrides:
        return
    try:
        task_size.check_fargate(
            overrides.get("cpu", definition.definition.get("cpu")),
            overrides.get("memory", definition.definition.get("memory")),
        )
    except ClientException as err:
        raise InvalidParameterException(err.message) from err


def of_container(overrides: Mapping[str, Any], container: str) -> dict[str, Any]:
    """Return what filled overrides say of one container."""
    for override in overrides.get("containerOverrides", ()):
        if override["name"] == container:
            return dict(override)
    return {}
