"""Task definitions as they come to the runtime: registered by ECS's rules, as a Pod's task."""

from __future__ import annotations

from typing import Any

from tests.ecs.shapes import REGION, Ecs

from kecs.controlplane.specs import task_spec
from kecs.ecs import task_definitions
from kecs.ecs.context import RuntimeTraits
from kecs.ecs.model import TaskDefinition
from kecs.ecs.new_task import new_task
from kecs.runtimes.base import TaskSpec
from kecs.runtimes.kubernetes.identity import Owner

OWNER = Owner("default", "0123456789abcdef")


def task_of(*containers: dict[str, Any], time_scale: float = 1.0, **members: Any) -> TaskSpec:
    """Return the order to run a task of these containers; `members` are the definition's others."""
    ecs = Ecs()
    ecs.runtime = RuntimeTraits(
        name="kubernetes",
        instance=OWNER.instance,
        instance_id=OWNER.instance_id,
        node_ports=range(30000, 30010),
    )
    given = [{"name": "web", "image": "web:1"} | each for each in containers]
    ecs.call(
        task_definitions.register_task_definition,
        family="web",
        containerDefinitions=given,
        **{"networkMode": "awsvpc", "memory": "512"} | members,
    )
    definition = ecs.state.get(TaskDefinition, REGION, "web", 1)
    assert definition is not None
    task = new_task(
        ecs.state, cluster="default", definition=definition, ctx=ecs.context(), launch_type="FARGATE"
    )
    environments = {
        each["name"]: {pair["name"]: pair["value"] for pair in each.get("environment", [])}
        | {secret["name"]: f"value of {secret['name']}" for secret in each.get("secrets", [])}
        for each in given
    }
    return task_spec(task, definition, environments, time_scale=time_scale)
